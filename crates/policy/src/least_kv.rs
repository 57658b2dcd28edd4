//! The instance with the smallest share of its KV cache in use or promised.

use equipoise_types::RandomStream;

use crate::least_requests::LastChosen;
use crate::{Candidate, Choice, Policy, Request};

/// KV tokens of an instance whose capacity is unknown: an 8B model on an 80 GB GPU holds about this many.
pub(crate) const UNKNOWN_CAPACITY_TOKENS: u64 = 400_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct LeastKv {
    last_chosen: LastChosen,
}

impl Policy for LeastKv {
    fn name(&self) -> &'static str {
        "least-kv"
    }

    fn choose(&mut self, _request: &Request, candidates: &[Candidate], _random: &mut RandomStream) -> Choice {
        let key = |candidate: &Candidate| {
            let promised = candidate.load.pending_prefill_tokens + candidate.load.pending_decode_tokens;
            let capacity = candidate.kv_capacity_tokens.unwrap_or(UNKNOWN_CAPACITY_TOKENS).max(1);
            (candidate.load.kv_tokens + promised) as f64 / capacity as f64 / candidate.weight
        };
        let index = self.last_chosen.least(candidates, key);
        self.last_chosen.note(candidates[index].instance);
        Choice::Take { index, score: None }
    }
}
