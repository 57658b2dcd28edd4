//! Avengers-Pro (arXiv 2508.12631): the model with the best weighted sum of performance and efficiency in the prompt's
//! clusters, both stretched to [0, 1] over the models.
//!
//! With forecasts of the `clusters` predictor (top 3 clusters, beta 5) this is the paper's rule; with others it is the
//! same trade-off on better predictions.

use super::{ModelOption, ModelRouter, largest, stretched};

/// Performance weight; the study's sweep is 0.25, 0.39, 0.4, 0.53, 0.7, 0.8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AvengersPro {
    performance_weight: f64,
}

impl AvengersPro {
    /// With its parameter, or the default.
    pub(crate) fn new(performance_weight: Option<f64>) -> Self {
        Self {
            performance_weight: performance_weight.unwrap_or(0.8),
        }
    }
}

impl ModelRouter for AvengersPro {
    fn choose(&self, options: &[ModelOption]) -> usize {
        largest(options, |option| {
            let performance = stretched(options, |option| option.quality, option);
            let efficiency = 1.0 - stretched(options, |option| option.cost_usd, option);
            self.performance_weight * performance + (1.0 - self.performance_weight) * efficiency
        })
    }
}
