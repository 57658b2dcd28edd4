//! How fast an instance's steps are, beside its engine model: what it differs by, faults that slow it, a power limit.

use equipoise_engine::StepCost;
use equipoise_types::Timestamp;

use crate::mismatch::Slowness;

/// A power limit never makes a step longer than by this factor: at least a little clock is left.
const MOST_THROTTLE: f64 = 1000.0;

/// A time in which every step takes longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlowSpan {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) factor: f64,
}

/// What a step that begins now takes, as factors on its model's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepPace {
    /// Longer at the same draw.
    pub(crate) stretch: f64,
    /// Longer still at a lower clock; what is drawn above idle is spread over that time.
    pub(crate) throttle: f64,
}

/// Everything that decides it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    slowness: Option<Slowness>,
    spans: Vec<SlowSpan>,
    idle_watts: f64,
    limit_watts: Option<f64>,
    /// Most that a step since the last look would have drawn without a limit, watts.
    wanted_watts: f64,
}

impl Pace {
    pub(crate) fn new(slowness: Option<Slowness>, idle_watts: f64) -> Self {
        Self {
            slowness,
            idle_watts,
            ..Self::default()
        }
    }

    /// Every step from `from` to `until` takes longer.
    pub(crate) fn slow(&mut self, span: SlowSpan) {
        self.spans.push(span);
    }

    /// Whether a step's pace is known only when it begins.
    pub(crate) fn varies(&self) -> bool {
        self.slowness.is_some() || !self.spans.is_empty() || self.limit_watts.is_some()
    }

    /// Steps from now on draw no more.
    pub(crate) fn limit(&mut self, watts: f64) {
        self.limit_watts = Some(watts);
    }

    /// What it wanted to draw since it was asked last.
    pub(crate) fn take_wanted_watts(&mut self) -> f64 {
        std::mem::take(&mut self.wanted_watts)
    }

    /// The pace of a step that begins now.
    pub(crate) fn of(&mut self, now: Timestamp, cost: &StepCost) -> StepPace {
        let mut stretch = self.slowness.as_mut().map_or(1.0, |slowness| slowness.factor(now));
        for span in self.spans.iter().filter(|span| span.from <= now && now < span.until) {
            stretch *= span.factor;
        }
        self.wanted_watts = self.wanted_watts.max(cost.watts.0);
        let throttle = match self.limit_watts {
            Some(limit) if cost.watts.0 > limit => {
                let above = (limit - self.idle_watts).max(0.0);
                ((cost.watts.0 - self.idle_watts) / above).clamp(1.0, MOST_THROTTLE)
            }
            _ => 1.0,
        };
        StepPace { stretch, throttle }
    }

    /// Steps that would have drawn as much have been.
    pub(crate) fn note_watts(&mut self, watts: f64) {
        self.wanted_watts = self.wanted_watts.max(watts);
    }

    /// The mean draw of a step that nothing changes.
    pub(crate) fn plain_watts(&self, cost: &StepCost) -> f64 {
        let plain = StepPace {
            stretch: 1.0,
            throttle: 1.0,
        };
        self.watts(cost, plain)
    }

    /// The mean draw of such a step.
    pub(crate) fn watts(&self, cost: &StepCost, pace: StepPace) -> f64 {
        self.idle_watts + (cost.watts.0 - self.idle_watts) / pace.throttle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::{Joules, Watts};

    #[test]
    fn a_limit_makes_longer_and_a_fault_as_long_as_it_lasts() {
        let cost = StepCost {
            seconds: 0.1,
            watts: Watts(300.0),
            joules: Joules(30.0),
        };
        let at = Timestamp::from_secs_f64;
        let mut pace = Pace::new(None, 100.0);
        pace.slow(SlowSpan {
            from: at(1.0),
            until: at(2.0),
            factor: 3.0,
        });
        let plain = StepPace {
            stretch: 1.0,
            throttle: 1.0,
        };
        assert_eq!((pace.of(at(0.5), &cost), pace.watts(&cost, plain)), (plain, 300.0));
        assert_eq!(pace.of(at(1.0), &cost).stretch, 3.0);
        assert_eq!(pace.of(at(2.0), &cost), plain);
        assert_eq!((pace.take_wanted_watts(), pace.take_wanted_watts()), (300.0, 0.0));
        pace.limit(200.0);
        let limited = pace.of(at(3.0), &cost);
        assert_eq!((limited.throttle, pace.watts(&cost, limited)), (2.0, 200.0));
        pace.limit(100.0);
        assert_eq!(pace.of(at(3.0), &cost).throttle, MOST_THROTTLE);
        pace.limit(400.0);
        assert_eq!(pace.of(at(3.0), &cost), plain);
    }
}
