//! The simulated driver: an agenda of happenings in virtual time that carries the scheduler's actions out.
//!
//! Engines are not in the agenda step by step: each is brought up to the present when it is looked at, and is woken when
//! something happens in it that others can see. Progress of answers, which changes nothing but what a decision sees, is
//! given to the scheduler before it may decide. With [`SimulationOptions::step_by_step`] every step and every report is an
//! event of its own; both ways come to the same, bit for bit.

mod actions;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use equipoise_config::FleetConfig;
use equipoise_engine::EngineEvent;
use equipoise_fleet::FleetDelta;
use equipoise_scheduler::{Action, Event, Prefix, Request, SchedulerConfig, Wishes};
use equipoise_trace::{MOONCAKE_BLOCK_TOKENS, TraceError, WorkloadRecord};
use equipoise_types::{RandomStream, Timestamp};

use crate::agenda::{Agenda, Next};
use crate::conditions::Conditions;
use crate::feed::Sink;
use crate::happening::Happening;
use crate::instance::{Progress, SimulatedInstance};
use crate::options::LONGEST_YEARS;
use crate::request::Requests;
use crate::routers::Routers;
use crate::tally::Tally;
use crate::timeline::TimelineLog;
use crate::{PolicyResult, RequestEnding, RequestSink, SimulationError, SimulationOptions};

/// Where a scheduler asks to be woken at a time that has come already, it is woken this much later.
const LEAST_SLEEP: Duration = Duration::from_millis(1);

/// One run: everything that changes in it. Reads its workload from `W`, records what the first router is told in `S`, and
/// tells `R` of requests that have ended.
#[derive(Debug)]
pub(crate) struct Driver<'a, W, S, R> {
    workload: W,
    /// The next request of the workload.
    pub(crate) next: Option<WorkloadRecord>,
    read: u64,
    pub(crate) options: &'a SimulationOptions,
    pub(crate) hop: Duration,
    telemetry_interval: Duration,
    pub(crate) routers: Routers<S>,
    /// By instance id.
    pub(crate) instances: Vec<SimulatedInstance>,
    /// By instance: the router hears of no progress there before then.
    quiet_until: Vec<Timestamp>,
    pub(crate) requests: Requests,
    tally: Tally,
    pub(crate) timeline: TimelineLog,
    pub(crate) conditions: Conditions,
    told: Option<&'a mut R>,
    agenda: Agenda,
    /// Progress on its way, where each step is an event.
    progress: BinaryHeap<Reverse<Progress>>,
    /// Draws who says how good an answer was.
    random: RandomStream,
    pub(crate) now: Timestamp,
    /// When all instances are sampled next.
    next_sample: Timestamp,
    /// Whether any instance has changed since they were sampled last.
    pub(crate) changed: bool,
    // Reused buffers.
    actions: Vec<Action>,
    engine_events: Vec<EngineEvent>,
}

/// Checks that requests come in order.
pub(crate) fn check_order(records: &[WorkloadRecord]) -> Result<(), SimulationError> {
    let mut before = Timestamp::ZERO;
    for (index, record) in records.iter().enumerate() {
        before = check_next(index as u64, before, record)?;
    }
    Ok(())
}

fn check_next(index: u64, before: Timestamp, record: &WorkloadRecord) -> Result<Timestamp, SimulationError> {
    if record.arrival < before {
        return Err(SimulationError::NotSorted { index });
    }
    let years = record.arrival.as_secs_f64() / (365.25 * 86_400.0);
    if years > LONGEST_YEARS {
        return Err(SimulationError::TooLate { index, years });
    }
    Ok(record.arrival)
}

impl<'a, W, S, R> Driver<'a, W, S, R>
where
    W: Iterator<Item = Result<WorkloadRecord, TraceError>>,
    S: Sink,
    R: RequestSink,
{
    pub(crate) fn new(
        fleet: &FleetConfig,
        config: SchedulerConfig,
        workload: W,
        options: &'a SimulationOptions,
        sink: S,
    ) -> Result<Self, SimulationError> {
        options.check()?;
        if fleet.instances.is_empty() {
            return Err(SimulationError::NoInstances);
        }
        let mut driver = Self {
            workload,
            next: None,
            read: 0,
            options,
            hop: Duration::from_secs_f64(options.hop_s),
            telemetry_interval: Duration::from_secs_f64(options.sampling_interval_s()),
            routers: Routers::new(config, options.routers, options.slo.is_some(), sink)?,
            instances: Vec::with_capacity(fleet.instances.len()),
            quiet_until: vec![Timestamp::MAX; fleet.instances.len()],
            requests: Requests::default(),
            tally: Tally::new(fleet.instances.len(), false),
            timeline: TimelineLog::default(),
            conditions: Conditions::new(&options.conditions, fleet.instances.len(), options.seed),
            told: None,
            agenda: Agenda::new(fleet.instances.len()),
            progress: BinaryHeap::new(),
            random: RandomStream::new(options.seed).derive("feedback"),
            now: Timestamp::ZERO,
            next_sample: Timestamp::ZERO,
            changed: true,
            actions: Vec::new(),
            engine_events: Vec::new(),
        };
        driver.read_next()?;
        if driver.next.is_none() {
            return Err(SimulationError::NoRequests);
        }
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
            let instance = SimulatedInstance::new(declared, slowness, driver.hop, options.step_by_step)?;
            driver.instances.push(instance);
        }
        if driver.routers.looks_at_nothing() {
            driver.instances.iter_mut().for_each(SimulatedInstance::mute);
        }
        driver.begin_conditions();
        Ok(driver)
    }

    /// Keeps where each request was sent.
    pub(crate) fn keeping_places(mut self) -> Self {
        self.tally = Tally::new(self.instances.len(), true);
        self
    }

    /// Tells `sink` of each request as it ends.
    pub(crate) fn telling(mut self, sink: &'a mut R) -> Self {
        self.told = Some(sink);
        self
    }

    /// Runs to the end of the last request.
    pub(crate) fn run(mut self) -> Result<(PolicyResult, S), SimulationError> {
        self.run_to_end()?;
        let timeline = self.timeline();
        let config = self.routers.first().config();
        let result = PolicyResult::of(self.now, self.tally, &self.instances, self.options, config, timeline);
        Ok((result, self.routers.into_sink()))
    }

    pub(crate) fn run_to_end(&mut self) -> Result<(), SimulationError> {
        while self.requests.open() > 0 || self.next.is_some() {
            let arrival = self.next.as_ref().map_or(Timestamp::MAX, |record| record.arrival);
            let planned = self.agenda.next_at();
            let (wakeup, sleeper) = self
                .routers
                .wakeup(self.now, LEAST_SLEEP)
                .unwrap_or((Timestamp::MAX, 0));
            let at = arrival.min(planned).min(wakeup);
            if self.hear_progress(at.min(Timestamp(self.next_sample.0 + 1))) {
                continue;
            }
            if at == Timestamp::MAX {
                // Nobody will ever do anything again.
                break;
            }
            if self.next_sample < at {
                self.sample_before(at);
                continue;
            }
            self.now = at.max(self.now);
            if arrival == at {
                self.arrive()?;
            } else if planned == at {
                match self.agenda.pop() {
                    Some(Next::Wake(instance)) => self.wake(instance),
                    Some(Next::Other(happening)) => self.happen(happening),
                    None => {}
                }
            } else {
                self.give(sleeper, Event::Timer);
            }
        }
        for place in self.requests.open_places() {
            if let Some(instance) = self.requests.at(place).instance {
                self.instances[instance as usize].settle(place, &mut self.requests);
            }
            self.end_request(place, RequestEnding::Unfinished);
        }
        Ok(())
    }

    /// Reads on, and gives the request that was next.
    fn read_next(&mut self) -> Result<Option<WorkloadRecord>, SimulationError> {
        let gone = self.next.take();
        let before = gone.as_ref().map_or(Timestamp::ZERO, |record| record.arrival);
        self.next = self.workload.next().transpose().map_err(SimulationError::Workload)?;
        if let Some(record) = &self.next {
            check_next(self.read, before, record)?;
            self.read += 1;
        }
        Ok(gone)
    }

    /// Requests that have arrived, and that have ended.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let arrived = self.requests.arrived();
        (arrived, arrived - self.requests.open() as u64)
    }

    pub(crate) fn plan(&mut self, at: Timestamp, happening: Happening) {
        self.agenda.plan(at, happening);
    }

    /// Whoever arrives now arrives together.
    fn arrive(&mut self) -> Result<(), SimulationError> {
        let mut batch = Vec::new();
        while self.next.as_ref().is_some_and(|record| record.arrival <= self.now) {
            let Some(record) = self.read_next()? else { break };
            let place = self.requests.arrive(record);
            let state = self.requests.at(place);
            let index = usize::try_from(state.id.0).unwrap_or(usize::MAX);
            batch.push(Request {
                id: state.id,
                target: self.options.target_of(index),
                tenant: state.record.tenant.clone(),
                prompt_tokens: state.record.prompt_tokens,
                max_output_tokens: None,
                streams: true,
                forecast: self.options.forecast(index),
                prefix: Prefix {
                    block_tokens: MOONCAKE_BLOCK_TOKENS,
                    blocks: state.record.prefix_blocks.clone().unwrap_or_default(),
                },
                wishes: self.options.slo.map_or_else(Wishes::default, |slo| slo.wishes()),
            });
        }
        for (router, batch) in self.routers.spread(batch) {
            for request in &batch {
                if let Some(place) = self.requests.place(request.id) {
                    self.requests.at_mut(place).home = u32::try_from(router).unwrap_or(0);
                }
            }
            if self.routers.is_away(router) {
                batch.iter().for_each(|request| self.refuse(request.id, "router_away"));
                continue;
            }
            self.give(router, Event::Arrived(batch));
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Submit { instance, request } => self.submit(instance, request),
            Happening::Report { request, kind, .. } => self.report(request, kind),
            Happening::Samples(samples) => {
                for (index, sample) in samples.into_iter().enumerate() {
                    let Some(sample) = sample else { continue };
                    let name = self.instances[index].spec.name.clone();
                    self.give(0, Event::Fleet(FleetDelta::Sample { name, sample }));
                }
            }
            Happening::Change(change) => self.change(change),
            Happening::Fleet(report) => {
                for router in 0..self.routers.len() {
                    for delta in self.routers.deltas(&report, router, self.now, &self.instances) {
                        self.give(router, Event::Fleet(delta));
                    }
                }
            }
        }
    }

    /// Samples all instances, before what comes at `at`. Where none has changed since the last time, only the last sample
    /// before `at` is taken: those ahead of it would say the same to a scheduler that has nothing to decide meanwhile.
    fn sample_before(&mut self, at: Timestamp) {
        self.changed |= self.instances.iter().any(SimulatedInstance::is_batching);
        if !self.changed {
            let interval = u64::try_from(self.telemetry_interval.as_nanos())
                .unwrap_or(u64::MAX)
                .max(1);
            self.next_sample.0 += (at.0 - 1 - self.next_sample.0) / interval * interval;
        }
        self.changed = false;
        self.now = self.next_sample.max(self.now);
        self.next_sample += self.telemetry_interval;
        let now = self.now;
        for instance in 0..self.instances.len() {
            self.advance(instance);
        }
        self.glance();
        let several = self.routers.len() > 1;
        if several {
            self.hear(Timestamp(now.0 + 1));
        }
        let age_s = if several {
            self.options.routers.state_age_s
        } else {
            self.options.hop_s
        };
        let samples = self.instances.iter_mut().map(|instance| instance.sample(now, age_s));
        let samples = samples.collect();
        let Some(samples) = self.conditions.pass(now, samples) else {
            return;
        };
        if several {
            let report = self.routers.report(now, samples);
            self.plan(now + Duration::from_secs_f64(age_s), Happening::Fleet(Box::new(report)));
            return;
        }
        self.plan(now + self.hop, Happening::Samples(samples));
    }
}
