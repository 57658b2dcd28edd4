//! One simulated instance: an engine, the step it is in, and a meter.

mod rest;
mod run;

use std::time::Duration;

use equipoise_config::DeclaredInstance;
use equipoise_engine::{EnergyTerms, Engine, EngineEvent, Step};
use equipoise_fleet::{EngineSample, InstanceSpec};
use equipoise_trace::MOONCAKE_BLOCK_TOKENS;
use equipoise_types::{MilliJoules, RequestId, Timestamp, Watts};

use crate::SimulationError;
use crate::meter::{Meter, Shares};
use crate::mismatch::Slowness;
use crate::pace::Pace;
use crate::prefix::PrefixCache;
use crate::request::{Place, Requests};
use rest::Waking;
use run::{Run, Spare};

/// An engine with its clock and its energy meter. Energy of steps is split over who took part; the draw between steps is idle
/// energy.
///
/// While everybody in its batch only decodes, steps pass as a [`Run`]: the engine is told of many at once, and the driver is
/// not told at all before somebody's answer ends. [`Self::advance`] brings it up to the present, whenever somebody looks.
#[derive(Debug)]
pub(crate) struct SimulatedInstance {
    pub(crate) spec: InstanceSpec,
    pub(crate) engine: Engine,
    /// Prompt and answer together at most, tokens.
    pub(crate) context_tokens: u32,
    pub(crate) prefixes: PrefixCache,
    terms: EnergyTerms,
    meter: Meter,
    declared_idle_watts: f64,
    /// How fast its steps are.
    pub(crate) pace: Pace,
    /// Its process is gone.
    crashed: bool,
    /// The control plane knows of it.
    registered: bool,
    /// Who left in the middle of the running step.
    gone: Vec<RequestId>,
    /// Each step is begun and ended on its own.
    step_by_step: bool,
    /// Nobody wants to hear how answers get on.
    mute: bool,
    /// Way back to the router.
    hop: Duration,
    hop_nanos: u64,
    step: Option<RunningStep>,
    /// What the running step is part of.
    run: Option<Run>,
    spare: Spare,
    /// End of the last step, or of a wake-up.
    idle_since: Timestamp,
    /// On its way from sleep, or from nothing, to its next step.
    waking: Option<Waking>,
    wakes: u32,
    asleep_nanos: u64,
    busy_nanos: u64,
    /// Progress on its way to the router, and when it hears of the first.
    progress: Vec<Progress>,
    first_heard: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct RunningStep {
    step: Step,
    /// The step takes so many times as long as the model says...
    stretch: f64,
    /// ...draws this...
    watts: f64,
    /// ...and takes this energy.
    joules: f64,
    began: Timestamp,
    ends: Timestamp,
}

/// Tokens of an answer that are told while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Progress {
    /// When the router hears of it.
    pub(crate) at: Timestamp,
    pub(crate) request: RequestId,
    pub(crate) count: u32,
}

impl SimulatedInstance {
    pub(crate) fn new(
        declared: &DeclaredInstance,
        slowness: Option<Slowness>,
        hop: Duration,
        step_by_step: bool,
    ) -> Result<Self, SimulationError> {
        let model = declared.step_model()?;
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
            terms: model.energy_terms(),
            meter: Meter::new(model.idle_watts().0),
            declared_idle_watts: model.idle_watts().0,
            pace: Pace::new(slowness, model.idle_watts().0),
            crashed: false,
            registered: true,
            gone: Vec::new(),
            step_by_step,
            mute: false,
            hop,
            hop_nanos: u64::try_from(hop.as_nanos()).unwrap_or(u64::MAX),
            engine: Engine::new(model),
            step: None,
            run: None,
            spare: Spare::default(),
            idle_since: Timestamp::ZERO,
            waking: None,
            wakes: 0,
            asleep_nanos: 0,
            busy_nanos: 0,
            progress: Vec::new(),
            first_heard: Timestamp::MAX,
        })
    }

    /// Nobody will want to hear of progress.
    pub(crate) fn mute(&mut self) {
        self.mute = true;
    }

    /// Whether the running step is over and is to be ended with [`Self::end`].
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        self.run.is_none() && self.step.is_some_and(|running| running.ends <= now)
    }

    /// Whether it is in the middle of a batch: its state changes from one look to the next.
    pub(crate) fn is_batching(&self) -> bool {
        self.step.is_some() && self.engine.model().fixed_seconds().is_none()
    }

    /// When it has to be looked at next whatever happens: at the end of its step or, within a run, not after the end of the
    /// step that ends somebody's answer; where it wakes up, when it is ready.
    pub(crate) fn wakes_at(&self) -> Option<Timestamp> {
        let Some(running) = &self.step else {
            return self.waking.map(|waking| waking.ready);
        };
        let ends = match &self.run {
            // How long the steps after this one are is decided when they begin.
            Some(_) if self.pace.varies() => running.ends,
            Some(run) => run.visible_from(running),
            None => running.ends,
        };
        Some(ends)
    }

    /// An opaque box with a free slot takes a request at once: lets the running step end now. False where a request waits
    /// for the end of the step or no step runs.
    pub(crate) fn cut(&mut self, now: Timestamp) -> bool {
        let Some(running) = &mut self.step else { return false };
        if self.engine.model().fixed_seconds().is_none() {
            return false;
        }
        let slots = self.engine.model().limits().max_num_seqs;
        if self.engine.stats().running >= slots {
            return false;
        }
        let passed_s = now.secs_since(running.began) / running.stretch;
        let Some(step) = self.engine.cut_step(passed_s) else {
            return false;
        };
        (running.step, running.ends) = (step, now);
        running.joules = running.stretch * step.cost.joules.0;
        true
    }

    /// Begins a step, if there is anything to do and none runs, or wakes up for it; true where it did.
    pub(crate) fn begin(&mut self, now: Timestamp, requests: &Requests) -> bool {
        if self.step.is_some() {
            return false;
        }
        if !self.engine.is_idle() && self.has_to_wake(now) {
            return true;
        }
        if !self.step_by_step
            && let Some(steady) = self.engine.steady()
        {
            let spare = std::mem::take(&mut self.spare);
            let heard = (!self.mute).then_some(requests);
            let run = Run::new(&steady, now, &self.engine, self.terms, heard, spare);
            let step = run.step(steady.kv_tokens);
            self.run = Some(run);
            self.start(now, step);
        } else if let Some(step) = self.engine.begin_long_step() {
            self.start(now, step);
        } else {
            return false;
        }
        true
    }

    fn start(&mut self, now: Timestamp, step: Step) {
        self.end_rest(now);
        let pace = self.pace.of(now, &step.cost);
        let stretch = pace.stretch * pace.throttle;
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
            ends: Timestamp(now.0.saturating_add(nanos(stretch * step.cost.seconds))),
        });
    }

    /// Takes the end of the running step into the meter and the clock. What is left is who pays.
    fn finish_step(&mut self, now: Timestamp) -> Option<(Step, Shares)> {
        let RunningStep {
            step, joules, began, ..
        } = self.step.take()?;
        self.idle_since = now;
        self.busy_nanos += now.0 - began.0;
        let shares = Shares::of(joules, &self.terms, &step.work);
        Some((step, shares))
    }

    /// Ends the running step: charges who was in it and appends what happened.
    pub(crate) fn end(&mut self, now: Timestamp, requests: &mut Requests, events: &mut Vec<EngineEvent>) {
        let Some((_, shares)) = self.finish_step(now) else {
            return;
        };
        if shares != Shares::default() {
            let mut whole = 0;
            for part in self.engine.step_parts() {
                let share = shares.share(part);
                if self.gone.contains(&part.id) {
                    self.meter.lose(share);
                    continue;
                }
                if part.prefill_tokens > 0 {
                    self.meter.prefill(share);
                }
                whole += share;
                requests.at_mut(Place::of_engine_id(part.id)).picojoules += share;
            }
            self.meter.busy(whole);
        }
        self.gone.clear();
        self.engine.end_step(events);
    }

    /// A request has left the engine: settles what it is charged with.
    pub(crate) fn settle(&mut self, place: Place, requests: &mut Requests) {
        let state = requests.at_mut(place);
        state.energy = self.meter.settle(std::mem::take(&mut state.picojoules));
    }

    /// Progress that is told when a step ends at `now`.
    pub(crate) fn tell(&mut self, now: Timestamp, request: RequestId, count: u32) {
        let at = now + self.hop;
        self.push(Progress { at, request, count });
    }

    fn push(&mut self, progress: Progress) {
        if self.mute {
            return;
        }
        self.first_heard = self.first_heard.min(progress.at);
        self.progress.push(progress);
    }

    /// The router hears of no progress before then.
    pub(crate) fn quiet_until(&self) -> Timestamp {
        if self.mute {
            return Timestamp::MAX;
        }
        let due = match (&self.run, &self.step) {
            (Some(run), Some(running)) => run.next_progress(running, !self.pace.varies()) + self.hop,
            _ => Timestamp::MAX,
        };
        due.min(self.first_heard)
    }

    /// What the running step has drawn so far, or what was drawn since the last one, joules.
    fn open_joules(&self, now: Timestamp) -> f64 {
        match &self.step {
            Some(running) => running.watts * now.secs_since(running.began),
            None => self.resting_joules(now),
        }
    }

    /// Everybody's connection breaks: its process is gone. It has been brought up to the present. What the step that it was in
    /// has drawn is nobody's. Whom it served.
    pub(crate) fn crash(&mut self, now: Timestamp, requests: &mut Requests) -> Vec<Place> {
        self.interrupt(now, requests);
        self.crashed = true;
        if let Some(running) = self.step.take() {
            self.meter.lose_joules(running.watts * now.secs_since(running.began));
            self.busy_nanos += now.0 - running.began.0;
            self.idle_since = now;
        } else {
            self.end_rest(now);
        }
        let mut lost = Vec::new();
        for id in self.engine.request_ids() {
            self.engine.abort(id);
            let place = Place::of_engine_id(id);
            self.settle(place, requests);
            lost.push(place);
        }
        // Of nobody: ends what it was in, without an event.
        self.engine.end_step(&mut Vec::new());
        self.gone.clear();
        self.prefixes.clear();
        lost
    }

    /// A client has left: its request is taken out of the engine, which has been brought up to the present. True where a run
    /// was broken off for it.
    pub(crate) fn drop_request(&mut self, now: Timestamp, place: Place, requests: &mut Requests) -> bool {
        let interrupted = self.interrupt(now, requests);
        let id = place.engine_id();
        if self.engine.abort(id) {
            self.settle(place, requests);
            if self.step.is_some() {
                self.gone.push(id);
            }
        }
        interrupted
    }

    /// Its process is back.
    pub(crate) fn recover(&mut self) {
        self.crashed = false;
    }

    /// Whether its process runs.
    pub(crate) fn is_up(&self) -> bool {
        !self.crashed
    }

    /// Whether it takes requests.
    pub(crate) fn can_serve(&self) -> bool {
        self.registered && !self.crashed
    }

    /// The control plane hears of it, or that it is gone.
    pub(crate) fn register(&mut self, registered: bool) {
        self.registered = registered;
    }

    /// Whether the control plane knows of it.
    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }

    /// All energy drawn until `now`, joules, the running step in proportion. It has been brought up to the present.
    pub(crate) fn joules_until(&self, now: Timestamp) -> f64 {
        self.meter.joules(self.open_joules(now))
    }

    /// What its metrics page and its power meter would say now; nothing where it is not registered. It has been brought up to
    /// the present. `hop_s` is how old that will be on arrival.
    pub(crate) fn sample(&mut self, now: Timestamp, hop_s: f64) -> Option<EngineSample> {
        if !self.registered {
            return None;
        }
        let stats = self.engine.stats();
        let kv_usage = self
            .untold_steps()
            .map_or(stats.kv_usage, |steps| self.engine.kv_usage_after(steps));
        let open_joules = self.open_joules(now);
        Some(EngineSample {
            healthy: !self.crashed,
            running: stats.running,
            waiting: stats.waiting,
            kv_usage,
            power: self.meter.sample(now, open_joules).map(Watts),
            age_s: hop_s,
        })
    }

    /// Seconds in which a step ran.
    pub(crate) fn busy_s(&self) -> f64 {
        self.busy_nanos as f64 / 1e9
    }

    /// Attributed and idle energy until `now`: all that it has drawn.
    pub(crate) fn totals(&self, now: Timestamp) -> (MilliJoules, MilliJoules) {
        let open_joules = if self.step.is_none() {
            self.open_joules(now)
        } else {
            0.0
        };
        self.meter.totals(open_joules)
    }

    /// Of the attributed, that of prompts; and what is nobody's.
    pub(crate) fn energy_parts(&self) -> (MilliJoules, MilliJoules) {
        self.meter.parts()
    }
}

/// Whole nanoseconds, at least one so that time cannot stand still. Never shorter for more seconds.
fn nanos(seconds: f64) -> u64 {
    ((seconds * 1e9 + 0.5) as u64).max(1)
}
