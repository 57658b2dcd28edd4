//! Llumnix's dispatch rule (Sun et al., OSDI 2024) without its migration: the instance with the most free KV memory per
//! request it has.

use equipoise_types::RandomStream;

use crate::least_kv::UNKNOWN_CAPACITY_TOKENS;
use crate::least_requests::LastChosen;
use crate::{Candidate, Choice, Policy, Request};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct LlumnixMinus {
    last_chosen: LastChosen,
}

impl Policy for LlumnixMinus {
    fn name(&self) -> &'static str {
        "llumnix-minus"
    }

    fn choose(&mut self, _request: &Request, candidates: &[Candidate], _random: &mut RandomStream) -> Choice {
        let freeness = |candidate: &Candidate| {
            let capacity = candidate.kv_capacity_tokens.unwrap_or(UNKNOWN_CAPACITY_TOKENS) as f64;
            let free = capacity - (candidate.load.kv_tokens + candidate.load.pending_prefill_tokens) as f64;
            free / f64::from(candidate.load.in_flight.max(1))
        };
        let index = self.last_chosen.least(candidates, |candidate| -freeness(candidate));
        self.last_chosen.note(candidates[index].instance);
        Choice::Take { index, score: None }
    }
}
