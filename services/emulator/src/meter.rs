//! Modelled energy in real time.

use equipoise_engine::Step;
use equipoise_types::{Joules, MilliJoules, Watts};

/// Integrates the draw. All times are seconds since the emulator's start.
///
/// Energy is the idle draw over all time plus what steps draw above it; so it never falls and is never below idle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnergyMeter {
    idle: Watts,
    /// Above idle, of the steps that have ended.
    active: Joules,
    step: Option<RunningStep>,
}

#[derive(Clone, Copy, Debug)]
struct RunningStep {
    start_s: f64,
    seconds: f64,
    above_idle: Watts,
}

/// The meter at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EnergyReading {
    /// All energy since the start.
    pub(crate) energy: MilliJoules,
    /// The idle draw over the same time, busy or not.
    pub(crate) idle: MilliJoules,
    /// The draw now.
    pub(crate) power: Watts,
}

impl EnergyMeter {
    pub(crate) fn new(idle: Watts) -> Self {
        Self {
            idle,
            active: Joules(0.0),
            step: None,
        }
    }

    pub(crate) fn begin_step(&mut self, start_s: f64, step: &Step) {
        let above_idle = Watts((step.cost.watts.0 - self.idle.0).max(0.0));
        self.step = Some(RunningStep {
            start_s,
            seconds: step.cost.seconds,
            above_idle,
        });
    }

    pub(crate) fn end_step(&mut self) {
        if let Some(step) = self.step.take() {
            self.active += step.above_idle * step.seconds;
        }
    }

    pub(crate) fn read(&self, now_s: f64) -> EnergyReading {
        let mut active = self.active;
        let mut power = self.idle;
        if let Some(step) = self.step {
            active += step.above_idle * (now_s - step.start_s).clamp(0.0, step.seconds);
            power += step.above_idle;
        }
        let idle = whole(self.idle * now_s);
        EnergyReading {
            energy: idle + whole(active),
            idle,
            power,
        }
    }
}

/// Rounded down, so that sums of parts keep rising together.
fn whole(amount: Joules) -> MilliJoules {
    MilliJoules((amount.0 * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_engine::{StepCost, StepWork};

    fn step(seconds: f64, watts: f64) -> Step {
        let cost = StepCost {
            seconds,
            watts: Watts(watts),
            joules: Watts(watts) * seconds,
        };
        Step {
            work: StepWork::default(),
            cost,
        }
    }

    #[test]
    fn energy_is_busy_joules_plus_idle_watts_times_idle_time() {
        let mut meter = EnergyMeter::new(Watts(100.0));
        meter.begin_step(1.0, &step(0.5, 400.0));
        meter.end_step();
        let reading = meter.read(2.0);
        assert_eq!(reading.energy, MilliJoules(400 * 500 + 100 * 1500));
        assert_eq!((reading.idle, reading.power), (MilliJoules(200_000), Watts(100.0)));
    }

    #[test]
    fn the_counters_never_fall_and_energy_is_never_below_idle() {
        // One step draws less than idle, as a coarse power curve might say; one begins in the past, as after a late wake-up.
        let steps = [
            (0.1, step(0.2, 300.0)),
            (0.3, step(0.1, 50.0)),
            (0.35, step(0.2, 700.0)),
        ];
        let mut meter = EnergyMeter::new(Watts(90.0));
        let (mut last, mut clock_s) = (meter.read(0.0), 0.0_f64);
        let mut check = |meter: &EnergyMeter, now_s: f64| {
            clock_s = clock_s.max(now_s);
            let reading = meter.read(clock_s);
            assert!(reading.energy >= last.energy && reading.idle >= last.idle);
            assert!(reading.energy >= reading.idle);
            last = reading;
        };
        for (start_s, step) in steps {
            meter.begin_step(start_s, &step);
            for tenth in 0..12 {
                check(&meter, start_s + step.cost.seconds * f64::from(tenth) / 10.0);
            }
            meter.end_step();
            check(&meter, start_s + step.cost.seconds * 1.2);
        }
    }
}
