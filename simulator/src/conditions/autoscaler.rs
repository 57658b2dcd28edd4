//! A pool that grows and shrinks: what an operator's autoscaler does, by what it can see.

use equipoise_config::{AutoscalingConfig, AutoscalingTarget};
use equipoise_fleet::FleetDelta;
use equipoise_trace::{TraceError, WorkloadRecord};
use equipoise_types::{InstanceId, Timestamp};

use super::{Change, span};
use crate::RequestSink;
use crate::driver::Driver;
use crate::feed::Sink;
use crate::happening::Happening;

/// What an instance of such a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// Switched off.
    Off,
    /// Loading its weights.
    Starting,
    /// Taking requests.
    Serving,
    /// Finishing what it has.
    Draining,
}

/// A pool with its state.
#[derive(Clone, Debug)]
pub(super) struct ScaledPool {
    config: AutoscalingConfig,
    members: Vec<Member>,
    changed_at: Timestamp,
}

impl ScaledPool {
    pub(super) fn new(config: AutoscalingConfig) -> Self {
        let state = |index| {
            if index < config.min {
                Member::Serving
            } else {
                Member::Off
            }
        };
        Self {
            members: (0..config.instances.len()).map(state).collect(),
            config,
            changed_at: Timestamp::ZERO,
        }
    }

    fn count(&self, member: Member) -> usize {
        self.members.iter().filter(|other| **other == member).count()
    }

    /// How many should serve. `in_flight` requests are out in the pool, `waiting` wait for it.
    fn wanted(&self, in_flight: f64, at_router: f64, in_engines: f64) -> usize {
        let serving = self.count(Member::Serving);
        let wanted = match self.config.target {
            AutoscalingTarget::InFlight(target) => ((in_flight + at_router) / target).ceil() as usize,
            AutoscalingTarget::Queue(target) => {
                let waiting = at_router + in_engines;
                if waiting > target * serving as f64 {
                    // As many more as there are queues of that length, but no more than twice as many at once.
                    ((waiting / target).ceil() as usize).clamp(serving + 1, 2 * serving.max(1))
                } else if waiting <= 0.0 {
                    serving.saturating_sub(1)
                } else {
                    serving
                }
            }
        };
        wanted.clamp(self.config.min, self.config.max)
    }
}

impl<W, S, R> Driver<'_, W, S, R>
where
    W: Iterator<Item = Result<WorkloadRecord, TraceError>>,
    S: Sink,
    R: RequestSink,
{
    /// What is beyond the pool's least is off at the start.
    pub(super) fn begin_pool(&mut self, pool: usize) {
        let members = 0..self.conditions.pools[pool].members.len();
        for member in members {
            if self.conditions.pools[pool].members[member] == Member::Off {
                self.switch_off(pool, member);
            }
        }
        self.plan_scaling(pool);
    }

    fn plan_scaling(&mut self, pool: usize) {
        let state = &self.conditions.pools[pool];
        let settled = state.count(Member::Serving) == state.config.min
            && state.count(Member::Starting) + state.count(Member::Draining) == 0;
        let at = self.next_beat(state.config.interval_s, !settled);
        self.plan(at, Happening::Change(Change::Scale { pool }));
    }

    fn instance_of(&self, pool: usize, member: usize) -> usize {
        self.conditions.pools[pool].config.instances[member]
    }

    pub(super) fn scale(&mut self, pool: usize) {
        self.plan_scaling(pool);
        // Whoever is to be told could not be.
        if self.conditions.control_is_away() {
            return;
        }
        let (now, pools) = (self.now, self.conditions.pools.len() as f64);
        let members = 0..self.conditions.pools[pool].members.len();
        let (mut in_flight, mut in_engines) = (0.0, 0.0);
        for member in members.clone() {
            let instance = self.instance_of(pool, member);
            let out = self
                .routers
                .in_flight(now, InstanceId(u32::try_from(instance).unwrap_or(u32::MAX)));
            in_flight += f64::from(out);
            in_engines += f64::from(self.instances[instance].engine.stats().waiting);
            let idle = out == 0 && self.instances[instance].engine.is_idle();
            if self.conditions.pools[pool].members[member] == Member::Draining && idle {
                self.switch_off(pool, member);
            }
        }
        // Nobody knows for which pool a request waits.
        let at_router = self.routers.queued() as f64 / pools;
        let state = &self.conditions.pools[pool];
        let wanted = state.wanted(in_flight, at_router, in_engines);
        let (serving, starting) = (state.count(Member::Serving), state.count(Member::Starting));
        let rested = now.secs_since(state.changed_at) >= state.config.cool_down_s;
        if wanted > serving + starting {
            self.grow(pool, wanted - serving - starting);
        } else if wanted < serving && starting == 0 && rested {
            let last = members
                .rev()
                .find(|member| self.conditions.pools[pool].members[*member] == Member::Serving);
            if let Some(member) = last {
                self.drain(pool, member, true);
                self.conditions.pools[pool].changed_at = now;
            }
        }
    }

    /// Takes back whom it was about to lose, then starts others.
    fn grow(&mut self, pool: usize, mut missing: usize) {
        for member in 0..self.conditions.pools[pool].members.len() {
            if missing == 0 {
                break;
            }
            match self.conditions.pools[pool].members[member] {
                Member::Draining => self.drain(pool, member, false),
                Member::Off => {
                    let instance = self.instance_of(pool, member);
                    let state = &mut self.conditions.pools[pool];
                    state.members[member] = Member::Starting;
                    let start_up_s = state.config.start_up_s;
                    let at = self.now + span(start_up_s.unwrap_or_else(|| self.instances[instance].start_s()));
                    self.instances[instance].switch_on(self.now, at);
                    self.plan(at, Happening::Change(Change::Started { pool, member }));
                }
                Member::Starting | Member::Serving => continue,
            }
            missing -= 1;
        }
        self.conditions.pools[pool].changed_at = self.now;
    }

    pub(super) fn started(&mut self, pool: usize, member: usize) {
        self.conditions.pools[pool].members[member] = Member::Serving;
        let instance = self.instance_of(pool, member);
        self.instances[instance].register(true);
        self.changed = true;
        let spec = self.instances[instance].spec.clone();
        self.announce(&FleetDelta::Upsert(spec));
        self.announce(&self.draining(pool, member, false));
    }

    fn drain(&mut self, pool: usize, member: usize, draining: bool) {
        let state = if draining { Member::Draining } else { Member::Serving };
        self.conditions.pools[pool].members[member] = state;
        self.announce(&self.draining(pool, member, draining));
    }

    fn draining(&self, pool: usize, member: usize, draining: bool) -> FleetDelta {
        FleetDelta::Admin {
            name: self.instances[self.instance_of(pool, member)].spec.name.clone(),
            draining,
            weight: 1.0,
        }
    }

    /// What a router that has just started is told of the members that are to empty.
    pub(super) fn drains(&self) -> Vec<FleetDelta> {
        let mut drains = Vec::new();
        for (index, pool) in self.conditions.pools.iter().enumerate() {
            let draining = |(_, state): &(usize, &Member)| **state == Member::Draining;
            let members = pool.members.iter().enumerate().filter(draining);
            drains.extend(members.map(|(member, _)| self.draining(index, member, true)));
        }
        drains
    }

    fn switch_off(&mut self, pool: usize, member: usize) {
        self.conditions.pools[pool].members[member] = Member::Off;
        let instance = self.instance_of(pool, member);
        self.instances[instance].register(false);
        self.instances[instance].switch_off(self.now);
        self.changed = true;
        let name = self.instances[instance].spec.name.clone();
        self.announce(&FleetDelta::Remove { name });
    }
}
