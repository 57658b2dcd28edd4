//! Latency and marginal energy of one request on one instance: physics times a learned factor.

use equipoise_engine::{StepModel, StepWork, Waking};
use equipoise_types::{Joules, Timestamp, Watts};
use serde::{Deserialize, Serialize};

use crate::alone::{AloneMemo, Step};
use crate::moment::Moment;
use crate::slope::LoadSlope;
use crate::split::Split;
use crate::{Bounds, Calibration, Estimate, InstanceLoad, LengthEstimate, QualityEstimate, Regime, Residual};

/// An engine of which nothing is declared: a small model on a middling GPU. Every opaque instance starts from the same
/// figures, so they separate nobody; what is observed does.
mod nominal {
    /// Time to first token of an empty prompt, seconds.
    pub(super) const TTFT_S: f64 = 0.05;
    /// Seconds per prompt token (10,000 tokens/s).
    pub(super) const PREFILL_S_PER_TOKEN: f64 = 1e-4;
    /// Seconds per answer token, alone.
    pub(super) const TPOT_S: f64 = 0.02;
    /// Joules per answer token: Llama-3.1-8B on one H100 at batch 64, ML.ENERGY v3 (0.12 J/token).
    pub(super) const JOULES_PER_OUTPUT_TOKEN: f64 = 0.12;
    /// Joules per prompt token: 700 W at the prefill rate of an H100 on an 8B model (about 25,000 tokens/s).
    pub(super) const JOULES_PER_PROMPT_TOKEN: f64 = 0.03;
    /// vLLM's default `max_num_seqs`.
    pub(super) const SLOTS: u32 = 256;
}

/// How many later ones whoever joins a line holds up, each by as much as its own wait is longer: in a queue at 90 % of
/// what its server can do, a place in it is paid for 1 / (1 - 0.9) times before the queue is empty again. Without it a line
/// grows until waiting costs everybody in it what the best place is worth to the last of them.
const LATER_IN_LINE: f64 = 10.0;

/// Price of tokens, US dollars each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PriceOfTokens {
    /// Of one prompt token.
    pub input_usd: f64,
    /// Of one answer token.
    pub output_usd: f64,
}

/// A prediction with what is needed to learn from its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// What was said.
    pub estimate: Estimate,
    /// Where its quality is from.
    #[serde(default)]
    pub quality: QualityEstimate,
    /// Time to first token before the learned factor, without the wait for a slot, seconds.
    pub base_ttft_s: f64,
    /// Time per token before the learned factor, seconds.
    pub base_tpot_s: f64,
    /// Answer length that was forecast from the prompt, before the model's learned factor, tokens; `None` without one.
    pub forecast_output_tokens: Option<f64>,
    /// Requests that were in flight there already.
    pub in_flight: u32,
    /// What these are taken to stretch an opaque instance's times by, part of the base; 1 where physics is known.
    pub load_factor: f64,
    /// How long the answer may be: most of what is not known of the time to its last token.
    #[serde(default)]
    pub length: LengthEstimate,
    /// What the instance was busy with.
    #[serde(default)]
    pub regime: Regime,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Dispatch to first token, seconds; `None` where the answer came in one piece.
    pub ttft_s: Option<f64>,
    /// Dispatch to last token, seconds.
    pub e2e_s: f64,
    /// Answer tokens, if known.
    pub output_tokens: Option<u32>,
}

/// What changes in an instance because of one more request.
#[derive(Clone, Copy, Debug, Default)]
struct Marginal {
    /// Draw above idle, joules.
    joules: f64,
    /// Idle draw of the time by which the engine is busy for longer, joules.
    idle_joules: f64,
    /// By how much the others finish later, seconds, summed.
    others_s: f64,
}

/// How many requests an opaque engine was seen to serve at most.
#[derive(Clone, Copy, Debug, Default)]
struct SeenSlots {
    /// The most it ran while others kept waiting.
    known: Option<u32>,
    most_running: u32,
    waiting_samples: u32,
}

impl SeenSlots {
    /// A request that has just arrived waits for the step to end: one sample with somebody waiting proves nothing, so
    /// many in a row do.
    const PROOF: u32 = 3;

    fn observe(&mut self, running: u32, waiting: u32) {
        self.most_running = self.most_running.max(running);
        self.waiting_samples = if waiting > 0 && running > 0 {
            self.waiting_samples + 1
        } else {
            0
        };
        if self.waiting_samples >= Self::PROOF {
            self.known = Some(self.most_running);
        } else if let Some(known) = &mut self.known {
            *known = self.most_running.max(*known);
        }
    }
}

fn step_seconds(physics: Option<&StepModel>, seqs: u32, kv_tokens: u64) -> f64 {
    physics.map_or(nominal::TPOT_S, |physics| physics.decode_step_seconds(seqs, kv_tokens))
}

/// Share of an instance's slots or KV memory beyond which it is hard to say when the next one gets its turn.
const CROWDED: f64 = 0.85;

/// Predicts latency and energy of one instance, and learns from what it observes. Bounded memory.
#[derive(Clone, Debug)]
pub struct InstanceEstimator {
    physics: Option<StepModel>,
    alone_tpot_s: f64,
    declared_slots: Option<u32>,
    seen_slots: SeenSlots,
    slope: LoadSlope,
    ttft: Residual,
    tpot: Residual,
    energy: Residual,
    split: Split,
    calibration: Calibration,
}

impl InstanceEstimator {
    /// `physics`: the engine model, where model and GPU are known. `declared_slots`: the engine's `max_num_seqs`.
    #[must_use]
    pub fn new(physics: Option<StepModel>, declared_slots: Option<u32>) -> Self {
        Self {
            alone_tpot_s: step_seconds(physics.as_ref(), 1, 0),
            physics,
            declared_slots,
            seen_slots: SeenSlots::default(),
            slope: LoadSlope::default(),
            ttft: Residual::default(),
            tpot: Residual::default(),
            energy: Residual::default(),
            split: Split::default(),
            calibration: Calibration::default(),
        }
    }

    /// Takes a changed declaration over and keeps what was learned.
    pub fn redeclare(&mut self, physics: Option<StepModel>, declared_slots: Option<u32>) {
        self.alone_tpot_s = step_seconds(physics.as_ref(), 1, 0);
        self.physics = physics;
        self.declared_slots = declared_slots;
    }

    /// Requests the engine serves at the same time: declared, else of the engine model, else seen, else vLLM's default.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.declared_slots
            .or_else(|| self.physics.as_ref().map(|physics| physics.limits().max_num_seqs))
            .or(self.seen_slots.known)
            .unwrap_or(nominal::SLOTS)
            .max(1)
    }

    /// Seconds per answer token of a request that has the engine to itself, before anything was learned: a constant of
    /// its tier.
    #[must_use]
    pub fn alone_tpot_s(&self) -> f64 {
        self.alone_tpot_s
    }

    /// KV tokens the engine can hold, where known.
    #[must_use]
    pub fn kv_capacity_tokens(&self) -> Option<u64> {
        self.physics.as_ref().map(StepModel::kv_capacity_tokens)
    }

    /// Predicts a request of `prompt_tokens` that are not cached, beside `load`.
    #[must_use]
    pub fn predict(
        &self,
        now: Timestamp,
        prompt_tokens: u32,
        length: LengthEstimate,
        quality: QualityEstimate,
        price: PriceOfTokens,
        load: &InstanceLoad,
    ) -> Prediction {
        let mut memo = AloneMemo::default();
        let moment = self.moment(now, load);
        self.predict_with(&mut memo, &moment, prompt_tokens, length, quality, price, load)
    }

    /// What predictions at `now` share, whatever is asked; quickest where it is asked beside the same `load`.
    #[must_use]
    pub fn moment(&self, now: Timestamp, load: &InstanceLoad) -> Moment {
        let batch = load.in_flight.min(self.slots() - 1);
        Moment::new(self.factors(now), self.physics.as_ref(), batch, load.kv_tokens)
    }

    /// The same, with what `memo` remembers of the same request on other instances and `moment` of this one: its own, and
    /// not older than the last thing that it learned.
    #[expect(clippy::too_many_arguments, reason = "a prediction depends on as much")]
    #[must_use]
    pub fn predict_with(
        &self,
        memo: &mut AloneMemo,
        moment: &Moment,
        prompt_tokens: u32,
        length: LengthEstimate,
        quality: QualityEstimate,
        price: PriceOfTokens,
        load: &InstanceLoad,
    ) -> Prediction {
        let output = length.mean.max(1.0);
        let context = f64::from(prompt_tokens) + output / 2.0;
        let batch = load.in_flight.min(self.slots() - 1);
        // Who waits for a slot slows nobody down: that wait is counted on its own.
        let load_factor = self.load_factor(batch);
        let joined = self.joined(batch, load.kv_tokens + context as u64);
        let base_tpot_s = joined.seconds * load_factor;
        let prefill_s = self.prefill_seconds(prompt_tokens, load) * load_factor;
        let [ttft_factor, tpot_factor, energy_factor] = moment.factors();
        let hold_s = self.hold_seconds(ttft_factor, base_tpot_s * tpot_factor, load);
        let line_s = self.queue_seconds(prompt_tokens, output, hold_s, load);
        // Waking is a wait like that for a slot: it says nothing of the engine's speed.
        let waking = self.waking(load);
        let queue_s = line_s + waking.map_or(0.0, |waking| waking.seconds);
        // A request that arrives in the middle of a step waits for its end.
        let step_wait_s = if load.in_flight > 0 { 0.5 * base_tpot_s } else { 0.0 };
        let base_ttft_s = prefill_s + step_wait_s;
        // Who waits longer than predicted is evidence by itself: the next one will not be answered sooner.
        let ttft_s = base_ttft_s * ttft_factor + queue_s + load.overdue_s;
        let tpot_s = base_tpot_s * tpot_factor;
        let e2e_s = ttft_s + (output - 1.0) * tpot_s;
        let marginal = self.marginal(memo, moment, prompt_tokens, output, context, joined, load);
        Prediction {
            estimate: Estimate {
                quality: quality.mean,
                quality_sd: quality.sd,
                output_tokens: output,
                queue_s,
                ttft_s,
                tpot_s,
                e2e_s,
                energy: Joules(marginal.joules * energy_factor + waking.map_or(0.0, |waking| waking.energy.0)),
                idle_energy: Joules(marginal.idle_joules + waking.map_or(0.0, |waking| waking.awake_energy.0)),
                others_s: marginal.others_s * tpot_factor + LATER_IN_LINE * line_s,
                cost_usd: f64::from(prompt_tokens) * price.input_usd + output * price.output_usd,
                bounds: Bounds {
                    confidence: 0.0,
                    ttft_s,
                    e2e_s,
                    energy: Joules::default(),
                },
            },
            quality,
            base_ttft_s,
            base_tpot_s,
            forecast_output_tokens: None,
            in_flight: batch,
            load_factor,
            length,
            regime: self.regime(load, line_s, base_ttft_s),
        }
    }

    /// Whether it ever goes to sleep.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        self.physics.as_ref().is_some_and(|physics| physics.sleep().is_some())
    }

    /// What a request pays that finds the engine asleep.
    fn waking(&self, load: &InstanceLoad) -> Option<Waking> {
        let physics = self.physics.as_ref().filter(|_| load.in_flight == 0)?;
        physics.waking(load.idle_s)
    }

    fn regime(&self, load: &InstanceLoad, queue_s: f64, base_ttft_s: f64) -> Regime {
        let full = |capacity: u64| {
            let wanted = load.kv_tokens + load.pending_prefill_tokens + load.pending_decode_tokens / 2;
            wanted as f64 > CROWDED * capacity as f64
        };
        let crowded = f64::from(load.in_flight) > CROWDED * f64::from(self.slots());
        if load.in_flight == 0 {
            Regime::Idle
        } else if queue_s > 0.0
            || crowded
            || load.overdue_s > base_ttft_s
            || self.kv_capacity_tokens().is_some_and(full)
        {
            Regime::Strained
        } else if load.pending_prefill_tokens > 0 {
            Regime::Prefilling
        } else {
            Regime::Busy
        }
    }

    /// What the times of a prediction stay below with `confidence`; an instance with few observations borrows its tier's.
    #[must_use]
    pub fn bounds(&self, tier: &Calibration, now: Timestamp, prediction: &Prediction, confidence: f64) -> Bounds {
        self.calibration.bounds(tier, now, prediction, confidence)
    }

    /// A request was sent there.
    pub fn sent(&mut self, prediction: &Prediction) {
        self.calibration.sent(prediction);
    }

    /// A request that was sent there will not be answered any more; `first_token`: its first one was seen.
    pub fn withdrawn(&mut self, prediction: &Prediction, first_token: bool) {
        self.calibration.withdrawn(prediction, first_token);
    }

    /// Learns from a first token that came `ttft_s` after dispatch, without waiting for the whole answer.
    pub fn observe_first_token(&mut self, now: Timestamp, prediction: &Prediction, ttft_s: f64) {
        self.calibration.observe_first_token(now, prediction, ttft_s);
    }

    /// The step that a request joins beside `batch` others, itself included.
    fn joined(&self, batch: u32, kv_tokens: u64) -> Step {
        match &self.physics {
            // What an opaque box takes is in its prompt's time; alone, only the time is asked for.
            Some(physics) if batch > 0 && physics.fixed_seconds().is_none() => Step::of(physics, batch + 1, kv_tokens),
            physics => Step {
                seconds: step_seconds(physics.as_ref(), batch + 1, kv_tokens),
                joules: 0.0,
            },
        }
    }

    /// What others in flight stretch an opaque instance's times by. Physics knows better where there is any.
    fn load_factor(&self, in_flight: u32) -> f64 {
        if self.physics.is_some() {
            1.0
        } else {
            self.slope.factor(in_flight)
        }
    }

    /// Computing what is ahead and the own prompt. What is ahead in an opaque instance is in its load factor.
    fn prefill_seconds(&self, prompt_tokens: u32, load: &InstanceLoad) -> f64 {
        match &self.physics {
            Some(physics) => {
                let ahead = u32::try_from(load.pending_prefill_tokens).unwrap_or(u32::MAX);
                physics.prompt_seconds(ahead, prompt_tokens.max(1), load.decoding(), load.kv_tokens)
            }
            None => nominal::TTFT_S + f64::from(prompt_tokens) * nominal::PREFILL_S_PER_TOKEN,
        }
    }

    /// How long a request keeps its slot. The prompts ahead are in the prefill already where the physics is known; an
    /// opaque engine may take its time for other things than tokens, and what is learned of that is in the first factor.
    fn hold_seconds(&self, ttft_factor: f64, tpot_s: f64, load: &InstanceLoad) -> f64 {
        let fixed_s = match &self.physics {
            Some(_) => 0.0,
            None => nominal::TTFT_S * ttft_factor,
        };
        fixed_s + load.mean_remaining_tokens().max(1.0) * tpot_s
    }

    /// Wait for a slot: so many must finish first, and they finish at the rate slots / hold.
    fn queue_seconds(&self, prompt_tokens: u32, output: f64, hold_s: f64, load: &InstanceLoad) -> f64 {
        let mut slots = f64::from(self.slots());
        if let Some(capacity) = self.kv_capacity_tokens() {
            let mine = f64::from(prompt_tokens) + output;
            let waiting_kv = load.pending_prefill_tokens as f64 + load.pending_decode_tokens as f64 / 2.0;
            let mean = (load.kv_tokens as f64 + waiting_kv + mine) / (f64::from(load.in_flight) + 1.0);
            slots = slots.min((capacity as f64 / mean.max(1.0)).max(1.0));
        }
        let excess = f64::from(load.in_flight) + 1.0 - slots;
        if excess <= 0.0 {
            return 0.0;
        }
        excess * hold_s / slots
    }

    /// What changes in the instance because of this request: its prompt's computation, its share of each step it joins, and
    /// whole steps that run for it alone.
    #[expect(clippy::too_many_arguments, reason = "what the prediction has worked out already")]
    fn marginal(
        &self,
        memo: &mut AloneMemo,
        moment: &Moment,
        prompt_tokens: u32,
        output: f64,
        context: f64,
        with_me: Step,
        load: &InstanceLoad,
    ) -> Marginal {
        let Some(physics) = &self.physics else {
            return Marginal {
                joules: f64::from(prompt_tokens) * nominal::JOULES_PER_PROMPT_TOKEN
                    + output * nominal::JOULES_PER_OUTPUT_TOKEN,
                ..Marginal::default()
            };
        };
        let idle = physics.idle_watts().0;
        let batch = load.in_flight.min(self.slots() - 1);
        let alone = memo.of(physics, prompt_tokens, context as u64);
        let joined = if batch == 0 {
            alone.step
        } else {
            let beside = moment.beside(physics, batch, load.kv_tokens);
            Step {
                seconds: (with_me.seconds - beside.seconds).max(0.0),
                joules: (with_me.joules - beside.joules).max(0.0),
            }
        };
        // The others keep the engine stepping for about twice their mean remaining length; steps after that are mine.
        let (shared_steps, together) = if batch == 0 {
            (0.0, 0.0)
        } else {
            let remaining = load.mean_remaining_tokens();
            // Each of the others is held up for as long as both are there.
            (output.min(2.0 * remaining), f64::from(batch) * output.min(remaining))
        };
        let own_steps = output - shared_steps;
        // Whoever wakes an engine is seldom alone for long. Where the model's requests are in batches of B elsewhere, half of
        // that is what this engine will have; then everybody's own account says the same as the whole fleet's: one more engine
        // is worth its steps' fixed part where its share in a batch of B / 2 is less than what the others gain.
        let company = (0.5 * load.company).max(1.0);
        let own = |alone: f64, pair: f64| pair - alone + (2.0 * alone - pair) / company;
        let own_seconds = own(alone.step.seconds, alone.pair.seconds);
        let own_joules = own(alone.step.joules, alone.pair.joules);
        Marginal {
            joules: alone.prefill_joules + shared_steps * joined.joules + own_steps * own_joules,
            idle_joules: idle * (alone.prefill_s + shared_steps * joined.seconds + own_steps * own_seconds),
            others_s: f64::from(batch) * alone.prefill_s + together * joined.seconds,
        }
    }

    /// Learns from an answered request how far off it was predicted.
    pub fn observe_error(&mut self, now: Timestamp, prediction: &Prediction, observation: &Observation) {
        self.calibration.observe_answer(now, prediction, observation);
    }

    /// Learns from an answered request how fast the instance is.
    pub fn observe(&mut self, now: Timestamp, prediction: &Prediction, observation: &Observation) {
        let output = observation
            .output_tokens
            .map_or(prediction.estimate.output_tokens, f64::from)
            .max(1.0);
        let further = output - 1.0;
        // The wait for a slot was predicted on its own: what it explains is not the engine's speed. Where it was
        // overrated, a tenth of the time remains to learn from.
        let own_s = |seconds: f64| (seconds - prediction.estimate.queue_s).max(0.1 * seconds);
        self.observe_slope(now, own_s(observation.e2e_s), further, prediction);
        if let Some(ttft_s) = observation.ttft_s {
            self.ttft.observe(now, own_s(ttft_s), prediction.base_ttft_s);
            if output > 1.5 {
                let tpot_s = (observation.e2e_s - ttft_s) / further;
                self.tpot.observe(now, tpot_s, prediction.base_tpot_s);
            }
        } else {
            let further_s = further * prediction.base_tpot_s;
            let (first, rest) = self
                .split
                .observe(own_s(observation.e2e_s), prediction.base_ttft_s, further_s);
            self.ttft.observe(now, first, prediction.base_ttft_s);
            self.tpot.observe(now, rest, further_s);
        }
    }

    /// Both parts in the proportion that was learned of them, so that where length does not matter a long answer does
    /// not pass for a quick one; their level is the same for all and does not matter to a slope.
    fn observe_slope(&mut self, now: Timestamp, own_s: f64, further: f64, prediction: &Prediction) {
        let (first, rest) = (self.ttft.factor(now), self.tpot.factor(now));
        let whole_s = first * prediction.base_ttft_s + rest * further * prediction.base_tpot_s;
        let expected_s = whole_s / first.max(rest) / prediction.load_factor;
        self.slope.observe(prediction.in_flight, own_s / expected_s);
    }

    /// Learns from a telemetry sample: an engine that lets requests wait is full, and its draw corrects the model's.
    pub fn observe_sample(&mut self, now: Timestamp, running: u32, waiting: u32, kv_tokens: u64, power: Option<Watts>) {
        self.seen_slots.observe(running, waiting);
        if let (Some(physics), Some(power)) = (&self.physics, power) {
            let idle = physics.idle_watts().0;
            let work = StepWork {
                decode_seqs: running,
                kv_tokens,
                ..StepWork::default()
            };
            if running > 0 {
                let (above, base) = (power.0 - idle, physics.cost(&work).watts.0 - idle);
                let said = Watts(base * self.energy.factor(now));
                self.calibration.observe_draw(now, Watts(above), said);
                self.energy.observe(now, above, base);
            }
        }
    }

    /// The learned factors on time to first token, time per token and energy; 1 where nothing was learned.
    #[must_use]
    pub fn factors(&self, now: Timestamp) -> [f64; 3] {
        [self.ttft.factor(now), self.tpot.factor(now), self.energy.factor(now)]
    }
}

#[cfg(test)]
mod tests;
