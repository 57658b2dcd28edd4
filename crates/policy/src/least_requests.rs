//! The instance with the fewest requests in flight, per weight; ties go to the one that was chosen longest ago.

use equipoise_types::{InstanceId, RandomStream};

use crate::load_row::Loaded;
use crate::{Candidate, Choice, LoadRow, Policy, Request};

/// Remembers when each instance was last chosen, as a count of choices: ties rotate instead of herding.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastChosen {
    choices: u64,
    /// By instance; zero where it never was.
    at: Vec<u64>,
}

impl LastChosen {
    pub(crate) fn of(&self, instance: InstanceId) -> u64 {
        self.at.get(instance.index()).copied().unwrap_or(0)
    }

    pub(crate) fn note(&mut self, instance: InstanceId) {
        self.choices += 1;
        if self.at.len() <= instance.index() {
            self.at.resize(instance.index() + 1, 0);
        }
        self.at[instance.index()] = self.choices;
    }

    /// The candidate with the least key; ties go to the one chosen longest ago.
    pub(crate) fn least<T: Loaded>(&self, candidates: &[T], key: impl Fn(&T) -> f64) -> usize {
        let last = |index: usize| self.of(candidates[index].row().instance);
        let (mut best, mut least) = (0, key(&candidates[0]));
        for (index, candidate) in candidates.iter().enumerate().skip(1) {
            let this = key(candidate);
            // Ties are few: only they look up when it was.
            if this
                .total_cmp(&least)
                .then_with(|| last(index).cmp(&last(best)))
                .is_lt()
            {
                (best, least) = (index, this);
            }
        }
        best
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct LeastRequests {
    last_chosen: LastChosen,
}

impl LeastRequests {
    fn take<T: Loaded>(&mut self, candidates: &[T]) -> usize {
        let index = self.last_chosen.least(candidates, |candidate| candidate.row().crowding);
        self.last_chosen.note(candidates[index].row().instance);
        index
    }
}

impl Policy for LeastRequests {
    fn name(&self) -> &'static str {
        "least-requests"
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
