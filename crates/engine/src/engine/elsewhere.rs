//! Prompts that are computed on other GPUs, and their keys and values on the way.
//!
//! Time there is the engine's own: it passes with the engine's steps, which go on for as long as any prompt is elsewhere. A first
//! token is told at the end of the step in which it arrives, where the answer goes on from the next step.

use super::{Engine, Slot};
use crate::event::{EngineEvent, Step, StepPart};
use crate::prefill_side::PrefillSide;
use crate::step::{StepCost, StepWork};
use equipoise_types::{Joules, Watts};
use std::collections::VecDeque;

/// Where a prompt could be begun at once, an engine without answers looks for new ones this often, seconds.
const LOOK_SECONDS: f64 = 5e-3;
/// What rounding may leave of a job, seconds.
const ROUNDING_SECONDS: f64 = 1e-12;

/// The prompts that are elsewhere, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere {
    queue: VecDeque<Slot>,
    computing: Vec<Job>,
    sending: Vec<Job>,
    /// Those whose keys and values are there by the end of the step.
    arrived: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    slot: Slot,
    remaining_s: f64,
    /// Of a computation: its whole time, what it draws, and its tokens in all and so far.
    whole_s: f64,
    watts: f64,
    tokens: u32,
    told_tokens: u32,
    transfer_s: f64,
}

impl Elsewhere {
    pub(super) fn push(&mut self, slot: Slot) {
        self.queue.push_back(slot);
    }

    /// True where the slot was here.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        let before = self.len();
        self.queue.retain(|&other| other != slot);
        self.computing.retain(|job| job.slot != slot);
        self.sending.retain(|job| job.slot != slot);
        self.arrived.retain(|&other| other != slot);
        self.len() < before
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.computing.len() + self.sending.len() + self.arrived.len()
    }

    /// Until something changes.
    fn next_change_s(&self) -> Option<f64> {
        let jobs = self.computing.iter().chain(&self.sending);
        jobs.map(|job| job.remaining_s).reduce(f64::min)
    }
}

impl Engine {
    /// A step of the answers, during which prompts go on elsewhere; where there are no answers, the wait for a prompt.
    pub(super) fn form_with_prompts_elsewhere(&mut self) -> Option<Step> {
        let answers = self.form_batch();
        let model = self.model.clone();
        let (Some(side), Some(mut elsewhere)) = (model.prefill_side(), self.elsewhere.take()) else {
            return answers;
        };
        self.begin_prompts(side, &mut elsewhere);
        let step = answers.or_else(|| self.wait(side, &elsewhere));
        let step = step.map(|step| {
            let seconds = step.cost.seconds;
            let joules = step.cost.joules + self.pass(side, &mut elsewhere, seconds);
            Step {
                cost: StepCost {
                    seconds,
                    watts: Watts(joules.0 / seconds),
                    joules,
                },
                ..step
            }
        });
        self.elsewhere = Some(elsewhere);
        step
    }

    fn wait(&mut self, side: &PrefillSide, elsewhere: &Elsewhere) -> Option<Step> {
        self.scheduled.clear();
        self.parts.clear();
        let change_s = elsewhere.next_change_s()?;
        let has_room = elsewhere.computing.len() < side.count as usize;
        let seconds = if has_room { change_s.min(LOOK_SECONDS) } else { change_s };
        let watts = self.model.rest().loaded;
        Some(Step {
            work: StepWork::default(),
            cost: StepCost {
                seconds,
                watts,
                joules: watts * seconds,
            },
        })
    }

    fn begin_prompts(&self, side: &PrefillSide, elsewhere: &mut Elsewhere) {
        while elsewhere.computing.len() < side.count as usize
            && let Some(slot) = elsewhere.queue.pop_front()
        {
            let request = self.slots[slot].request;
            let cached = request.cached_tokens;
            let tokens = request.prompt_tokens - cached;
            let whole_s = side.engine.prefill_seconds(tokens, cached, 0, 0);
            // As much as its first chunk draws.
            let chunk = tokens.min(side.engine.limits().max_num_batched_tokens);
            let cost = side.engine.cost(&StepWork {
                prefill_tokens: chunk,
                prefill_seqs: 1,
                prefill_attention: f64::from(chunk) * (f64::from(cached) + 0.5 * f64::from(chunk)),
                prefill_kv_tokens: u64::from(cached),
                ..StepWork::default()
            });
            elsewhere.computing.push(Job {
                slot,
                remaining_s: whole_s,
                whole_s,
                watts: cost.watts.0,
                tokens,
                told_tokens: 0,
                transfer_s: side.transfer_seconds(request.prompt_tokens),
            });
        }
    }

    /// Lets time pass for the prompts and tells what their GPUs draw meanwhile.
    fn pass(&mut self, side: &PrefillSide, elsewhere: &mut Elsewhere, seconds: f64) -> Joules {
        let idle_watts = side.engine.idle_watts().0;
        let mut joules = 0.0;
        let mut left_s = seconds;
        loop {
            let passed_s = elsewhere
                .next_change_s()
                .map_or(left_s, |change_s| change_s.min(left_s));
            let idle = f64::from(side.count) - elsewhere.computing.len() as f64;
            let busy_watts: f64 = elsewhere.computing.iter().map(|job| job.watts).sum();
            joules += passed_s * (idle * idle_watts + busy_watts);
            for job in elsewhere.computing.iter_mut().chain(&mut elsewhere.sending) {
                job.remaining_s -= passed_s;
            }
            left_s -= passed_s;
            let sent = |job: &mut Job| job.remaining_s <= ROUNDING_SECONDS;
            elsewhere
                .arrived
                .extend(elsewhere.sending.extract_if(.., sent).map(|job| job.slot));
            for job in elsewhere.computing.extract_if(.., sent) {
                self.parts.push(self.part(&job, job.tokens));
                elsewhere.sending.push(Job {
                    remaining_s: job.transfer_s,
                    ..job
                });
            }
            self.begin_prompts(side, elsewhere);
            if left_s <= ROUNDING_SECONDS {
                break;
            }
        }
        for job in &mut elsewhere.computing {
            let done = f64::from(job.tokens) * (1.0 - job.remaining_s / job.whole_s);
            let done = (done as u32).max(job.told_tokens);
            self.parts.push(self.part(job, done));
            job.told_tokens = done;
        }
        Joules(joules)
    }

    /// What a step did for a prompt of which `done` tokens are computed now.
    fn part(&self, job: &Job, done: u32) -> StepPart {
        StepPart {
            id: self.slots[job.slot].request.id,
            prefill_tokens: done - job.told_tokens,
            decode_tokens: 0,
            kv_tokens: 0,
        }
    }

    /// Whoever has arrived has a first token, and waits for a place among the answers.
    pub(super) fn take_in(&mut self, events: &mut Vec<EngineEvent>) {
        let Some(mut elsewhere) = self.elsewhere.take() else {
            return;
        };
        for slot in elsewhere.arrived.drain(..) {
            let sequence = &mut self.slots[slot];
            let id = sequence.request.id;
            self.pending_prefill_tokens -= sequence.pending_prefill();
            self.pending_decode_tokens -= 1;
            sequence.computed = sequence.request.prompt_tokens;
            sequence.generated = 1;
            self.prompt_tokens_total += u64::from(sequence.request.prompt_tokens);
            self.generation_tokens_total += 1;
            events.push(EngineEvent::FirstToken { id });
            if sequence.request.output_tokens == 1 {
                events.push(EngineEvent::Finished { id });
                self.ids.remove(&id);
                self.vacate(slot);
            } else {
                self.waiting.push_back(slot);
            }
        }
        self.elsewhere = Some(elsewhere);
    }
}

#[cfg(test)]
mod tests {
    use crate::{DeclaredEngine, Engine, EngineEvent, EngineLimits, EngineRequest, Serving, StepModel};
    use equipoise_types::RequestId;

    fn model(count: u32, limits: EngineLimits) -> StepModel {
        let text = format!("prefill = {{ gpu = \"H100\", count = {count}, gbytes_per_s = 25.0 }}");
        let serving = Serving::from_text(&text).expect("it can be read");
        let declared = DeclaredEngine {
            model: "Llama-3.1-8B",
            gpu: "A100-80G",
            tensor_parallel: 1,
            limits,
            measured: None,
            serving: serving.as_ref(),
        };
        declared.step_model().expect("fits")
    }

    fn request(id: u64, prompt_tokens: u32, output_tokens: u32) -> EngineRequest {
        EngineRequest {
            id: RequestId(id),
            prompt_tokens,
            output_tokens,
            cached_tokens: 0,
        }
    }

    /// Times of first and last token by id, and joules.
    fn run(engine: &mut Engine, requests: &[EngineRequest]) -> (Vec<(f64, f64)>, f64) {
        for request in requests {
            engine.submit(*request).expect("fits");
        }
        let mut times = vec![(f64::NAN, f64::NAN); requests.len()];
        let (mut now_s, mut joules) = (0.0, 0.0);
        let mut events = Vec::new();
        while let Some(step) = engine.begin_step() {
            now_s += step.cost.seconds;
            joules += step.cost.joules.0;
            engine.end_step(&mut events);
            for event in events.drain(..) {
                let (first_s, last_s) = &mut times[event.id().0 as usize];
                match event {
                    EngineEvent::FirstToken { .. } => *first_s = now_s,
                    EngineEvent::Finished { .. } => *last_s = now_s,
                    EngineEvent::Token { .. } | EngineEvent::Preempted { .. } => {}
                }
            }
        }
        assert!(engine.is_idle());
        let stats = engine.stats();
        assert_eq!(
            (
                stats.pending_prefill_tokens,
                stats.pending_decode_tokens,
                stats.kv_used_blocks
            ),
            (0, 0, 0)
        );
        (times, joules)
    }

    #[test]
    fn the_first_token_takes_the_prompt_and_the_transfer_and_the_rest_the_answers_side() {
        let model = model(1, EngineLimits::default());
        let side = model.prefill_side().expect("declared").clone();
        let (times, joules) = run(&mut Engine::new(model.clone()), &[request(0, 3000, 11)]);
        let first_s = side.engine.prefill_seconds(3000, 0, 0, 0) + side.transfer_seconds(3000);
        assert!((times[0].0 - first_s).abs() < 1e-9, "{} and {first_s}", times[0].0);
        let rest_s: f64 = (0..10).map(|n| model.decode_step_seconds(1, 3001 + n)).sum();
        assert!((times[0].1 - first_s - rest_s).abs() < 1e-9);
        // No less than both sides draw idle.
        assert!(joules > model.idle_watts().0 * times[0].1);
    }

    #[test]
    fn prompts_do_not_hold_up_answers_and_two_engines_take_two_at_a_time() {
        let limits = EngineLimits::default();
        let requests: Vec<_> = (0..4).map(|id| request(id, 4000, 200)).collect();
        let [(one, _), (two, _)] = [1, 2].map(|count| run(&mut Engine::new(model(count, limits)), &requests));
        let built = model(1, limits);
        let side = built.prefill_side().expect("declared");
        let (prompt_s, sent_s) = (side.engine.prefill_seconds(4000, 0, 0, 0), side.transfer_seconds(4000));
        let step_s = built.decode_step_seconds(4, 4 * 4200);
        // The last of four waits for three, or for one; what arrives within a step is told at its end.
        for (last_s, waves) in [(one[3].0, 4.0), (two[3].0, 2.0)] {
            let expected_s = waves * prompt_s + sent_s;
            assert!(
                (expected_s - 1e-9..=expected_s + step_s).contains(&last_s),
                "{last_s} and {expected_s}"
            );
        }
        // The first one's answer goes on as if nobody else's prompt were there, but for the batch.
        let most_s = 200.0 * model(1, limits).decode_step_seconds(4, 4 * 4200);
        assert!(one[0].1 - one[0].0 <= most_s, "{:?}", one[0]);
    }

    #[test]
    fn everybody_ends_once_also_with_few_blocks_and_aborts() {
        let limits = EngineLimits {
            num_gpu_blocks: Some(120),
            max_num_seqs: 8,
            ..EngineLimits::default()
        };
        let mut engine = Engine::new(model(2, limits));
        let requests: Vec<_> = (0..30)
            .map(|id| request(id, 20 + 37 * id as u32, 1 + (id as u32 * 13) % 90))
            .collect();
        let (times, _) = run(&mut engine, &requests);
        assert!(times.iter().all(|(first_s, last_s)| first_s <= last_s), "{times:?}");
        for request in &requests {
            engine.submit(*request).expect("fits");
        }
        let mut events = Vec::new();
        for id in 0..30 {
            let _step = engine.begin_step();
            assert!(
                engine.abort(RequestId(29 - id)) || events.contains(&EngineEvent::Finished { id: RequestId(29 - id) })
            );
            engine.end_step(&mut events);
        }
        assert!(engine.is_idle(), "{:?}", engine.stats());
        assert_eq!(engine.stats().kv_used_blocks, 0);
    }
}
