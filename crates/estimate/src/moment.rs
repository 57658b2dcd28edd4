//! What all predictions of one instance at one moment have in common, whatever is asked: worked out once for a batch of
//! requests rather than once for each.

use equipoise_engine::StepModel;

use crate::alone::Step;

/// Learned factors, and the step of those who are there. Holds for as long as nothing is learned and no time passes; the
/// step is compared with what is asked for, and worked out anew where it is another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// On time to first token, time per token and energy.
    factors: [f64; 3],
    batch: u32,
    kv_tokens: u64,
    /// Of `batch` sequences with `kv_tokens`; `None` where the engine's physics is not known or nobody is there.
    beside: Option<Step>,
}

impl Moment {
    pub(crate) fn new(factors: [f64; 3], physics: Option<&StepModel>, batch: u32, kv_tokens: u64) -> Self {
        let physics = physics.filter(|_| batch > 0);
        Self {
            factors,
            batch,
            kv_tokens,
            beside: physics.map(|physics| Step::of(physics, batch, kv_tokens)),
        }
    }

    pub(crate) fn factors(&self) -> [f64; 3] {
        self.factors
    }

    /// The step of `batch` sequences on the engine that this was made for.
    pub(crate) fn beside(&self, physics: &StepModel, batch: u32, kv_tokens: u64) -> Step {
        match self.beside {
            Some(step) if (self.batch, self.kv_tokens) == (batch, kv_tokens) => step,
            _ => Step::of(physics, batch, kv_tokens),
        }
    }
}
