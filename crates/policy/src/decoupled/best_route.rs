//! BEST-Route (Ding et al., ICML 2025) as the RouteBalance study ran it: four-way classification of which model answers
//! best; below a confidence of `t` the smallest model.
//!
//! The study's classifier (DeBERTa-v3-small) is replaced by the forecasts: confidences are their softmax at
//! temperature 0.1. Its code fell back to whichever model came first in a file; the documented smallest is used here.

use super::{ModelOption, ModelRouter, largest};

/// The study's headline setting is t = 0.5; its sweep 0, 0.3, 0.5, 0.7.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BestRoute {
    threshold: f64,
    temperature: f64,
}

impl BestRoute {
    /// With its parameter, or the default.
    pub(crate) fn new(threshold: Option<f64>) -> Self {
        Self {
            threshold: threshold.unwrap_or(0.5),
            temperature: 0.1,
        }
    }
}

impl ModelRouter for BestRoute {
    fn choose(&self, options: &[ModelOption]) -> usize {
        let best = largest(options, |option| option.quality);
        let weight = |option: &ModelOption| ((option.quality - options[best].quality) / self.temperature).exp();
        let confidence = 1.0 / options.iter().map(weight).sum::<f64>();
        if confidence >= self.threshold {
            best
        } else {
            largest(options, |option| -option.cost_usd)
        }
    }
}
