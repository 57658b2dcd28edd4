//! One simulated instance: an engine, the step it is in, and a meter.

use equipoise_config::DeclaredInstance;
use equipoise_energy::{PartWork, StepTerms, attribute_step};
use equipoise_engine::{Engine, EngineEvent, Step};
use equipoise_fleet::{EngineSample, InstanceSpec};
use equipoise_trace::MOONCAKE_BLOCK_TOKENS;
use equipoise_types::{Joules, MilliJoules, RequestId, Timestamp};

use crate::SimulationError;
use crate::mismatch::Slowness;
use crate::pace::Pace;
use crate::prefix::PrefixCache;

/// An engine with its clock and its energy meter. Energy of steps is whole millijoules, split over who took part; the draw
/// between steps is idle energy.
#[derive(Debug)]
pub(crate) struct SimulatedInstance {
    pub(crate) spec: InstanceSpec,
    pub(crate) engine: Engine,
    /// Prompt and answer together at most, tokens.
    pub(crate) context_tokens: u32,
    pub(crate) prefixes: PrefixCache,
    terms: StepTerms,
    /// What it draws between steps: nothing where it is switched off.
    idle_watts: f64,
    declared_idle_watts: f64,
    /// How fast its steps are.
    pub(crate) pace: Pace,
    /// Its process is gone.
    crashed: bool,
    /// The control plane knows of it.
    registered: bool,
    /// Energy of requests that were taken elsewhere when it died.
    pub(crate) abandoned: MilliJoules,
    step: Option<RunningStep>,
    /// End of the last step.
    idle_since: Timestamp,
    pub(crate) busy_s: f64,
    busy: MilliJoules,
    pub(crate) unattributed: MilliJoules,
    /// Of what was attributed: to those whose prompts were computed.
    pub(crate) prefill: MilliJoules,
    /// Joules of steps that do not make a millijoule yet.
    carry: f64,
    busy_joules: f64,
    idle_joules: f64,
    sampled_at: Timestamp,
    sampled_joules: f64,
    parts: Vec<PartWork>,
}

#[derive(Clone, Copy, Debug)]
struct RunningStep {
    step: Step,
    /// The step takes so many times as long as the model says...
    stretch: f64,
    /// ...and draws this.
    watts: f64,
    /// Its energy.
    joules: f64,
    began: Timestamp,
    ends: Timestamp,
}

impl SimulatedInstance {
    pub(crate) fn new(declared: &DeclaredInstance, slowness: Option<Slowness>) -> Result<Self, SimulationError> {
        let model = declared.step_model()?;
        let terms = model.energy_terms();
        let terms = StepTerms {
            fixed_joules: terms.fixed_joules,
            joules_per_prefill_token: terms.joules_per_prefill_token,
            joules_per_decode_token: terms.joules_per_decode_token,
            joules_per_kv_token: terms.joules_per_kv_token,
        };
        let prefix_blocks = if model.fixed_seconds().is_some() {
            // Nothing is known of an opaque box's cache, and its time does not depend on it.
            0
        } else {
            usize::try_from(model.kv_capacity_tokens() / u64::from(MOONCAKE_BLOCK_TOKENS)).unwrap_or(usize::MAX)
        };
        let declared_context = declared.spec.model.context_tokens.unwrap_or(u32::MAX);
        Ok(Self {
            spec: declared.spec.clone(),
            context_tokens: declared_context.min(model.context_tokens()),
            prefixes: PrefixCache::new(prefix_blocks),
            terms,
            pace: Pace::new(slowness, model.idle_watts().0),
            crashed: false,
            registered: true,
            abandoned: MilliJoules::ZERO,
            idle_watts: model.idle_watts().0,
            declared_idle_watts: model.idle_watts().0,
            engine: Engine::new(model),
            step: None,
            idle_since: Timestamp::ZERO,
            busy_s: 0.0,
            busy: MilliJoules::ZERO,
            unattributed: MilliJoules::ZERO,
            prefill: MilliJoules::ZERO,
            carry: 0.0,
            busy_joules: 0.0,
            idle_joules: 0.0,
            sampled_at: Timestamp::ZERO,
            sampled_joules: 0.0,
            parts: Vec::new(),
        })
    }

    /// Whether the running step is over.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.step.is_some_and(|running| running.ends <= now)
    }

    /// An opaque box with a free slot takes a request at once: lets the running step end now. False where a request waits
    /// for the end of the step or no step runs.
    pub(crate) fn cut(&mut self, now: Timestamp) -> bool {
        let Some(running) = &mut self.step else { return false };
        let slots = self.engine.model().limits().max_num_seqs;
        if self.engine.stats().running >= slots {
            return false;
        }
        let passed_s = now.secs_since(running.began) / running.stretch;
        let Some(step) = self.engine.cut_step(passed_s) else {
            return false;
        };
        (running.step, running.ends) = (step, now);
        running.joules = running.watts * now.secs_since(running.began);
        true
    }

    /// Begins a step, if there is anything to do and none runs, and says when it ends.
    pub(crate) fn begin(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.step.is_some() {
            return None;
        }
        let step = self.engine.begin_long_step()?;
        self.idle_joules += self.idle_watts * now.secs_since(self.idle_since);
        let pace = self.pace.of(now, &step.cost);
        let stretch = pace.stretch * pace.throttle;
        // At least a nanosecond, so that time cannot stand still.
        let nanos = (stretch * step.cost.seconds * 1e9).round().max(1.0) as u64;
        let ends = Timestamp(now.0.saturating_add(nanos));
        // Watts are the model's, or the limit; a step that takes longer draws them for longer.
        let watts = self.pace.watts(&step.cost, pace);
        let joules = if pace.throttle > 1.0 {
            watts * stretch * step.cost.seconds
        } else {
            stretch * step.cost.joules.0
        };
        self.step = Some(RunningStep {
            step,
            stretch,
            watts,
            joules,
            began: now,
            ends,
        });
        Some(ends)
    }

    /// Ends the running step: appends what happened, and tells `charge` who used how much.
    pub(crate) fn end(
        &mut self,
        now: Timestamp,
        events: &mut Vec<EngineEvent>,
        mut charge: impl FnMut(RequestId, MilliJoules),
    ) {
        let Some(RunningStep { joules, began, .. }) = self.step.take() else {
            return;
        };
        let total = self.meter(now, began, joules);
        if total > MilliJoules::ZERO {
            let parts = self.engine.step_parts();
            self.parts.clear();
            self.parts.extend(parts.iter().map(|part| PartWork {
                prefill_tokens: part.prefill_tokens,
                decode_tokens: part.decode_tokens,
                kv_tokens: u64::from(part.kv_tokens),
            }));
            let shares = attribute_step(total, &self.terms, &self.parts);
            if shares.is_empty() {
                self.unattributed += total;
            }
            for (part, share) in parts.iter().zip(shares) {
                if part.prefill_tokens > 0 {
                    self.prefill += share;
                }
                charge(part.id, share);
            }
        }
        self.engine.end_step(events);
    }

    /// A step is over: takes its time and its energy in, whole millijoules of it.
    fn meter(&mut self, now: Timestamp, began: Timestamp, joules: f64) -> MilliJoules {
        self.idle_since = now;
        self.busy_s += now.secs_since(began);
        self.busy_joules += joules;
        let exact = joules * 1e3 + self.carry;
        let whole = exact.max(0.0).floor();
        self.carry = exact - whole;
        let total = MilliJoules(whole as u64);
        self.busy += total;
        total
    }

    /// Its process is gone, with everything in it: whom it served. What the step that it was in has drawn is nobody's.
    pub(crate) fn crash(&mut self, now: Timestamp) -> Vec<RequestId> {
        self.crashed = true;
        if let Some(running) = self.step.take() {
            let drawn = running.watts * now.secs_since(running.began);
            let drawn = self.meter(now, running.began, drawn);
            self.unattributed += drawn;
        }
        let lost = self.engine.request_ids();
        for id in &lost {
            self.engine.abort(*id);
        }
        // Of nobody: ends what it was in, without an event.
        self.engine.end_step(&mut Vec::new());
        self.prefixes.clear();
        lost
    }

    /// Its process is back.
    pub(crate) fn recover(&mut self) {
        self.crashed = false;
    }

    /// Whether its process runs.
    pub(crate) fn is_up(&self) -> bool {
        !self.crashed
    }

    /// The control plane hears of it, or that it is gone.
    pub(crate) fn register(&mut self, registered: bool) {
        self.registered = registered;
    }

    /// Whether the control plane knows of it.
    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }

    /// Power on or off, between steps.
    pub(crate) fn switch(&mut self, now: Timestamp, on: bool) {
        if self.step.is_none() {
            self.idle_joules += self.idle_watts * now.secs_since(self.idle_since);
            self.idle_since = now;
        }
        self.idle_watts = if on { self.declared_idle_watts } else { 0.0 };
    }

    /// What it draws between steps while it is on.
    pub(crate) fn declared_idle_watts(&self) -> f64 {
        self.declared_idle_watts
    }

    /// All energy drawn until `now`, joules, the running step in proportion.
    pub(crate) fn joules_until(&self, now: Timestamp) -> f64 {
        let open = match &self.step {
            Some(running) => running.watts * now.secs_since(running.began),
            None => self.idle_watts * now.secs_since(self.idle_since),
        };
        self.busy_joules + self.idle_joules + open
    }

    /// Whether it takes requests.
    pub(crate) fn can_serve(&self) -> bool {
        self.registered && !self.crashed
    }

    /// What its metrics page and its power meter would say now; nothing where it is not registered. `hop_s` is how old that
    /// will be on arrival.
    pub(crate) fn sample(&mut self, now: Timestamp, hop_s: f64) -> Option<EngineSample> {
        if !self.registered {
            return None;
        }
        let stats = self.engine.stats();
        let joules = self.joules_until(now);
        let seconds = now.secs_since(self.sampled_at);
        let metered = self.idle_watts > 0.0 && seconds > 0.0;
        let power = metered.then(|| equipoise_types::Watts((joules - self.sampled_joules) / seconds));
        self.sampled_at = now;
        self.sampled_joules = joules;
        Some(EngineSample {
            healthy: !self.crashed,
            running: stats.running,
            waiting: stats.waiting,
            kv_usage: stats.kv_usage,
            power,
            age_s: hop_s,
        })
    }

    /// Measured and idle energy until `now`. Measured is idle plus steps; the last fraction of a millijoule of the steps
    /// is rounded away.
    pub(crate) fn totals(&self, now: Timestamp) -> (MilliJoules, MilliJoules) {
        let open = if self.step.is_none() {
            self.idle_watts * now.secs_since(self.idle_since)
        } else {
            0.0
        };
        let idle = Joules(self.idle_joules + open).to_millijoules();
        (self.busy + idle, idle)
    }

    /// The same as a running sum of real numbers, to hold against [`Self::totals`].
    #[cfg(test)]
    pub(crate) fn metered_joules(&self, now: Timestamp) -> f64 {
        self.joules_until(now)
    }
}
