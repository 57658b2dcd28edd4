//! An opaque box with a fixed service time, in short slices so that an arrival finds a free slot promptly.

use super::{Engine, Scheduled, count};
use crate::event::{EngineEvent, Step, StepPart};
use crate::step::{StepCost, StepWork};

/// Rounding that a sum of slices may leave, seconds.
const ROUNDING_SECONDS: f64 = 1e-9;

impl Engine {
    /// Fills free slots; then a slice lasts to the next completion, at most `longest_s`.
    pub(super) fn form_slice(&mut self, longest_s: f64) -> Option<Step> {
        let max_num_seqs = self.model.limits().max_num_seqs;
        while count(self.running.len()) < max_num_seqs
            && let Some(slot) = self.waiting.pop_front()
        {
            self.slots[slot].running = true;
            self.running.push(slot);
        }
        self.schedule_slice(longest_s)
    }

    /// A slice for those who have a slot.
    pub(super) fn schedule_slice(&mut self, longest_s: f64) -> Option<Step> {
        self.scheduled.clear();
        self.parts.clear();
        let remaining = |slot: &usize| self.slots[*slot].remaining_seconds;
        let next_completion = self.running.iter().map(remaining).reduce(f64::min)?;
        let seconds = next_completion.min(longest_s);
        let mut work = StepWork {
            decode_seqs: count(self.running.len()),
            ..StepWork::default()
        };
        for &slot in &self.running {
            let sequence = &self.slots[slot];
            let completes = sequence.remaining_seconds <= seconds + ROUNDING_SECONDS;
            let (prefill_tokens, decode_tokens) = if completes {
                (sequence.lacking(), sequence.request.output_tokens)
            } else {
                (0, 0)
            };
            work.prefill_tokens = work.prefill_tokens.saturating_add(prefill_tokens);
            work.prefill_seqs += u32::from(completes);
            self.parts.push(StepPart {
                id: sequence.request.id,
                prefill_tokens,
                decode_tokens,
                kv_tokens: 0,
            });
            self.scheduled.push(Scheduled {
                slot: Some(slot),
                tokens: decode_tokens,
            });
        }
        Some(Step {
            work,
            cost: StepCost {
                seconds,
                ..StepCost::default()
            },
        })
    }

    pub(super) fn end_slice(&mut self, seconds: f64, events: &mut Vec<EngineEvent>) -> bool {
        let mut any_finished = false;
        for &Scheduled { slot, tokens } in &self.scheduled {
            let Some(slot) = slot else { continue };
            let sequence = &mut self.slots[slot];
            sequence.remaining_seconds -= seconds;
            if tokens == 0 {
                continue;
            }
            let id = sequence.request.id;
            self.pending_prefill_tokens -= sequence.pending_prefill();
            self.pending_decode_tokens -= sequence.pending_decode();
            sequence.computed = sequence.request.prompt_tokens + tokens - 1;
            sequence.generated = tokens;
            sequence.finished = true;
            any_finished = true;
            self.prompt_tokens_total += u64::from(sequence.request.prompt_tokens);
            self.generation_tokens_total += u64::from(tokens);
            events.push(EngineEvent::FirstToken { id });
            events.extend((1..tokens).map(|_| EngineEvent::Token { id }));
            events.push(EngineEvent::Finished { id });
        }
        any_finished
    }
}
