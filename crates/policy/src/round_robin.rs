//! In turn, in proportion to the instances' weights ("smooth" weighted round robin, as nginx does it).

use equipoise_types::RandomStream;

use crate::load_row::Loaded;
use crate::{Candidate, Choice, LoadRow, Policy, Request};

/// Each candidate earns its weight at every turn; the richest is taken and pays the whole turn.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// By instance.
    credit: Vec<f64>,
}

impl RoundRobin {
    fn take<T: Loaded>(&mut self, candidates: &[T]) -> usize {
        let mut best = (0, f64::NEG_INFINITY);
        let mut turn = 0.0;
        for (index, candidate) in candidates.iter().enumerate() {
            let LoadRow { instance, weight, .. } = candidate.row();
            if self.credit.len() <= instance.index() {
                self.credit.resize(instance.index() + 1, 0.0);
            }
            let credit = &mut self.credit[instance.index()];
            *credit += weight;
            turn += weight;
            if *credit > best.1 {
                best = (index, *credit);
            }
        }
        self.credit[candidates[best.0].row().instance.index()] -= turn;
        best.0
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn looks_at_load_only(&self) -> bool {
        true
    }

    fn choose_by_load(&mut self, rows: &[LoadRow], _random: &mut RandomStream) -> Option<usize> {
        Some(self.take(rows))
    }

    fn choose(&mut self, _request: &Request, candidates: &[Candidate], _random: &mut RandomStream) -> Choice {
        Choice::Take {
            index: self.take(candidates),
            score: None,
        }
    }
}
