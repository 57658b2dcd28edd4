//! In turn, in proportion to the instances' weights ("smooth" weighted round robin, as nginx does it).

use std::collections::BTreeMap;

use equipoise_types::{InstanceId, RandomStream};

use crate::{Candidate, Choice, Policy, Request};

/// Each candidate earns its weight at every turn; the richest is taken and pays the whole turn.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    credit: BTreeMap<InstanceId, f64>,
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn looks_at_load_only(&self) -> bool {
        true
    }

    fn choose(&mut self, _request: &Request, candidates: &[Candidate], _random: &mut RandomStream) -> Choice {
        let mut best = (0, f64::NEG_INFINITY);
        let mut turn = 0.0;
        for (index, candidate) in candidates.iter().enumerate() {
            let credit = self.credit.entry(candidate.instance).or_default();
            *credit += candidate.weight;
            turn += candidate.weight;
            if *credit > best.1 {
                best = (index, *credit);
            }
        }
        if let Some(credit) = self.credit.get_mut(&candidates[best.0].instance) {
            *credit -= turn;
        }
        Choice::Take {
            index: best.0,
            score: None,
        }
    }
}
