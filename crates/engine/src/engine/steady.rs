//! Batches that only decode: steps that are like one another, taken together.
//!
//! While everybody in a batch decodes, nobody can come in and memory lasts, a step differs from the one before it only in
//! that each context is one token longer. A driver that owns its time can take many such steps at once.

use super::{Engine, Sequence, Slot, count};
use crate::deployment::Batching;
use equipoise_types::RequestId;

/// Steps that an idle moment of the engine (no step has begun) is followed by, unless somebody is submitted or aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteadyBatch {
    /// So many steps each decode one token for every running sequence; in none of them does anybody come in, end, or lose
    /// memory. At least 1.
    pub steps: u32,
    /// Running sequences.
    pub seqs: u32,
    /// Tokens of context that the first of the steps reads; each later one reads `seqs` more.
    pub kv_tokens: u64,
    /// True where the step after them is one more of the kind and ends a request; false where memory may run out.
    pub then_ends: bool,
}

impl Engine {
    /// The steady batch that is to follow, if one is.
    #[must_use]
    pub fn steady(&self) -> Option<SteadyBatch> {
        let seqs = count(self.running.len());
        let budget = self.model.limits().max_num_batched_tokens;
        let elsewhere = self.model.prefill_side().is_some();
        if self.step.is_some() || seqs == 0 || seqs > budget || elsewhere || self.model.fixed_seconds().is_some() {
            return None;
        }
        let mut kv_tokens = 0;
        let mut least_left = u32::MAX;
        for &slot in &self.running {
            let sequence = &self.slots[slot];
            if !sequence.decodes() {
                return None;
            }
            kv_tokens += u64::from(sequence.computed) + 1;
            least_left = least_left.min(sequence.request.output_tokens - sequence.generated);
        }
        let steps = least_left - 1;
        if steps == 0 || self.could_admit(seqs) {
            return None;
        }
        // The step that ends a request needs memory as well, to be one of the kind.
        let in_memory = self.steps_in_memory(least_left);
        (in_memory > 0).then_some(SteadyBatch {
            steps: in_memory.min(steps),
            seqs,
            kv_tokens,
            then_ends: in_memory > steps,
        })
    }

    /// Whether the head of the waiting queue comes in beside so many that decode. Where it does not, it will not while these
    /// only grow.
    fn could_admit(&self, seqs: u32) -> bool {
        let Some(&head) = self.waiting.front() else {
            return false;
        };
        let limits = self.model.limits();
        let used = match self.model.batching() {
            Batching::PrefillFirst => 0,
            Batching::Mixed => seqs,
        };
        let sequence = &self.slots[head];
        let whole = sequence.computed + sequence.lacking();
        limits.max_num_batched_tokens > used
            && seqs < limits.max_num_seqs
            && self.kv.blocks(whole) <= self.kv.total() - self.kv.used()
    }

    /// How many of `steps` steps find the blocks they need.
    fn steps_in_memory(&self, steps: u32) -> u32 {
        let free = u64::from(self.kv.total() - self.kv.used());
        let per_sequence = u64::from(steps / self.model.limits().block_tokens) + 1;
        if self.running.len() as u64 * per_sequence <= free {
            return steps;
        }
        let wanted = |steps: u32| -> u64 {
            let more = |sequence: &Sequence| {
                let blocks = self.kv.blocks(sequence.computed + steps);
                u64::from(blocks.saturating_sub(sequence.blocks))
            };
            self.running.iter().map(|&slot| more(&self.slots[slot])).sum()
        };
        let (mut fits, mut beyond) = (0, steps + 1);
        while beyond - fits > 1 {
            let middle = fits.midpoint(beyond);
            if wanted(middle) <= free {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
        fits
    }

    /// Takes `steps` steps of the [steady batch](Engine::steady) at once, as if each had begun and ended; `begun`: one more
    /// of them has begun, which only takes its blocks. `each` is told every running request and the context that the first
    /// of the steps read for it, in order of admission.
    ///
    /// The caller keeps within what `steady` said, the step that has begun included.
    pub fn skip(&mut self, steps: u32, begun: bool, mut each: impl FnMut(RequestId, u32)) {
        let mut taken = 0;
        for &slot in &self.running {
            let sequence = &mut self.slots[slot];
            each(sequence.request.id, sequence.computed + 1);
            sequence.computed += steps;
            sequence.generated += steps;
            let blocks = self.kv.blocks(sequence.computed + u32::from(begun));
            if blocks > sequence.blocks {
                taken += blocks - sequence.blocks;
                sequence.blocks = blocks;
            }
        }
        let fits = self.kv.take(taken);
        debug_assert!(fits, "a steady batch has its blocks");
        let tokens = self.running.len() as u64 * u64::from(steps);
        self.generation_tokens_total += tokens;
        self.pending_decode_tokens -= tokens;
    }

    /// The share of KV blocks in use when so many steps of the [steady batch](Engine::steady) have ended and one more has
    /// begun, as [`Engine::stats`] would say it then.
    #[must_use]
    pub fn kv_usage_after(&self, steps: u32) -> f64 {
        let more = |slot: &Slot| {
            let sequence = &self.slots[*slot];
            let blocks = self.kv.blocks(sequence.computed + steps + 1);
            blocks.saturating_sub(sequence.blocks)
        };
        let more: u32 = self.running.iter().map(more).sum();
        f64::from(self.kv.used() + more) / f64::from(self.kv.total())
    }

    /// Requests of the running batch, in order of admission.
    pub fn running(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.running.iter().map(|&slot| self.slots[slot].request.id)
    }
}
