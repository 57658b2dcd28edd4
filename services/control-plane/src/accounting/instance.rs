//! One instance's intervals and activity that wait for one another.

use super::terms::{Shape, terms_of};
use equipoise_energy::{
    ActivitySlice, InstanceFacts, IntervalEnergy, IntervalSplit, SliceOwner, StepTerms, attribute_interval,
};
use equipoise_proto::v1::Instance;
use equipoise_types::Timestamp;
use std::collections::VecDeque;

/// Slices that may wait on one instance.
const LIMIT_SLICES: usize = 65_536;
/// The same where no energy has come yet: what is known of an engine that nobody meters is for nothing.
const LIMIT_UNMETERED_SLICES: usize = 4096;
/// Intervals that may wait on one instance; more are settled at once.
const LIMIT_INTERVALS: usize = 1024;

/// A part of a request's life.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    pub(super) router: String,
    pub(super) decision: String,
    pub(super) tenant: String,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) prefill_tokens: u32,
    pub(super) decode_tokens: u32,
    /// Mean context while decoding.
    pub(super) context_tokens: u32,
    pub(super) finished: bool,
    pub(super) wasted: bool,
    pub(super) received_ns: u64,
}

impl Slice {
    /// Whether it lies before `end_ns`, which is not its own.
    pub(super) fn is_over(&self, end_ns: u64) -> bool {
        self.start_ns < end_ns && self.end_ns <= end_ns
    }

    /// Who pays, and what is counted with an interval that ends at `end_ns`: a slice counts where it ends.
    pub(super) fn owner(&self, end_ns: u64) -> SliceOwner<'_> {
        let counted = self.is_over(end_ns);
        let count = |number: u64| if counted { number } else { 0 };
        SliceOwner {
            tenant: &self.tenant,
            prefill_tokens: count(self.prefill_tokens.into()),
            decode_tokens: count(self.decode_tokens.into()),
            requests: count(self.finished.into()),
            wasted: self.wasted,
        }
    }

    fn activity(&self) -> ActivitySlice {
        ActivitySlice {
            key: 0,
            start: Timestamp(self.start_ns),
            end: Timestamp(self.end_ns),
            prefill_tokens: self.prefill_tokens,
            decode_tokens: self.decode_tokens,
            context_tokens: self.context_tokens,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct InstanceAccount {
    facts: Option<InstanceFacts>,
    shape: Shape,
    terms: StepTerms,
    waiting: VecDeque<(IntervalEnergy, u64)>,
    slices: VecDeque<Slice>,
    /// The end of the last interval taken.
    taken_until_ns: u64,
    /// The end of the last interval settled.
    settled_until_ns: u64,
}

impl InstanceAccount {
    /// An account whose intervals up to `until_ns` have been settled by an earlier process.
    pub(super) fn resumed(until_ns: u64) -> Self {
        Self {
            taken_until_ns: until_ns,
            settled_until_ns: until_ns,
            ..Self::default()
        }
    }

    pub(super) fn facts(&self) -> Option<&InstanceFacts> {
        self.facts.as_ref()
    }

    /// The end of the last interval settled, for the record.
    pub(super) fn settled_until_ns(&self) -> u64 {
        self.settled_until_ns
    }

    /// Whether energy has ever come for the instance.
    pub(super) fn is_metered(&self) -> bool {
        self.taken_until_ns > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.slices.is_empty()
    }

    /// False if the interval is empty or begins before the end of the last one.
    pub(super) fn take_interval(&mut self, instance: &Instance, interval: IntervalEnergy, now_ns: u64) -> bool {
        if interval.end <= interval.start || interval.start.0 < self.taken_until_ns {
            return false;
        }
        let shape = Shape::of(instance);
        if self.facts.is_none() || shape != self.shape {
            self.terms = terms_of(&shape);
            self.shape = shape;
        }
        self.facts = Some(InstanceFacts {
            instance: instance.name.clone(),
            pool: instance.pool.clone(),
            model: instance
                .model
                .as_ref()
                .map(|model| model.name.clone())
                .unwrap_or_default(),
            gpu: instance.tier.as_ref().map(|tier| tier.gpu.clone()).unwrap_or_default(),
        });
        self.taken_until_ns = interval.end.0;
        self.waiting.push_back((interval, now_ns));
        true
    }

    /// Returns how many slices had to be given up for it.
    pub(super) fn take_slice(&mut self, slice: Slice) -> u64 {
        self.slices.push_back(slice);
        let limit = if self.is_metered() {
            LIMIT_SLICES
        } else {
            LIMIT_UNMETERED_SLICES
        };
        if self.slices.len() <= limit {
            return 0;
        }
        self.slices.pop_front().map_or(0, |_| 1)
    }

    /// The next interval if it is ready, or if too many wait.
    pub(super) fn next_interval(&mut self, ready: impl Fn(&IntervalEnergy, u64) -> bool) -> Option<IntervalEnergy> {
        let (interval, arrived_ns) = self.waiting.front()?;
        if !ready(interval, *arrived_ns) && self.waiting.len() <= LIMIT_INTERVALS {
            return None;
        }
        self.waiting.pop_front().map(|(interval, _)| interval)
    }

    /// Splits an interval over the slices that began before its end. One that came too late for its own interval gets
    /// no energy of this one, but its tokens are counted.
    pub(super) fn split(&self, interval: &IntervalEnergy) -> (Vec<Slice>, IntervalSplit) {
        let begun = |slice: &&Slice| slice.start_ns < interval.end.0;
        let slices: Vec<_> = self.slices.iter().filter(begun).cloned().collect();
        let activity: Vec<_> = slices.iter().map(Slice::activity).collect();
        let split = attribute_interval(interval, &activity, &self.terms);
        (slices, split)
    }

    /// Forgets the slices that ended by `end_ns`: their interval is settled.
    pub(super) fn forget_until(&mut self, end_ns: u64) {
        self.settled_until_ns = end_ns;
        self.slices.retain(|slice| !slice.is_over(end_ns));
    }

    /// Gives up slices that came before `before_ns`, unless an interval still waits. Returns how many.
    pub(super) fn give_up_before(&mut self, before_ns: u64) -> u64 {
        if !self.waiting.is_empty() {
            return 0;
        }
        let before = self.slices.len();
        self.slices.retain(|slice| slice.received_ns >= before_ns);
        (before - self.slices.len()) as u64
    }
}
