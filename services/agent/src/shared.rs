//! What the agent's tasks share: time, the outbox, and what each engine was last seen to do.

use crate::clock::{WallClock, next_tick};
use crate::idle::IdleWindow;
use crate::outbox::Outbox;
use equipoise_proto::v1::EnergySample;
use equipoise_telemetry::AgentMetrics;
use equipoise_types::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// Bounds of the sampling interval, whatever the control plane says: a GPU's sensors do not move faster than the
/// shorter, and an engine's state is stale after the longer.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(10);

/// How far the agent is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    /// Samplers finish; the session goes on and carries what they bring.
    Draining,
    Stopping,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: WallClock,
    pub(crate) outbox: Mutex<Outbox>,
    pub(crate) metrics: AgentMetrics,
    /// What is in the outbox should not wait for the next batch's turn.
    pub(crate) news: Notify,
    engines: Mutex<BTreeMap<String, IdleWindow>>,
    origin: Instant,
    interval: watch::Sender<Duration>,
    stage: watch::Sender<Stage>,
}

impl Shared {
    pub(crate) fn new(interval: Duration, metrics: AgentMetrics) -> Self {
        Self {
            clock: WallClock::new(),
            outbox: Mutex::default(),
            metrics,
            news: Notify::new(),
            engines: Mutex::default(),
            origin: Instant::now(),
            interval: watch::Sender::new(clamp(interval)),
            stage: watch::Sender::new(Stage::Running),
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        *self.interval.borrow()
    }

    pub(crate) fn set_interval(&self, interval: Duration) {
        self.interval.send_replace(clamp(interval));
    }

    /// Ends the sampling tasks.
    pub(crate) fn drain(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Ends the session.
    pub(crate) fn stop(&self) {
        self.stage.send_replace(Stage::Stopping);
    }

    /// Returns when the session is to end.
    pub(crate) async fn stopped(&self) {
        self.reached(Stage::Stopping).await;
    }

    async fn reached(&self, wanted: Stage) {
        // The sender lives in `self`, so it cannot be gone.
        let _gone = self.stage.subscribe().wait_for(|&stage| stage >= wanted).await.is_err();
    }

    /// The next moment that lies `phase` after a sampling tick.
    pub(crate) fn next_tick(&self, phase: Duration) -> Instant {
        next_tick(self.origin, self.interval(), phase, Instant::now())
    }

    /// Waits for the next sampling tick, the same for all tasks, or for whoever is in haste one of so many in an interval;
    /// false if sampling ends instead.
    pub(crate) async fn tick(&self, haste: u32) -> bool {
        let mut interval = self.interval.subscribe();
        loop {
            interval.mark_unchanged();
            let whole = self.interval();
            let part = (whole / haste.max(1)).max(*INTERVALS.start()).min(whole);
            let tick = next_tick(self.origin, part, Duration::ZERO, Instant::now());
            tokio::select! {
                biased;
                () = self.reached(Stage::Draining) => return false,
                () = sleep_until(tick) => return true,
                // Maybe shorter from now on: do not sleep the old one to its end.
                _ = interval.changed() => {}
            }
        }
    }

    /// Takes in what a look at an engine says of whether it is idle.
    pub(crate) fn observe_engine(&self, instance: &str, at: Timestamp, look: Option<(bool, u64)>) {
        let mut engines = self.engines.lock();
        match engines.get_mut(instance) {
            Some(window) => window.observe(at, look),
            None => engines.entry(instance.to_owned()).or_default().observe(at, look),
        }
    }

    pub(crate) fn idle_window(&self, instance: &str) -> IdleWindow {
        self.engines.lock().get(instance).copied().unwrap_or_default()
    }

    pub(crate) fn put_energy(&self, sample: EnergySample) {
        self.metrics.add_energy(&sample.instance, sample.measured_mj);
        if !sample.flaws.is_empty() {
            self.metrics.energy_flaws.inc();
        }
        self.outbox.lock().put_energy(sample);
    }
}

fn clamp(interval: Duration) -> Duration {
    interval.clamp(*INTERVALS.start(), *INTERVALS.end())
}
