//! What a fleet has to live with in a run: faults, pools that grow and shrink, power caps.
//!
//! Everything happens to the world: engines die, samples are late, connections break. The scheduler hears of it as it would
//! live, by failures, samples and deltas, and never before. Does not belong here: what it makes of that.

mod autoscaler;
mod rack;
mod telemetry;
#[cfg(test)]
mod tests;

use std::time::Duration;

use equipoise_config::{AutoscalingConfig, FaultConfig, FaultKind, RackConfig};
use equipoise_fleet::{EngineSample, FleetDelta};
use equipoise_scheduler::{Event, Failure};
use equipoise_trace::{TraceError, WorkloadRecord};
use equipoise_types::{RandomStream, Timestamp};

use crate::RequestSink;
use crate::driver::Driver;
use crate::feed::Sink;
use crate::happening::{Happening, ReportKind};
use crate::pace::SlowSpan;
use crate::request::Place;
use autoscaler::ScaledPool;
use rack::CappedRack;
use telemetry::TelemetryFaults;

/// What goes wrong, grows, and is capped. Instances are indices into the fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConditionOptions {
    /// What goes wrong, and when.
    pub faults: Vec<FaultConfig>,
    /// Pools that grow and shrink.
    pub autoscaling: Vec<AutoscalingConfig>,
    /// Instances that share a power cap.
    pub racks: Vec<RackConfig>,
}

/// Something that changes at a time that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// A fault strikes.
    Begins { fault: usize },
    /// It is over.
    Ends { fault: usize },
    /// An autoscaler looks at its pool.
    Scale { pool: usize },
    /// An instance has loaded its weights.
    Started { pool: usize, member: usize },
    /// A rack's power is allotted anew.
    Allot { rack: usize },
}

/// The state of all conditions of a run.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    faults: Vec<FaultConfig>,
    telemetry: TelemetryFaults,
    pools: Vec<ScaledPool>,
    racks: Vec<CappedRack>,
    /// Faults that keep the control plane away.
    control_away: u32,
}

fn seconds(seconds: f64) -> Timestamp {
    Timestamp::from_secs_f64(seconds)
}

impl Conditions {
    pub(crate) fn new(options: &ConditionOptions, instances: usize, seed: u64) -> Self {
        Self {
            faults: options.faults.clone(),
            telemetry: TelemetryFaults::new(instances, RandomStream::new(seed).derive("telemetry")),
            pools: options.autoscaling.iter().cloned().map(ScaledPool::new).collect(),
            racks: options.racks.iter().cloned().map(CappedRack::new).collect(),
            control_away: 0,
        }
    }

    /// What arrives of the samples that were taken now; nothing while the control plane is away.
    pub(crate) fn pass(
        &mut self,
        now: Timestamp,
        samples: Vec<Option<EngineSample>>,
    ) -> Option<Vec<Option<EngineSample>>> {
        let passed = self.telemetry.pass(now, samples);
        (self.control_away == 0).then_some(passed)
    }
}

impl<W, S, R> Driver<'_, W, S, R>
where
    W: Iterator<Item = Result<WorkloadRecord, TraceError>>,
    S: Sink,
    R: RequestSink,
{
    /// Plans all that is known beforehand, and takes away what is not there at the start.
    pub(crate) fn begin_conditions(&mut self) {
        let faults = std::mem::take(&mut self.conditions.faults);
        for (index, fault) in faults.iter().enumerate() {
            let from = seconds(fault.at_s);
            let until = fault.until_s.map_or(Timestamp::MAX, seconds);
            if let FaultKind::Slow { instances, factor } = &fault.kind {
                // Known to the engine beforehand, and to nobody else.
                for instance in instances {
                    let factor = *factor;
                    self.instances[*instance].pace.slow(SlowSpan { from, until, factor });
                }
                continue;
            }
            self.plan(from, Happening::Change(Change::Begins { fault: index }));
            if until < Timestamp::MAX {
                self.plan(until, Happening::Change(Change::Ends { fault: index }));
            }
        }
        self.conditions.faults = faults;
        for pool in 0..self.conditions.pools.len() {
            self.begin_pool(pool);
        }
        for rack in 0..self.conditions.racks.len() {
            self.allot(rack);
        }
    }

    pub(crate) fn change(&mut self, change: Change) {
        match change {
            Change::Begins { fault } => self.fault(fault, true),
            Change::Ends { fault } => self.fault(fault, false),
            Change::Scale { pool } => self.scale(pool),
            Change::Started { pool, member } => self.started(pool, member),
            Change::Allot { rack } => self.allot(rack),
        }
    }

    fn fault(&mut self, fault: usize, begins: bool) {
        // Taken out for a moment: what it does needs the rest.
        let kind = self.conditions.faults[fault].kind.clone();
        match kind {
            FaultKind::Crash { instances } => {
                for instance in instances {
                    if begins {
                        self.crash(instance);
                    } else {
                        self.instances[instance].recover();
                        self.changed = true;
                    }
                }
            }
            FaultKind::Slow { .. } => {}
            FaultKind::RouterAway { router } => {
                if begins {
                    self.lose_router(router as usize);
                } else {
                    self.restart_router(router as usize);
                }
            }
            FaultKind::ControlPlaneAway => {
                let away = self.conditions.control_away;
                self.conditions.control_away = if begins { away + 1 } else { away.saturating_sub(1) };
            }
            FaultKind::TelemetryLate { instances, delay_s } => {
                let delay_s = if begins { delay_s } else { 0.0 };
                self.conditions.telemetry.delay(&instances, delay_s);
            }
            FaultKind::TelemetryLost { instances, share } => {
                let share = if begins { share } else { 0.0 };
                self.conditions.telemetry.lose(&instances, share);
            }
        }
    }

    /// The engine's process is gone: clients' connections break.
    fn crash(&mut self, instance: usize) {
        self.changed = true;
        self.advance(instance);
        let lost = self.instances[instance].crash(self.now, &mut self.requests);
        self.plan_wake(instance);
        let instance = u32::try_from(instance).unwrap_or(u32::MAX);
        for place in lost {
            let request = self.requests.at(place).id;
            let kind = ReportKind::Lost;
            let report = Happening::Report {
                instance,
                request,
                kind,
            };
            self.plan(self.now + self.hop, report);
        }
    }

    /// The connection to an instance broke, or was never made.
    pub(crate) fn lost(&mut self, place: Place) {
        let state = self.requests.at_mut(place);
        let (request, home) = (state.id, state.home as usize);
        let failure = if state.first_token_at.is_some() {
            self.refuse(request, "broken_off");
            Failure::Final
        } else {
            state.start_again();
            Failure::Unreached
        };
        self.give(home, Event::Failed { request, failure });
    }

    /// A router's process is gone with the connections to its clients; engines notice and stop.
    fn lose_router(&mut self, router: usize) {
        self.routers.set_away(router, true);
        for place in self.requests.open_places() {
            let state = self.requests.at(place);
            let (request, instance) = (state.id, state.instance);
            if state.home as usize != router {
                continue;
            }
            if let Some(instance) = instance.map(|instance| instance as usize) {
                self.advance(instance);
                if self.instances[instance].drop_request(place, &mut self.requests) {
                    self.plan_wake(instance);
                }
                self.changed = true;
            }
            self.refuse(request, "router_lost");
        }
    }

    /// It is back, and knows nothing but what the control plane tells it.
    fn restart_router(&mut self, router: usize) {
        self.routers.set_away(router, false);
        self.routers.restart(router);
        for instance in 0..self.instances.len() {
            let spec = self.instances[instance].spec.clone();
            let name = spec.name.clone();
            self.give(router, Event::Fleet(FleetDelta::Upsert(spec)));
            if !self.instances[instance].is_registered() {
                self.give(router, Event::Fleet(FleetDelta::Remove { name }));
            }
        }
    }

    /// When a rhythm of `interval_s` beats next. While nobody is there and nothing `moves`, it sleeps until somebody comes: a
    /// workload may have years of empty time.
    fn next_beat(&self, interval_s: f64, moves: bool) -> Timestamp {
        let (arrived, ended) = self.counts();
        let next = self.next.as_ref().map(|record| record.arrival.secs_since(self.now));
        let beats = match next {
            Some(seconds) if !moves && arrived == ended => (seconds / interval_s).floor().max(1.0),
            _ => 1.0,
        };
        self.now + span(interval_s * beats)
    }

    /// Tells every router of a change.
    fn announce(&mut self, delta: &FleetDelta) {
        for router in 0..self.routers.len() {
            self.give(router, Event::Fleet(delta.clone()));
        }
    }
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
