//! Why a decision fell as it did: every candidate with its prediction, and every instance that was ruled out.
//!
//! The last decisions are kept, bounded by the candidates in them, so that an operator can ask afterwards.

use std::collections::VecDeque;

use equipoise_policy::{Candidate, Constraint};
use equipoise_types::{DecisionId, InstanceId, RequestId, Timestamp};

/// Candidates and verdicts kept in all: a few hundred decisions of a small fleet, a few dozen of a large one.
const KEPT_ENTRIES: usize = 8_192;

/// One decision, explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Which.
    pub decision: DecisionId,
    /// Of which request.
    pub request: RequestId,
    /// When.
    pub at: Timestamp,
    /// Where it went.
    pub chosen: InstanceId,
    /// It went there to learn about the model, not because the policy had chosen it.
    pub explored: bool,
    /// Who passed the hard constraints, in order of their ids.
    pub candidates: Vec<Candidate>,
    /// The policy's score of each, where it is absolute.
    pub scores: Vec<Option<f64>>,
    /// Who did not, and the first constraint that stood against it.
    pub ruled_out: Vec<(InstanceId, Constraint)>,
}

impl Explanation {
    /// The candidates with their scores.
    pub fn scored(&self) -> impl Iterator<Item = (&Candidate, Option<f64>)> {
        self.candidates.iter().zip(self.scores.iter().copied())
    }

    fn entries(&self) -> usize {
        self.candidates.len() + self.ruled_out.len() + 1
    }
}

/// The last explanations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanations {
    kept: VecDeque<Explanation>,
    entries: usize,
    /// The last one that was dropped: its buffers serve the next.
    dropped: Option<Explanation>,
}

impl Explanations {
    /// One to be filled in; its candidates and verdicts are what an older one left, buffers to be swapped for others.
    pub(crate) fn blank(&mut self) -> Explanation {
        self.dropped.take().unwrap_or_else(|| Explanation {
            decision: DecisionId(0),
            request: RequestId(0),
            at: Timestamp::ZERO,
            chosen: InstanceId(0),
            explored: false,
            candidates: Vec::new(),
            scores: Vec::new(),
            ruled_out: Vec::new(),
        })
    }

    pub(crate) fn keep(&mut self, explanation: Explanation) {
        self.entries += explanation.entries();
        self.kept.push_back(explanation);
        while self.entries > KEPT_ENTRIES && self.kept.len() > 1 {
            self.dropped = self.kept.pop_front();
            self.entries -= self.dropped.as_ref().map_or(0, Explanation::entries);
        }
    }

    /// The decision went elsewhere after all.
    pub(crate) fn choose_again(&mut self, decision: DecisionId, instance: InstanceId) {
        let first = self.kept.front().map_or(0, |first| first.decision.0);
        let index = decision
            .0
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(explanation) = index.and_then(|index| self.kept.get_mut(index)) {
            explanation.chosen = instance;
        }
    }

    pub(crate) fn of(&self, decision: DecisionId) -> Option<&Explanation> {
        // Decisions are numbered in order, and kept in order.
        let first = self.kept.front()?.decision.0;
        let index = usize::try_from(decision.0.checked_sub(first)?).ok()?;
        self.kept.get(index)
    }
}
