//! Two candidates at random, and of these the one with fewer requests in flight per weight (Mitzenmacher 2001).

use equipoise_types::RandomStream;

use crate::load_row::Loaded;
use crate::{Candidate, Choice, LoadRow, Policy, Request};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo;

impl Policy for PowerOfTwo {
    fn name(&self) -> &'static str {
        "power-of-two"
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

fn draw<T: Loaded>(candidates: &[T], random: &mut RandomStream) -> usize {
    let first = random.below(candidates.len());
    // The second among the others, so that the two differ wherever there are two.
    let second = if candidates.len() > 1 {
        let other = random.below(candidates.len() - 1);
        other + usize::from(other >= first)
    } else {
        first
    };
    let key = |index: usize| candidates[index].row().crowding;
    if key(second) < key(first) { second } else { first }
}
