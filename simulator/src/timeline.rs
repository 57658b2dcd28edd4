//! Load, queue and watts in the course of a run, in a bounded number of intervals.

use equipoise_trace::{TraceError, WorkloadRecord};
use equipoise_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::RequestSink;
use crate::driver::Driver;
use crate::feed::Sink;

/// Intervals at most; where time runs beyond them, two become one.
const MOST_BINS: usize = 240;
/// Width of the first intervals, seconds.
const FIRST_BIN_S: f64 = 1.0;

/// What a run looked like in the course of time. All lists are as long as there are intervals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Width of an interval, seconds; the last one may be cut short by the end of the run.
    pub bin_s: f64,
    /// Seconds of each interval that the run lasted.
    pub seconds: Vec<f32>,
    /// Requests that arrived.
    pub arrived: Vec<f32>,
    /// Requests that ended, one way or another.
    pub ended: Vec<f32>,
    /// Mean number of requests that waited at the routers.
    pub queued: Vec<f32>,
    /// Mean number of requests in the engines.
    pub running: Vec<f32>,
    /// Mean draw of all GPUs, watts.
    pub watts: Vec<f32>,
    /// Mean number of instances that could serve.
    pub serving: Vec<f32>,
}

/// What is seen at one moment; counts are since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Glance {
    at_s: f64,
    arrived: f64,
    ended: f64,
    queued: f64,
    running: f64,
    joules: f64,
    serving: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    seconds: f64,
    arrived: f64,
    ended: f64,
    queued_s: f64,
    running_s: f64,
    joules: f64,
    serving_s: f64,
}

impl Bin {
    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.arrived += other.arrived;
        self.ended += other.ended;
        self.queued_s += other.queued_s;
        self.running_s += other.running_s;
        self.joules += other.joules;
        self.serving_s += other.serving_s;
    }
}

/// A timeline in the making.
#[derive(Clone, Debug)]
pub(crate) struct TimelineLog {
    bin_s: f64,
    bins: Vec<Bin>,
    last: Option<Glance>,
}

impl Default for TimelineLog {
    fn default() -> Self {
        Self {
            bin_s: FIRST_BIN_S,
            bins: Vec::new(),
            last: None,
        }
    }
}

impl TimelineLog {
    /// What was counted since the last glance lies evenly between the two; levels stay as they were.
    fn note(&mut self, now: Glance) {
        let last = self.last.replace(now).unwrap_or(Glance {
            queued: now.queued,
            running: now.running,
            serving: now.serving,
            ..Glance::default()
        });
        let span_s = now.at_s - last.at_s;
        if span_s <= 0.0 {
            // Nothing has passed, but what was counted must not be lost.
            self.last = Some(Glance {
                arrived: last.arrived,
                ended: last.ended,
                joules: last.joules,
                ..now
            });
            return;
        }
        while now.at_s > self.bin_s * MOST_BINS as f64 {
            self.halve();
        }
        let (first, end) = (
            (last.at_s / self.bin_s) as usize,
            (now.at_s / self.bin_s).ceil() as usize,
        );
        if self.bins.len() < end {
            self.bins.resize(end, Bin::default());
        }
        for (index, bin) in self.bins.iter_mut().enumerate().take(end).skip(first) {
            let from = (index as f64 * self.bin_s).max(last.at_s);
            let to = ((index + 1) as f64 * self.bin_s).min(now.at_s);
            let seconds = (to - from).max(0.0);
            let share = seconds / span_s;
            bin.add(&Bin {
                seconds,
                arrived: share * (now.arrived - last.arrived),
                ended: share * (now.ended - last.ended),
                queued_s: seconds * last.queued,
                running_s: seconds * last.running,
                joules: share * (now.joules - last.joules),
                serving_s: seconds * last.serving,
            });
        }
    }

    fn halve(&mut self) {
        let pairs = self.bins.chunks(2).map(|pair| {
            let mut both = pair[0];
            if let Some(second) = pair.get(1) {
                both.add(second);
            }
            both
        });
        self.bins = pairs.collect();
        self.bin_s *= 2.0;
    }

    fn timeline(&self) -> Timeline {
        let list = |of: fn(&Bin) -> f64| self.bins.iter().map(|bin| of(bin) as f32).collect();
        Timeline {
            bin_s: self.bin_s,
            seconds: list(|bin| bin.seconds),
            arrived: list(|bin| bin.arrived),
            ended: list(|bin| bin.ended),
            queued: list(|bin| bin.queued_s / bin.seconds.max(1e-9)),
            running: list(|bin| bin.running_s / bin.seconds.max(1e-9)),
            watts: list(|bin| bin.joules / bin.seconds.max(1e-9)),
            serving: list(|bin| bin.serving_s / bin.seconds.max(1e-9)),
        }
    }
}

impl<W, S, R> Driver<'_, W, S, R>
where
    W: Iterator<Item = Result<WorkloadRecord, TraceError>>,
    S: Sink,
    R: RequestSink,
{
    /// Looks at everything now; all instances have been brought up to the present.
    pub(crate) fn glance(&mut self) {
        let (mut running, mut joules, mut serving) = (0.0, 0.0, 0.0);
        for instance in &self.instances {
            let stats = instance.engine.stats();
            running += f64::from(stats.running) + f64::from(stats.waiting);
            joules += instance.joules_until(self.now);
            serving += f64::from(u8::from(instance.can_serve()));
        }
        let (arrived, ended) = self.counts();
        self.timeline.note(Glance {
            at_s: self.now.secs_since(Timestamp::ZERO),
            arrived: arrived as f64,
            ended: ended as f64,
            queued: self.routers.queued() as f64,
            running,
            joules,
            serving,
        });
    }

    /// The timeline to the end of the run.
    pub(crate) fn timeline(&mut self) -> Timeline {
        for instance in 0..self.instances.len() {
            self.advance(instance);
        }
        self.glance();
        self.timeline.timeline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_time_runs_on() {
        let mut log = TimelineLog::default();
        for step in 1..=1000_u32 {
            let at_s = 3.7 * f64::from(step);
            log.note(Glance {
                at_s,
                arrived: 2.0 * f64::from(step),
                ended: f64::from(step),
                queued: 5.0,
                running: 7.0,
                joules: 100.0 * at_s,
                serving: 3.0,
            });
        }
        let timeline = log.timeline();
        assert!(timeline.seconds.len() <= MOST_BINS, "{}", timeline.seconds.len());
        assert_eq!(timeline.bin_s, 16.0);
        let sum = |list: &[f32]| list.iter().map(|value| f64::from(*value)).sum::<f64>();
        assert!((sum(&timeline.arrived) - 2000.0).abs() < 0.1);
        assert!((sum(&timeline.seconds) - 3700.0).abs() < 0.1);
        assert!(timeline.watts.iter().all(|watts| (watts - 100.0).abs() < 0.1));
        assert!(timeline.queued.iter().all(|queued| (queued - 5.0).abs() < 1e-3));
    }

    #[test]
    fn two_glances_at_once_lose_nothing() {
        let mut log = TimelineLog::default();
        let glance = |at_s, arrived| Glance {
            at_s,
            arrived,
            ..Glance::default()
        };
        log.note(glance(0.0, 3.0));
        log.note(glance(1.0, 4.0));
        log.note(glance(1.0, 5.0));
        log.note(glance(2.0, 5.0));
        assert!((log.timeline().arrived.iter().sum::<f32>() - 5.0).abs() < 1e-6);
    }
}
