//! RADAR (arXiv 2509.25426): item response theory predicts the performance of each (model, reasoning budget); the
//! choice is the best linear scalarisation of predicted performance and cost.
//!
//! With forecasts of the `irt` predictor this is the paper's linear rule; costs are stretched to [0, 1] over the models.

use super::{ModelOption, ModelRouter, largest, stretched};

/// Weight of performance; the rest is cost's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Radar {
    performance_weight: f64,
}

impl Radar {
    /// With its parameter, or the default.
    pub(crate) fn new(performance_weight: Option<f64>) -> Self {
        Self {
            performance_weight: performance_weight.unwrap_or(0.9),
        }
    }
}

impl ModelRouter for Radar {
    fn choose(&self, options: &[ModelOption]) -> usize {
        largest(options, |option| {
            let cost = stretched(options, |option| option.cost_usd, option);
            self.performance_weight * option.quality - (1.0 - self.performance_weight) * cost
        })
    }
}
