//! What is remembered of decisions until somebody says how good their answers were: little, and not for ever.

use std::collections::VecDeque;

use equipoise_policy::{Candidate, Policy, Request};
use equipoise_types::{DecisionId, ModelId};

/// Models kept over all decisions, 12 bytes each: about 130,000 decisions of a fleet of four models.
const KEPT_ENTRIES: usize = 1 << 19;
/// Decisions kept, 40 bytes each, also where few models are served. Below a power of two, to which the memory is rounded.
const KEPT_DECISIONS: usize = (1 << 17) - 1;

/// What became of a piece of feedback.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Of which decision.
    pub decision: DecisionId,
    /// The model that answered.
    pub model: ModelId,
    /// The quality that was predicted when it was decided, [0, 1].
    pub predicted: f64,
    /// How good the answer was, [0, 1].
    pub score: f64,
    /// What the best model that could have taken the request would have been worth above the one that did, as far as all
    /// feedback before this one says. Not negative; 0 where the choice still looks like the best.
    pub regret: f64,
}

/// Feedback that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// Nobody decided that, or it is too long ago.
    #[error("the decision is not known: it is too long ago, or was never made")]
    Unknown,
    /// An answer is judged once.
    #[error("the decision has feedback already; the first counts")]
    Duplicate,
    /// The score is no probability.
    #[error("the score must be from 0 to 1")]
    OutOfRange,
}

/// One model that could have taken a request.
#[derive(Clone, Copy, Debug)]
struct Entry {
    model: ModelId,
    /// Its quality before outcomes corrected it.
    base: f32,
    /// The score of its best instance without the part for quality.
    rest: f32,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Its entries, counted from the first that was ever kept. The first of them is the chosen model's.
    start: u64,
    entries: u32,
    /// The score's weight of quality.
    weight: f32,
    predicted: f32,
    /// How sure the answer was of itself, where that was asked; else no number.
    confidence: f32,
    judged: bool,
}

/// The last decisions, bounded by the models in them.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    /// Most entries.
    limit: usize,
    decisions: VecDeque<Kept>,
    entries: VecDeque<Entry>,
    /// The first decision that is kept, and its first entry.
    first: u64,
    first_entry: u64,
    // Reused between decisions.
    models: Vec<Entry>,
}

/// A decision that is judged for the first time.
pub(crate) struct Judged<'a> {
    pub(crate) model: ModelId,
    pub(crate) base: f64,
    pub(crate) predicted: f64,
    /// How sure the answer was of itself; `None` where that was not asked.
    pub(crate) confidence: Option<f64>,
    weight: f64,
    entries: std::collections::vec_deque::Iter<'a, Entry>,
}

impl Judged<'_> {
    /// The best model's worth above that of the chosen one, with qualities corrected as `correct` says.
    pub(crate) fn regret(&self, correct: impl Fn(ModelId, f64) -> f64) -> f64 {
        let worth = |entry: &Entry| self.weight * correct(entry.model, f64::from(entry.base)) + f64::from(entry.rest);
        let chosen = self.entries.clone().next().map_or(0.0, worth);
        let best = self.entries.clone().map(worth).fold(chosen, f64::max);
        best - chosen
    }
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            limit: KEPT_ENTRIES,
            decisions: VecDeque::new(),
            entries: VecDeque::new(),
            first: 0,
            first_entry: 0,
            models: Vec::new(),
        }
    }
}

impl Outcomes {
    /// Remembers a decision; decisions come in order. `candidates` are those that passed the hard constraints,
    /// `scores` the policy's where it is absolute.
    pub(crate) fn keep(
        &mut self,
        request: &Request,
        chosen: &Candidate,
        candidates: &[Candidate],
        scores: &[Option<f64>],
        policy: &dyn Policy,
    ) {
        // The score says how much quality weighs. A policy without one is measured by quality alone.
        let weight = {
            let at = |quality: f64| {
                let mut candidate = *chosen;
                candidate.prediction.estimate.quality = quality;
                policy.score(request, &candidate)
            };
            at(1.0).zip(at(0.0)).map_or(1.0, |(good, bad)| good - bad)
        };
        self.models.clear();
        let of_chosen = (chosen, policy.score(request, chosen));
        let scored = candidates.iter().zip(scores.iter().copied());
        for (candidate, score) in std::iter::once(of_chosen).chain(scored) {
            let quality = candidate.estimate().quality;
            let rest = score.map_or(0.0, |score| score - weight * quality) as f32;
            match self.models.iter_mut().find(|entry| entry.model == candidate.model) {
                // An instance of the chosen model is as good as the chosen one: feedback tells models apart.
                Some(entry) => entry.rest = entry.rest.max(rest),
                None => self.models.push(Entry {
                    model: candidate.model,
                    base: candidate.prediction.quality.base as f32,
                    rest,
                }),
            }
        }
        self.decisions.push_back(Kept {
            start: self.first_entry + self.entries.len() as u64,
            entries: u32::try_from(self.models.len()).unwrap_or(u32::MAX),
            weight: weight as f32,
            predicted: chosen.estimate().quality as f32,
            confidence: f32::NAN,
            judged: false,
        });
        self.entries.extend(&self.models);
        while (self.entries.len() > self.limit || self.decisions.len() > KEPT_DECISIONS)
            && let Some(oldest) = self.decisions.pop_front()
        {
            self.first += 1;
            self.first_entry += u64::from(oldest.entries);
            self.entries.drain(..oldest.entries as usize);
        }
    }

    fn kept(&mut self, decision: DecisionId) -> Option<&mut Kept> {
        let index = usize::try_from(decision.0.checked_sub(self.first)?).ok()?;
        self.decisions.get_mut(index)
    }

    /// How sure the answer to a decision is of itself.
    pub(crate) fn note_confidence(&mut self, decision: DecisionId, confidence: f64) {
        if let Some(kept) = self.kept(decision) {
            kept.confidence = confidence as f32;
        }
    }

    /// The decision went to another candidate after all.
    pub(crate) fn choose_again(&mut self, decision: DecisionId, chosen: &Candidate) {
        let first_entry = self.first_entry;
        let Some(kept) = self.kept(decision) else { return };
        kept.predicted = chosen.estimate().quality as f32;
        let start = usize::try_from(kept.start - first_entry).unwrap_or(usize::MAX);
        let mut entries = start..start + kept.entries as usize;
        if let Some(index) = entries.find(|index| self.entries[*index].model == chosen.model) {
            self.entries.swap(start, index);
        }
    }

    /// Marks a decision as judged.
    pub(crate) fn judge(&mut self, decision: DecisionId) -> Result<Judged<'_>, FeedbackError> {
        let kept = self.kept(decision).ok_or(FeedbackError::Unknown)?;
        if std::mem::replace(&mut kept.judged, true) {
            return Err(FeedbackError::Duplicate);
        }
        let kept = *kept;
        let start = usize::try_from(kept.start - self.first_entry).unwrap_or(usize::MAX);
        let entries = self.entries.range(start..start + kept.entries as usize);
        let chosen = entries.clone().next().ok_or(FeedbackError::Unknown)?;
        Ok(Judged {
            model: chosen.model,
            base: f64::from(chosen.base),
            predicted: f64::from(kept.predicted),
            confidence: Some(f64::from(kept.confidence)).filter(|confidence| !confidence.is_nan()),
            weight: f64::from(kept.weight),
            entries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_estimate::{Estimate, InstanceLoad, Prediction, QualityEstimate};
    use equipoise_policy::Random;
    use equipoise_types::{InstanceId, Joules};

    fn candidate(model: u32, quality: f64) -> Candidate {
        let estimate = Estimate {
            quality,
            quality_sd: 0.1,
            output_tokens: 1.0,
            queue_s: 0.0,
            ttft_s: 0.1,
            tpot_s: 0.1,
            e2e_s: 0.1,
            energy: Joules(1.0),
            idle_energy: Joules(0.0),
            others_s: 0.0,
            cost_usd: 0.0,
            bounds: Default::default(),
        };
        Candidate {
            instance: InstanceId(model),
            model: ModelId(model),
            load: InstanceLoad::default(),
            slots: 1,
            kv_capacity_tokens: None,
            cached_tokens: 0,
            weight: 1.0,
            alone_tpot_s: 0.01,
            peers: equipoise_fleet::PeerView::default(),
            crowded: None,
            prediction: Prediction {
                estimate,
                quality: QualityEstimate {
                    base: quality,
                    ..QualityEstimate::default()
                },
                base_ttft_s: 0.1,
                base_tpot_s: 0.1,
                forecast_output_tokens: None,
                in_flight: 0,
                load_factor: 1.0,
                length: equipoise_estimate::LengthEstimate::default(),
                regime: Default::default(),
            },
        }
    }

    #[test]
    fn the_oldest_make_room_and_the_rest_are_found() {
        let mut outcomes = Outcomes {
            limit: 100,
            ..Outcomes::default()
        };
        let request = crate::scheduler::tests::request(0);
        for decision in 0..1000_u32 {
            // One to three models, the chosen one among them by its number.
            let models: Vec<_> = (0..=decision % 3).map(|model| candidate(model, 0.5)).collect();
            let chosen = candidate(decision % 3, 0.25);
            outcomes.keep(&request, &chosen, &models, &vec![None; models.len()], &Random);
            assert!(outcomes.entries.len() <= 100);
        }
        assert!(outcomes.judge(DecisionId(900)).is_err(), "too long ago");
        assert!(outcomes.judge(DecisionId(1000)).is_err(), "not yet");
        for decision in 960..1000_u64 {
            let judged = outcomes.judge(DecisionId(decision)).expect("is kept");
            assert_eq!(judged.model, ModelId((decision % 3) as u32));
            assert!((judged.base - 0.25).abs() < 1e-6);
            let regret = judged.regret(|_, base| base);
            let expected = if decision % 3 == 0 { 0.0 } else { 0.25 };
            assert!((regret - expected).abs() < 1e-6, "{decision}: {regret}");
            assert!(outcomes.judge(DecisionId(decision)).is_err(), "once");
        }
    }
}
