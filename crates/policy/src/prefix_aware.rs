//! The cache-aware rule of sgl-router: while load is even, the instance that has most of the prompt in its prefix cache,
//! or, where none has half of it, the one whose cache is emptiest; when load is uneven, the shortest queue.
//!
//! Parameters are that router's first defaults: match threshold 0.5, uneven from 32 requests and a ratio of 1.0001 between
//! the busiest and the least busy. Its tree over characters is replaced by this house's block index, the
//! size of the tree by the KV tokens in use.

use equipoise_types::RandomStream;

use crate::least_requests::LastChosen;
use crate::{Candidate, Choice, Policy, Request};

const MATCH_THRESHOLD: f64 = 0.5;
const UNEVEN_BY: u32 = 32;
const UNEVEN_RATIO: f64 = 1.0001;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct PrefixAware {
    last_chosen: LastChosen,
}

impl Policy for PrefixAware {
    fn name(&self) -> &'static str {
        "prefix-aware"
    }

    fn choose(&mut self, request: &Request, candidates: &[Candidate], _random: &mut RandomStream) -> Choice {
        let loads = candidates.iter().map(|candidate| candidate.load.in_flight);
        let (least, most) = loads.fold((u32::MAX, 0), |(least, most), load| (least.min(load), most.max(load)));
        let uneven = most - least > UNEVEN_BY && f64::from(most) > UNEVEN_RATIO * f64::from(least);
        let best_match = candidates
            .iter()
            .map(|candidate| candidate.cached_tokens)
            .max()
            .unwrap_or(0);
        let matched = f64::from(best_match) > MATCH_THRESHOLD * f64::from(request.prompt_tokens);
        let key = |candidate: &Candidate| {
            if uneven {
                f64::from(candidate.load.in_flight)
            } else if matched {
                -f64::from(candidate.cached_tokens)
            } else {
                candidate.load.kv_tokens as f64
            }
        };
        let index = self.last_chosen.least(candidates, key);
        self.last_chosen.note(candidates[index].instance);
        Choice::Take { index, score: None }
    }
}
