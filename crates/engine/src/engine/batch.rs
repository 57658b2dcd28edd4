//! Forming and ending a step of a modelled engine.

use super::{Engine, Scheduled, Slot, count};
use crate::deployment::Batching;
use crate::event::{EngineEvent, Step, StepPart};
use crate::step::StepWork;

impl Engine {
    pub(super) fn form_batch(&mut self) -> Option<Step> {
        let mut work = StepWork::default();
        let mut budget = self.model.limits().max_num_batched_tokens;
        if self.model.batching() == Batching::PrefillFirst {
            self.form_prompts(budget, &mut work);
        }
        if !self.scheduled.is_empty() {
            return Some(self.step_of(work));
        }
        let mut next = 0;
        while budget > 0 && next < self.running.len() {
            let slot = self.running[next];
            let tokens = self.slots[slot].lacking().min(budget);
            if !self.grow_or_preempt(slot, tokens) {
                break;
            }
            self.schedule(slot, tokens, &mut work);
            budget -= tokens;
            next += 1;
        }
        if self.preempted.is_empty() {
            self.admit(budget, &mut work);
        }
        if self.scheduled.is_empty() {
            return None;
        }
        Some(self.step_of(work))
    }

    fn step_of(&self, work: StepWork) -> Step {
        Step {
            work,
            cost: self.model.cost(&work),
        }
    }

    /// A step of prompts alone, where there are any that find blocks; decodes wait.
    fn form_prompts(&mut self, mut budget: u32, work: &mut StepWork) {
        for next in 0..self.running.len() {
            let slot = self.running[next];
            if budget == 0 || self.slots[slot].decodes() {
                continue;
            }
            let tokens = self.slots[slot].lacking().min(budget);
            if !self.grow(slot, tokens) {
                return;
            }
            self.schedule(slot, tokens, work);
            budget -= tokens;
        }
        self.admit(budget, work);
    }

    /// Takes the blocks that `tokens` more need; where none are free, the last admitted gives way. False if that was the
    /// sequence itself. Victims lie behind it in `running`, so none is scheduled yet.
    fn grow_or_preempt(&mut self, slot: Slot, tokens: u32) -> bool {
        while !self.grow(slot, tokens) {
            let Some(victim) = self.running.pop() else {
                return false;
            };
            self.preempt(victim);
            if victim == slot {
                return false;
            }
        }
        true
    }

    fn grow(&mut self, slot: Slot, tokens: u32) -> bool {
        let sequence = &mut self.slots[slot];
        let blocks = self.kv.blocks(sequence.computed + tokens);
        // A cached prefix may take more blocks than were held before, never fewer.
        let fits = blocks <= sequence.blocks || self.kv.take(blocks - sequence.blocks);
        if fits {
            sequence.blocks = sequence.blocks.max(blocks);
        }
        fits
    }

    fn preempt(&mut self, slot: Slot) {
        let sequence = &mut self.slots[slot];
        sequence.before = (sequence.computed, self.kv.give_back(sequence.blocks));
        sequence.blocks = 0;
        self.pending_prefill_tokens -= sequence.pending_prefill();
        sequence.computed = sequence.request.cached_tokens;
        self.pending_prefill_tokens += sequence.pending_prefill();
        sequence.running = false;
        self.preemptions_total += 1;
        self.preempted.push(sequence.request.id);
        self.waiting.push_front(slot);
    }

    fn admit(&mut self, mut budget: u32, work: &mut StepWork) {
        let max_num_seqs = self.model.limits().max_num_seqs;
        while budget > 0 && count(self.running.len()) < max_num_seqs {
            let Some(&slot) = self.waiting.front() else {
                break;
            };
            let sequence = &self.slots[slot];
            // A prompt comes in only if all of it fits now; else its own later chunks would drive it out again.
            let whole = sequence.computed + sequence.lacking();
            if self.kv.blocks(whole) > self.kv.total() - self.kv.used() {
                break;
            }
            self.find_again(slot);
            let tokens = self.slots[slot].lacking().min(budget);
            if !self.grow(slot, tokens) {
                break;
            }
            self.waiting.pop_front();
            self.slots[slot].running = true;
            self.running.push(slot);
            self.schedule(slot, tokens, work);
            budget -= tokens;
        }
    }

    /// After a preemption: skips what the cache still holds.
    fn find_again(&mut self, slot: Slot) {
        let sequence = &mut self.slots[slot];
        let (computed, freed) = sequence.before;
        let surviving = self.kv.surviving_tokens(freed, computed);
        self.pending_prefill_tokens -= sequence.pending_prefill();
        sequence.computed = sequence.computed.max(surviving);
        self.pending_prefill_tokens += sequence.pending_prefill();
    }

    fn schedule(&mut self, slot: Slot, tokens: u32, work: &mut StepWork) {
        let sequence = &self.slots[slot];
        let id = sequence.request.id;
        let part = if sequence.decodes() {
            let context = sequence.computed + 1;
            work.decode_seqs += 1;
            work.kv_tokens += u64::from(context);
            StepPart {
                id,
                prefill_tokens: 0,
                decode_tokens: 1,
                kv_tokens: context,
            }
        } else {
            let prefix = sequence.computed;
            work.prefill_seqs += 1;
            work.prefill_tokens += tokens;
            work.prefill_kv_tokens += u64::from(prefix);
            work.prefill_attention += f64::from(tokens) * (f64::from(prefix) + 0.5 * f64::from(tokens));
            StepPart {
                id,
                prefill_tokens: tokens,
                decode_tokens: 0,
                kv_tokens: prefix,
            }
        };
        self.parts.push(part);
        self.scheduled.push(Scheduled {
            slot: Some(slot),
            tokens,
        });
    }

    pub(super) fn end_batch(&mut self, events: &mut Vec<EngineEvent>) -> bool {
        let mut any_finished = false;
        for &Scheduled { slot, tokens } in &self.scheduled {
            let Some(slot) = slot else { continue };
            let sequence = &mut self.slots[slot];
            let id = sequence.request.id;
            self.pending_prefill_tokens -= sequence.pending_prefill();
            sequence.computed += tokens;
            if sequence.lacking() > 0 {
                self.pending_prefill_tokens += sequence.pending_prefill();
                continue;
            }
            sequence.generated += 1;
            self.generation_tokens_total += 1;
            self.pending_decode_tokens -= 1;
            if sequence.generated == 1 {
                self.prompt_tokens_total += u64::from(sequence.request.prompt_tokens);
                events.push(EngineEvent::FirstToken { id });
            } else {
                events.push(EngineEvent::Token { id });
            }
            if sequence.generated == sequence.request.output_tokens {
                sequence.finished = true;
                any_finished = true;
                events.push(EngineEvent::Finished { id });
            }
        }
        any_finished
    }
}
