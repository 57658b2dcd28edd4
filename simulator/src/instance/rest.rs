//! An instance between its steps: idle, asleep, waking up, starting, off.
//!
//! It falls asleep by itself, as its fleet file says, and wakes for the first request that it is sent; that waits until the engine
//! is ready. What it draws meanwhile, waking included, is idle energy: of the pool, not of whoever woke it.

use std::time::Duration;

use equipoise_types::Timestamp;

use super::SimulatedInstance;

/// An opaque box's start, of which nothing is known, seconds.
const UNKNOWN_START_S: f64 = 60.0;

/// A wake-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waking {
    began: Timestamp,
    pub(super) ready: Timestamp,
}

impl SimulatedInstance {
    /// Drawn since the last step, joules.
    pub(super) fn resting_joules(&self, now: Timestamp) -> f64 {
        let model = self.engine.model();
        // Off, or it never sleeps.
        let awake = model.sleep().is_none() || self.meter.idle_watts <= 0.0;
        let rested = |since: Timestamp, now: Timestamp| {
            let seconds = now.secs_since(since);
            if awake {
                self.meter.idle_watts * seconds
            } else {
                model.idle_energy(seconds).0
            }
        };
        let Some(Waking { began, ready }) = self.waking else {
            return rested(self.idle_since, now);
        };
        let loading_s = now.min(ready).secs_since(began);
        rested(self.idle_since, began) + self.waking_watts() * loading_s + rested(ready, now.max(ready))
    }

    /// Draw while it wakes up or starts.
    fn waking_watts(&self) -> f64 {
        let rest = self.engine.model().rest();
        self.declared_idle_watts + (rest.loading.0 - rest.loaded.0)
    }

    /// The most that it may draw while no step runs.
    pub(crate) fn most_resting_watts(&self) -> f64 {
        match self.engine.model().sleep() {
            Some(_) => self.waking_watts(),
            None => self.declared_idle_watts,
        }
    }

    /// A step begins, or its power changes: what was drawn until now is metered.
    pub(super) fn end_rest(&mut self, now: Timestamp) {
        self.meter.idle(self.resting_joules(now));
        self.idle_since = now;
        self.waking = None;
    }

    /// Whether a request that comes now has to wait until the engine is awake; begins to wake it.
    pub(super) fn has_to_wake(&mut self, now: Timestamp) -> bool {
        self.wakes_up(now);
        if self.waking.is_some() {
            return true;
        }
        let model = self.engine.model();
        let idle_s = now.secs_since(self.idle_since);
        let (Some(sleep), Some(waking)) = (model.sleep(), model.waking(idle_s)) else {
            return false;
        };
        self.asleep_nanos += span(idle_s - sleep.after_s).as_nanos() as u64;
        self.wakes += 1;
        let ready = now + span(waking.seconds);
        self.waking = Some(Waking { began: now, ready });
        true
    }

    /// True where it is ready now and was not before.
    pub(crate) fn wakes_up(&mut self, now: Timestamp) -> bool {
        let Some(waking) = self.waking.filter(|waking| waking.ready <= now) else {
            return false;
        };
        self.end_rest(waking.ready);
        true
    }

    /// Power off, between steps.
    pub(crate) fn switch_off(&mut self, now: Timestamp) {
        if self.step.is_none() {
            self.end_rest(now);
        }
        self.meter.idle_watts = 0.0;
    }

    /// Power on: it loads its weights until it is `ready`.
    pub(crate) fn switch_on(&mut self, now: Timestamp, ready: Timestamp) {
        self.end_rest(now);
        self.meter.idle_watts = self.declared_idle_watts;
        self.waking = Some(Waking { began: now, ready });
    }

    /// From nothing to the first step, seconds.
    pub(crate) fn start_s(&self) -> f64 {
        let start_s = self.engine.model().rest().start_s;
        if start_s > 0.0 { start_s } else { UNKNOWN_START_S }
    }

    /// How often it was woken, and for how long it had slept by then, seconds; what it sleeps now included.
    pub(crate) fn sleeps(&self, now: Timestamp) -> (u32, f64) {
        let idle = self.step.is_none() && self.waking.is_none() && self.meter.idle_watts > 0.0;
        let sleep = self.engine.model().sleep().filter(|_| idle);
        let open_s = sleep.map_or(0.0, |sleep| (now.secs_since(self.idle_since) - sleep.after_s).max(0.0));
        (self.wakes, self.asleep_nanos as f64 / 1e9 + open_s)
    }
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
