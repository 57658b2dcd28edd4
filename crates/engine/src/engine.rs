//! One instance: continuous batching with chunked prefill over a KV ledger.
//!
//! The order of vLLM v1: running sequences first in order of admission, each as many tokens as it still lacks and the
//! budget allows; then the waiting queue, first come first served. A sequence that finds no block takes those of the last
//! admitted, which goes to the front of the queue and is computed again, as far as its blocks were overwritten meanwhile
//! (vLLM caches prefixes by default, so what is left of them is found again). Because a prompt is cut short only by the end of
//! the budget, only the last admitted can be in the middle of its prefill: decodes therefore always precede prefills.

mod batch;
mod elsewhere;
mod fixed;
#[cfg(test)]
mod tests;

use crate::event::{EngineEvent, EngineRequest, EngineStats, Step, StepPart, SubmitError};
use crate::kv::{Freed, KvLedger};
use crate::step::{SLICE_SECONDS, StepModel};
use elsewhere::Elsewhere;
use equipoise_types::RequestId;
use std::collections::{BTreeMap, VecDeque};

/// The state of one engine instance. The caller owns the clock.
///
/// Steps allocate nothing once the buffers have grown.
#[derive(Clone, Debug)]
pub struct Engine {
    model: StepModel,
    kv: KvLedger,
    /// Sequences at stable places; `vacant` lists the free ones.
    slots: Vec<Sequence>,
    vacant: Vec<Slot>,
    /// Only for submission and abortion: no step looks anything up.
    ids: BTreeMap<RequestId, Slot>,
    /// In order of admission.
    running: Vec<Slot>,
    waiting: VecDeque<Slot>,
    /// Where other GPUs compute the prompts.
    elsewhere: Option<Box<Elsewhere>>,
    /// The step between `begin_step` and `end_step`.
    step: Option<Step>,
    scheduled: Vec<Scheduled>,
    parts: Vec<StepPart>,
    preempted: Vec<RequestId>,
    preemptions_total: u64,
    prompt_tokens_total: u64,
    generation_tokens_total: u64,
    pending_prefill_tokens: u64,
    pending_decode_tokens: u64,
}

type Slot = usize;

#[derive(Clone, Debug)]
struct Sequence {
    request: EngineRequest,
    /// Tokens whose keys and values are in the cache.
    computed: u32,
    /// Tokens put out.
    generated: u32,
    /// KV blocks held.
    blocks: u32,
    /// What was computed before a preemption, and where its blocks went.
    before: (u32, Freed),
    running: bool,
    finished: bool,
    /// What an opaque box still needs for it.
    remaining_seconds: f64,
}

/// Tokens that the current step computes for a sequence; no slot once the request was aborted.
#[derive(Clone, Copy, Debug)]
struct Scheduled {
    slot: Option<Slot>,
    tokens: u32,
}

impl Sequence {
    /// Tokens that must be computed before the next one comes out.
    fn lacking(&self) -> u32 {
        self.request.prompt_tokens + self.generated - self.computed
    }

    fn decodes(&self) -> bool {
        self.generated > 0 && self.lacking() == 1
    }

    fn pending_prefill(&self) -> u64 {
        if self.decodes() { 0 } else { u64::from(self.lacking()) }
    }

    fn pending_decode(&self) -> u64 {
        u64::from(self.request.output_tokens - self.generated)
    }
}

impl Engine {
    /// An idle engine.
    #[must_use]
    pub fn new(model: StepModel) -> Self {
        let kv = KvLedger::new(model.kv_blocks(), model.limits().block_tokens);
        let elsewhere = model.prefill_side().map(|_| Box::default());
        Self {
            model,
            kv,
            slots: Vec::new(),
            vacant: Vec::new(),
            ids: BTreeMap::new(),
            running: Vec::new(),
            waiting: VecDeque::new(),
            elsewhere,
            step: None,
            scheduled: Vec::new(),
            parts: Vec::new(),
            preempted: Vec::new(),
            preemptions_total: 0,
            prompt_tokens_total: 0,
            generation_tokens_total: 0,
            pending_prefill_tokens: 0,
            pending_decode_tokens: 0,
        }
    }

    /// The step model it runs by.
    #[must_use]
    pub fn model(&self) -> &StepModel {
        &self.model
    }

    /// Puts a request at the end of the waiting queue; it is looked at when the next step is formed.
    ///
    /// # Errors
    /// When the request is empty, known already, or can never fit; see [`SubmitError`]. The engine is unchanged then.
    pub fn submit(&mut self, request: EngineRequest) -> Result<(), SubmitError> {
        let EngineRequest {
            id,
            prompt_tokens,
            output_tokens,
            cached_tokens,
        } = request;
        if prompt_tokens == 0 || output_tokens == 0 {
            return Err(SubmitError::Empty {
                id,
                prompt_tokens,
                output_tokens,
            });
        }
        if self.ids.contains_key(&id) {
            return Err(SubmitError::Duplicate { id });
        }
        let tokens = u64::from(prompt_tokens) + u64::from(output_tokens);
        let context_tokens = self.model.context_tokens();
        if tokens > u64::from(context_tokens) {
            return Err(SubmitError::TooLongForContext {
                id,
                tokens,
                context_tokens,
            });
        }
        // The last token's keys and values are never stored.
        let capacity = self.model.kv_capacity_tokens();
        if self.model.fixed_seconds().is_none() && tokens - 1 > capacity {
            return Err(SubmitError::TooLongForKv {
                id,
                tokens: tokens - 1,
                capacity,
            });
        }
        let sequence = Sequence {
            request: EngineRequest {
                cached_tokens: cached_tokens.min(prompt_tokens - 1),
                ..request
            },
            computed: cached_tokens.min(prompt_tokens - 1),
            generated: 0,
            blocks: 0,
            before: (0, Freed::default()),
            running: false,
            finished: false,
            remaining_seconds: self.model.fixed_seconds().unwrap_or(0.0),
        };
        self.pending_prefill_tokens += sequence.pending_prefill();
        self.pending_decode_tokens += sequence.pending_decode();
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.slots[slot] = sequence;
                slot
            }
            None => {
                self.slots.push(sequence);
                self.slots.len() - 1
            }
        };
        self.ids.insert(id, slot);
        match &mut self.elsewhere {
            Some(elsewhere) => elsewhere.push(slot),
            None => self.waiting.push_back(slot),
        }
        Ok(())
    }

    /// Takes a request out and frees its blocks; false if it is not in the engine. Within a step it takes effect at once: no
    /// event follows for that id, though [`Engine::step_parts`] still shows the work that was begun for it.
    pub fn abort(&mut self, id: RequestId) -> bool {
        let Some(slot) = self.ids.remove(&id) else {
            return false;
        };
        if self.elsewhere.as_mut().is_some_and(|elsewhere| elsewhere.remove(slot)) {
            // It was not here yet.
        } else if self.slots[slot].running {
            self.running.retain(|&other| other != slot);
        } else {
            self.waiting.retain(|&other| other != slot);
        }
        for scheduled in &mut self.scheduled {
            if scheduled.slot == Some(slot) {
                scheduled.slot = None;
            }
        }
        self.preempted.retain(|&other| other != id);
        self.vacate(slot);
        true
    }

    /// Forms the next step, or returns the one that has begun. `None`: there is nothing to do.
    pub fn begin_step(&mut self) -> Option<Step> {
        self.begin(SLICE_SECONDS)
    }

    /// As [`Engine::begin_step`], but an opaque box steps to its next completion, however far that is. For a driver that
    /// owns its time: where a slot is free, it has to [cut](Engine::cut_step) the step when a request comes in.
    pub fn begin_long_step(&mut self) -> Option<Step> {
        self.begin(f64::INFINITY)
    }

    /// Shortens an opaque box's step to the `seconds` of it that have passed, so that it can be ended now, and returns it.
    /// `None`, and nothing happens, where no step has begun or the model is physical: a batch cannot be cut.
    pub fn cut_step(&mut self, seconds: f64) -> Option<Step> {
        let step = self.step.filter(|_| self.model.fixed_seconds().is_some())?;
        let passed_s = seconds.clamp(0.0, step.cost.seconds);
        // All who had a slot may have been aborted since.
        self.step = self.schedule_slice(passed_s).or(Some(step));
        self.step
    }

    fn begin(&mut self, longest_s: f64) -> Option<Step> {
        if self.step.is_none() {
            self.scheduled.clear();
            self.parts.clear();
            self.preempted.clear();
            self.step = match self.model.fixed_seconds() {
                Some(_) => self.form_slice(longest_s),
                None if self.elsewhere.is_some() => self.form_with_prompts_elsewhere(),
                None => self.form_batch(),
            };
        }
        self.step
    }

    /// Ends the step that has begun and appends what happened, in order of admission, preemptions first. Without a step it
    /// does nothing.
    pub fn end_step(&mut self, events: &mut Vec<EngineEvent>) {
        let Some(step) = self.step.take() else { return };
        events.extend(self.preempted.drain(..).map(|id| EngineEvent::Preempted { id }));
        let any_finished = match self.model.fixed_seconds() {
            Some(_) => self.end_slice(step.cost.seconds, events),
            None => self.end_batch(events),
        };
        if any_finished {
            self.remove_finished();
        }
        self.take_in(events);
    }

    /// Each request's part of the step that was last begun, in order of admission.
    #[must_use]
    pub fn step_parts(&self) -> &[StepPart] {
        &self.parts
    }

    /// The state in numbers.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let kv_usage = f64::from(self.kv.used()) / f64::from(self.kv.total());
        EngineStats {
            running: count(self.running.len()),
            waiting: count(self.waiting.len() + self.elsewhere()),
            kv_used_blocks: self.kv.used(),
            kv_blocks: self.kv.total(),
            kv_usage,
            preemptions_total: self.preemptions_total,
            prompt_tokens_total: self.prompt_tokens_total,
            generation_tokens_total: self.generation_tokens_total,
            pending_prefill_tokens: self.pending_prefill_tokens,
            pending_decode_tokens: self.pending_decode_tokens,
        }
    }

    /// Whether nothing runs and nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.elsewhere() == 0
    }

    /// Requests whose prompts are elsewhere.
    fn elsewhere(&self) -> usize {
        self.elsewhere.as_ref().map_or(0, |elsewhere| elsewhere.len())
    }

    /// Gives back what a sequence holds and frees its slot. The caller has taken it off `running` or `waiting`.
    fn vacate(&mut self, slot: Slot) {
        let sequence = &mut self.slots[slot];
        let _freed = self.kv.give_back(sequence.blocks);
        sequence.blocks = 0;
        self.pending_prefill_tokens -= sequence.pending_prefill();
        self.pending_decode_tokens -= sequence.pending_decode();
        self.vacant.push(slot);
    }

    fn remove_finished(&mut self) {
        let mut running = std::mem::take(&mut self.running);
        running.retain(|&slot| {
            let finished = self.slots[slot].finished;
            if finished {
                self.ids.remove(&self.slots[slot].request.id);
                self.vacate(slot);
            }
            !finished
        });
        self.running = running;
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
