//! The simulated driver: a heap of happenings in virtual time that carries the scheduler's actions out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use equipoise_config::FleetConfig;
use equipoise_engine::{EngineEvent, EngineRequest};
use equipoise_fleet::FleetDelta;
use equipoise_scheduler::{Action, Dispatch, Event, Failure, Prefix, Request, SchedulerConfig, TokenUsage, Wishes};
use equipoise_trace::{MOONCAKE_BLOCK_TOKENS, WorkloadRecord};
use equipoise_types::{RandomStream, RequestId, Timestamp};

use crate::cascade;
use crate::conditions::Conditions;
use crate::feed::Sink;
use crate::happening::{Happening, Planned, Report, ReportKind};
use crate::instance::SimulatedInstance;
use crate::options::LONGEST_YEARS;
use crate::request::{Ending, RequestState};
use crate::routers::Routers;
use crate::slo::SloLog;
use crate::timeline::TimelineLog;
use crate::{PolicyResult, SimulationError, SimulationOptions};

/// Where a scheduler asks to be woken at a time that has come already, it is woken this much later.
const LEAST_SLEEP: Duration = Duration::from_millis(1);

/// One run: everything that changes in it.
#[derive(Debug)]
pub(crate) struct Driver<'a, S> {
    pub(crate) records: &'a [WorkloadRecord],
    pub(crate) options: &'a SimulationOptions,
    pub(crate) hop: Duration,
    telemetry_interval: Duration,
    pub(crate) routers: Routers<S>,
    /// By instance id.
    pub(crate) instances: Vec<SimulatedInstance>,
    /// By request id, which is the index in the workload.
    pub(crate) requests: Vec<RequestState>,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    pub(crate) slo: SloLog,
    pub(crate) timeline: TimelineLog,
    pub(crate) conditions: Conditions,
    heap: BinaryHeap<Reverse<Planned>>,
    sequence: u64,
    /// Draws who says how good an answer was.
    random: RandomStream,
    pub(crate) now: Timestamp,
    next_arrival: usize,
    ended: usize,
    /// When all instances are sampled next.
    next_sample: Timestamp,
    /// Whether any instance has changed since they were sampled last.
    pub(crate) changed: bool,
    // Reused buffers.
    actions: Vec<Action>,
    engine_events: Vec<EngineEvent>,
    spare_reports: Vec<Vec<Report>>,
}

impl<'a, S: Sink> Driver<'a, S> {
    pub(crate) fn new(
        fleet: &FleetConfig,
        config: SchedulerConfig,
        records: &'a [WorkloadRecord],
        options: &'a SimulationOptions,
        sink: S,
    ) -> Result<Self, SimulationError> {
        options.check()?;
        if records.is_empty() {
            return Err(SimulationError::NoRequests);
        }
        if fleet.instances.is_empty() {
            return Err(SimulationError::NoInstances);
        }
        if u32::try_from(records.len()).is_err() {
            return Err(SimulationError::TooManyRequests {
                requests: records.len(),
            });
        }
        if let Some(index) = records.windows(2).position(|pair| pair[1].arrival < pair[0].arrival) {
            return Err(SimulationError::NotSorted { index: index + 1 });
        }
        let years = |record: &WorkloadRecord| record.arrival.as_secs_f64() / (365.25 * 86_400.0);
        if let Some(index) = records.iter().position(|record| years(record) > LONGEST_YEARS) {
            return Err(SimulationError::TooLate {
                index,
                years: years(&records[index]),
            });
        }
        let mut driver = Self {
            records,
            options,
            hop: Duration::from_secs_f64(options.hop_s),
            telemetry_interval: Duration::from_secs_f64(options.sampling_interval_s()),
            routers: Routers::new(config, options.routers, sink)?,
            instances: Vec::with_capacity(fleet.instances.len()),
            requests: Vec::new(),
            refusals: BTreeMap::new(),
            slo: SloLog::default(),
            timeline: TimelineLog::default(),
            conditions: Conditions::new(&options.conditions, fleet.instances.len(), options.seed),
            heap: BinaryHeap::new(),
            sequence: 0,
            random: RandomStream::new(options.seed).derive("feedback"),
            now: Timestamp::ZERO,
            next_arrival: 0,
            ended: 0,
            next_sample: Timestamp::ZERO,
            changed: true,
            actions: Vec::new(),
            engine_events: Vec::new(),
            spare_reports: Vec::new(),
        };
        for declared in &fleet.instances {
            for router in 0..driver.routers.len() {
                driver.give(router, Event::Fleet(FleetDelta::Upsert(declared.spec.clone())));
            }
            // The fleet numbers instances as they come; a name it knows already would not get a new number.
            let id = driver.routers.first().fleet().id_of(&declared.spec.name);
            if id.is_none_or(|id| id.index() != driver.instances.len()) {
                return Err(SimulationError::DuplicateInstance {
                    name: declared.spec.name.clone(),
                });
            }
            let slowness = options.mismatch.slowness(options.seed, &declared.spec.name);
            driver.instances.push(SimulatedInstance::new(declared, slowness)?);
        }
        driver.begin_conditions();
        Ok(driver)
    }

    /// Runs to the end of the last request.
    pub(crate) fn run(mut self) -> (PolicyResult, S) {
        self.run_to_end();
        let timeline = self.timeline();
        let result = PolicyResult::of(&self, self.routers.first().config(), timeline);
        (result, self.routers.into_sink())
    }

    pub(crate) fn run_to_end(&mut self) {
        // Not before: of all the runs that wait for their turn, none needs memory yet.
        self.requests.resize(self.records.len(), RequestState::default());
        while self.ended < self.records.len() {
            let arrival = self
                .records
                .get(self.next_arrival)
                .map_or(Timestamp::MAX, |record| record.arrival);
            let planned = self.heap.peek().map_or(Timestamp::MAX, |Reverse(planned)| planned.at);
            let (wakeup, sleeper) = self
                .routers
                .wakeup(self.now, LEAST_SLEEP)
                .unwrap_or((Timestamp::MAX, 0));
            let at = arrival.min(planned).min(wakeup);
            if at == Timestamp::MAX {
                // Nobody will ever do anything again.
                return;
            }
            if self.next_sample < at {
                self.sample_before(at);
                continue;
            }
            self.now = at.max(self.now);
            if arrival == at {
                self.arrive();
            } else if planned == at {
                if let Some(Reverse(planned)) = self.heap.pop() {
                    self.happen(planned.happening);
                }
            } else {
                self.give(sleeper, Event::Timer);
            }
        }
    }

    /// Requests that have arrived, and that have ended.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.next_arrival, self.ended)
    }

    pub(crate) fn plan(&mut self, at: Timestamp, happening: Happening) {
        self.heap.push(Reverse(Planned {
            at,
            sequence: self.sequence,
            happening,
        }));
        self.sequence += 1;
    }

    /// Whoever arrives now arrives together.
    fn arrive(&mut self) {
        let mut batch = Vec::new();
        while let Some(record) = self
            .records
            .get(self.next_arrival)
            .filter(|record| record.arrival <= self.now)
        {
            batch.push(Request {
                id: RequestId(self.next_arrival as u64),
                target: self.options.target_of(self.next_arrival),
                tenant: record.tenant.clone(),
                prompt_tokens: record.prompt_tokens,
                max_output_tokens: None,
                streams: true,
                forecast: self.options.forecast(self.next_arrival),
                prefix: Prefix {
                    block_tokens: MOONCAKE_BLOCK_TOKENS,
                    blocks: record.prefix_blocks.clone().unwrap_or_default(),
                },
                wishes: self.options.slo.map_or_else(Wishes::default, |slo| slo.wishes()),
            });
            self.next_arrival += 1;
        }
        for (router, batch) in self.routers.spread(batch) {
            if self.routers.is_away(router) {
                batch.iter().for_each(|request| self.refuse(request.id, "router_away"));
                continue;
            }
            self.give(router, Event::Arrived(batch));
        }
    }

    /// Gives a router an event and carries out what it answers.
    pub(crate) fn give(&mut self, router: usize, event: Event) {
        if self.routers.is_away(router) {
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        self.routers.give(router, self.now, event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Dispatch(dispatch) => self.dispatch(&dispatch),
                Action::Queue { request, .. } => {
                    if let Some(state) = self.requests.get_mut(request.0 as usize) {
                        state.queued = true;
                    }
                }
                Action::Refuse { request, reason } => self.refuse(request, reason.code()),
                Action::Deliver { request } => self.deliver(request),
            }
        }
        self.actions = actions;
    }

    fn dispatch(&mut self, dispatch: &Dispatch) {
        let Ok(request) = u32::try_from(dispatch.request.0) else {
            return;
        };
        let instance = dispatch.instance.0;
        self.slo.note(self.options.slo.as_ref(), self.now, dispatch);
        self.requests[request as usize].sent(instance, dispatch.decision, dispatch.gate.is_some());
        self.plan(self.now + self.hop, Happening::Submit { instance, request });
    }

    /// How good the answer is that a request got where it was sent last.
    fn quality(&self, request: usize) -> Option<f64> {
        let instance = self.requests[request].instance?;
        let model = &self.instances[instance as usize].spec.model;
        let truth = self.options.truth(request, &model.name);
        truth.map_or(model.quality, |answer| Some(answer.quality))
    }

    /// Shows an answer that was held back, whole.
    fn deliver(&mut self, request: RequestId) {
        let state = &mut self.requests[request.0 as usize];
        state.first_token_at = Some(self.now);
        state.ending = Ending::Finished(self.now);
        self.ended += 1;
        self.grade(request);
    }

    /// How sure of itself the answer is. Of one that nobody has graded, the model's declared quality is what is known.
    fn confidence(&self, request: u32) -> f64 {
        let state = &self.requests[request as usize];
        let model = state
            .instance
            .map(|instance| &self.instances[instance as usize].spec.model.name);
        let quality = self.quality(request as usize).unwrap_or(0.5);
        cascade::confidence(self.options.seed, request, model.map_or("", String::as_str), quality)
    }

    /// Tells the router how good an answer was, where somebody does.
    fn grade(&mut self, request: RequestId) {
        let share = self.options.feedback_share;
        if share <= 0.0 || self.random.uniform() >= share {
            return;
        }
        let decision = self.requests[request.0 as usize].decision;
        if let (Some(decision), Some(score)) = (decision, self.quality(request.0 as usize)) {
            self.give(self.routers.home(request), Event::Feedback { decision, score });
        }
    }

    pub(crate) fn refuse(&mut self, request: RequestId, reason: &'static str) {
        let state = &mut self.requests[request.0 as usize];
        if state.ending == Ending::Open {
            state.ending = Ending::Refused;
            self.ended += 1;
            *self.refusals.entry(reason).or_default() += 1;
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Submit { instance, request } => self.submit(instance, request),
            Happening::StepEnd { instance } => {
                if self.instances[instance as usize].is_due(self.now) {
                    self.end_step(instance);
                    self.begin_step(instance);
                }
            }
            Happening::Reports(mut reports) => {
                for report in reports.drain(..) {
                    self.report(report);
                }
                self.spare_reports.push(reports);
            }
            Happening::Samples(samples) => {
                for (index, sample) in samples.into_iter().enumerate() {
                    let Some(sample) = sample else { continue };
                    let name = self.instances[index].spec.name.clone();
                    self.give(0, Event::Fleet(FleetDelta::Sample { name, sample }));
                }
            }
            Happening::Change(change) => self.change(change),
            Happening::Report(report) => {
                for router in 0..self.routers.len() {
                    for delta in self.routers.deltas(&report, router, self.now, &self.instances) {
                        self.give(router, Event::Fleet(delta));
                    }
                }
            }
        }
    }

    fn submit(&mut self, instance: u32, request: u32) {
        if self.requests[request as usize].ending != Ending::Open {
            // Its router is gone.
            return;
        }
        if !self.instances[instance as usize].is_up() {
            let kind = ReportKind::Lost;
            self.plan(self.now + self.hop, Happening::Reports(vec![Report { request, kind }]));
            return;
        }
        if self.instances[instance as usize].cut(self.now) {
            self.end_step(instance);
        }
        self.changed = true;
        let record = &self.records[request as usize];
        let wanted_tokens = self
            .options
            .truth(request as usize, &self.instances[instance as usize].spec.model.name)
            .map_or(record.output_tokens, |answer| answer.output_tokens);
        let site = &mut self.instances[instance as usize];
        // An engine stops an answer at the end of its context.
        let room = site.context_tokens.saturating_sub(record.prompt_tokens);
        let output_tokens = wanted_tokens.min(room);
        let blocks = record
            .prefix_blocks
            .as_deref()
            .filter(|_| self.options.prefix_cache)
            .unwrap_or_default();
        let hits = u32::try_from(site.prefixes.admit(blocks)).unwrap_or(u32::MAX);
        // The last prompt token is computed in any case.
        let cached_tokens = hits
            .saturating_mul(MOONCAKE_BLOCK_TOKENS)
            .min(record.prompt_tokens.saturating_sub(1));
        let submitted = site.engine.submit(EngineRequest {
            id: RequestId(u64::from(request)),
            prompt_tokens: record.prompt_tokens,
            output_tokens,
            cached_tokens,
        });
        if submitted.is_err() {
            let reports = vec![Report {
                request,
                kind: ReportKind::Refused,
            }];
            self.plan(self.now + self.hop, Happening::Reports(reports));
            self.begin_step(instance);
            return;
        }
        let state = &mut self.requests[request as usize];
        state.truncated = output_tokens < wanted_tokens;
        state.cached_tokens = cached_tokens;
        self.begin_step(instance);
    }

    fn begin_step(&mut self, instance: u32) {
        if let Some(at) = self.instances[instance as usize].begin(self.now) {
            self.plan(at, Happening::StepEnd { instance });
        }
    }

    fn end_step(&mut self, instance: u32) {
        self.changed = true;
        let mut events = std::mem::take(&mut self.engine_events);
        let mut reports = self.spare_reports.pop().unwrap_or_default();
        let requests = &mut self.requests;
        self.instances[instance as usize].end(self.now, &mut events, |id, share| {
            requests[id.0 as usize].energy += share;
        });
        for event in events.drain(..) {
            self.note(event, &mut reports);
        }
        self.engine_events = events;
        if reports.is_empty() {
            self.spare_reports.push(reports);
        } else {
            self.plan(self.now + self.hop, Happening::Reports(reports));
        }
    }

    /// Turns what happened in an engine into what its response streams tell the router.
    fn note(&mut self, event: EngineEvent, reports: &mut Vec<Report>) {
        let Ok(request) = u32::try_from(event.id().0) else {
            return;
        };
        let state = &mut self.requests[request as usize];
        let kind = match event {
            EngineEvent::Preempted { .. } => return,
            EngineEvent::Finished { .. } => {
                // The end tells as much as the progress that came with it.
                reports.pop_if(|last| last.request == request && matches!(last.kind, ReportKind::Tokens(_)));
                ReportKind::Finished
            }
            EngineEvent::FirstToken { .. } if state.generated == 0 => {
                state.first_token(self.now);
                ReportKind::FirstToken
            }
            EngineEvent::FirstToken { .. } | EngineEvent::Token { .. } => match state.token(self.now) {
                Some(count) => ReportKind::Tokens(count),
                None => return,
            },
        };
        reports.push(Report { request, kind });
    }

    fn report(&mut self, report: Report) {
        let request = RequestId(u64::from(report.request));
        let home = self.routers.home(request);
        let state = &mut self.requests[report.request as usize];
        if state.ending != Ending::Open {
            return;
        }
        match report.kind {
            ReportKind::Lost => self.lost(report.request),
            ReportKind::FirstToken => {
                if !state.held {
                    state.first_token_at = Some(self.now);
                }
                self.give(home, Event::FirstToken { request });
            }
            ReportKind::Tokens(count) => self.give(home, Event::Tokens { request, count }),
            ReportKind::Finished => {
                let usage = Some(TokenUsage {
                    prompt_tokens: self.records[report.request as usize].prompt_tokens,
                    output_tokens: state.generated,
                });
                if state.held {
                    let confidence = self.confidence(report.request);
                    let judged = Event::Judged {
                        request,
                        confidence,
                        usage,
                    };
                    return self.give(home, judged);
                }
                state.ending = Ending::Finished(self.now);
                self.ended += 1;
                self.give(home, Event::Finished { request, usage });
                self.grade(request);
            }
            ReportKind::Refused => {
                self.refuse(request, "engine");
                self.give(
                    home,
                    Event::Failed {
                        request,
                        failure: Failure::Final,
                    },
                );
            }
        }
    }

    /// Samples all instances, before what comes at `at`. Where none has changed since the last time, only the last sample
    /// before `at` is taken: those ahead of it would say the same to a scheduler that has nothing to decide meanwhile.
    fn sample_before(&mut self, at: Timestamp) {
        if !self.changed {
            let interval = u64::try_from(self.telemetry_interval.as_nanos())
                .unwrap_or(u64::MAX)
                .max(1);
            self.next_sample.0 += (at.0 - 1 - self.next_sample.0) / interval * interval;
        }
        self.changed = false;
        self.now = self.next_sample.max(self.now);
        self.next_sample += self.telemetry_interval;
        self.glance();
        let now = self.now;
        let several = self.routers.len() > 1;
        let age_s = if several {
            self.options.routers.state_age_s
        } else {
            self.options.hop_s
        };
        let instances = self.instances.iter_mut();
        let samples = instances.map(|instance| instance.sample(now, age_s)).collect();
        let Some(samples) = self.conditions.pass(now, samples) else {
            return;
        };
        if several {
            let report = self.routers.report(now, samples);
            self.plan(now + Duration::from_secs_f64(age_s), Happening::Report(report));
            return;
        }
        self.plan(now + self.hop, Happening::Samples(samples));
    }
}
