//! The two ends: always the best predicted model, always the cheapest.

use super::{ModelOption, ModelRouter, largest};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QualityGreedy;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CostGreedy;

impl ModelRouter for QualityGreedy {
    fn choose(&self, options: &[ModelOption]) -> usize {
        largest(options, |option| option.quality)
    }
}

impl ModelRouter for CostGreedy {
    fn choose(&self, options: &[ModelOption]) -> usize {
        largest(options, |option| -option.cost_usd)
    }
}
