//! Uniformly at random, in proportion to the instances' weights.

use equipoise_types::RandomStream;

use crate::load_row::Loaded;
use crate::{Candidate, Choice, LoadRow, Policy, Request};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn looks_at_load_only(&self) -> bool {
        true
    }

    fn choose_by_load(&mut self, rows: &[LoadRow], random: &mut RandomStream) -> Option<usize> {
        Some(draw(rows, random))
    }

    fn choose(&mut self, _request: &Request, candidates: &[Candidate], random: &mut RandomStream) -> Choice {
        Choice::Take {
            index: draw(candidates, random),
            score: None,
        }
    }
}

/// One candidate in proportion to its weight.
pub(crate) fn draw<T: Loaded>(candidates: &[T], random: &mut RandomStream) -> usize {
    let total: f64 = candidates.iter().map(|candidate| candidate.row().weight).sum();
    let mut left = random.uniform() * total;
    for (index, candidate) in candidates.iter().enumerate() {
        left -= candidate.row().weight;
        if left < 0.0 {
            return index;
        }
    }
    candidates.len() - 1
}
