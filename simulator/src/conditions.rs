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
    /// By fault, whether it has begun and is not over. Several may strike one place at a time.
    in_force: Vec<bool>,
    telemetry: TelemetryFaults,
    pools: Vec<ScaledPool>,
    racks: Vec<CappedRack>,
}

fn seconds(seconds: f64) -> Timestamp {
    Timestamp::from_secs_f64(seconds)
}

impl Conditions {
    pub(crate) fn new(options: &ConditionOptions, instances: usize, seed: u64) -> Self {
        Self {
            in_force: vec![false; options.faults.len()],
            faults: options.faults.clone(),
            telemetry: TelemetryFaults::new(instances, RandomStream::new(seed).derive("telemetry")),
            pools: options.autoscaling.iter().cloned().map(ScaledPool::new).collect(),
            racks: options.racks.iter().cloned().map(CappedRack::new).collect(),
        }
    }

    /// What arrives of the samples that were taken now; nothing while the control plane is away.
    pub(crate) fn pass(
        &mut self,
        now: Timestamp,
        samples: Vec<Option<EngineSample>>,
    ) -> Option<Vec<Option<EngineSample>>> {
        let passed = self.telemetry.pass(now, samples);
        (!self.control_is_away()).then_some(passed)
    }

    /// What is wrong now.
    fn wrong(&self) -> impl Iterator<Item = &FaultKind> {
        let faults = self.faults.iter().zip(&self.in_force);
        faults.filter(|(_, in_force)| **in_force).map(|(fault, _)| &fault.kind)
    }

    fn control_is_away(&self) -> bool {
        self.wrong().any(|kind| *kind == FaultKind::ControlPlaneAway)
    }

    fn is_crashed(&self, instance: usize) -> bool {
        self.wrong()
            .any(|kind| matches!(kind, FaultKind::Crash { instances } if instances.contains(&instance)))
    }

    fn is_router_away(&self, router: u32) -> bool {
        self.wrong()
            .any(|kind| matches!(kind, FaultKind::RouterAway { router: away } if *away == router))
    }

    /// The longest delay of an instance's samples, seconds.
    fn delay_s(&self, instance: usize) -> f64 {
        let delay = |kind: &FaultKind| match kind {
            FaultKind::TelemetryLate { instances, delay_s } if instances.contains(&instance) => Some(*delay_s),
            _ => None,
        };
        self.wrong().filter_map(delay).fold(0.0, f64::max)
    }

    /// The largest share of an instance's samples that is lost.
    fn lost_share(&self, instance: usize) -> f64 {
        let lost = |kind: &FaultKind| match kind {
            FaultKind::TelemetryLost { instances, share } if instances.contains(&instance) => Some(*share),
            _ => None,
        };
        self.wrong().filter_map(lost).fold(0.0, f64::max)
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
        self.conditions.in_force[fault] = begins;
        match kind {
            FaultKind::Crash { instances } => {
                for instance in instances {
                    if begins {
                        self.crash(instance);
                    } else if !self.conditions.is_crashed(instance) {
                        self.instances[instance].recover();
                        self.changed = true;
                    }
                }
            }
            FaultKind::Slow { .. } | FaultKind::ControlPlaneAway => {}
            FaultKind::RouterAway { router } => {
                if begins {
                    self.lose_router(router as usize);
                } else if !self.conditions.is_router_away(router) {
                    self.restart_router(router as usize);
                }
            }
            FaultKind::TelemetryLate { instances, .. } => {
                for instance in instances {
                    let delay_s = self.conditions.delay_s(instance);
                    self.conditions.telemetry.delay(&[instance], delay_s);
                }
            }
            FaultKind::TelemetryLost { instances, .. } => {
                for instance in instances {
                    let share = self.conditions.lost_share(instance);
                    self.conditions.telemetry.lose(&[instance], share);
                }
            }
        }
    }

    /// The engine's process is gone: clients' connections break.
    fn crash(&mut self, instance: usize) {
        self.changed = true;
        self.advance(instance);
        let lost = self.instances[instance].crash(self.now, &mut self.requests);
        self.plan_wake(instance);
        for place in lost {
            self.plan_report(instance, self.requests.at(place).id, ReportKind::Lost);
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
                if self.instances[instance].drop_request(self.now, place, &mut self.requests) {
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
        for drain in self.drains() {
            self.give(router, Event::Fleet(drain));
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
