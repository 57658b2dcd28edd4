//! From readings of one GPU to energy per interval, whatever its counter does.

use crate::source::{EnergyFlaw, EnergySource};
use equipoise_types::{MilliJoules, Timestamp, Watts};

/// One reading of a GPU. Neither value: the GPU could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterReading {
    /// When it was read.
    pub at: Timestamp,
    /// Energy since the driver was loaded, millijoules; unset where there is no counter.
    pub energy_mj: Option<u64>,
    /// Board draw, milliwatts; unset where it cannot be read.
    pub power_mw: Option<u32>,
}

/// What is plausible for a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeterLimits {
    /// Draw of the idle board: a counter that stands still while more than half of it is drawn is suspect.
    pub idle: Watts,
    /// The most that the board can draw (its power limit).
    pub most: Watts,
    /// How many suspect readings in a row mean that the counter is frozen.
    pub frozen_after: u32,
}

impl MeterLimits {
    /// Limits of a board with these figures; a counter counts as frozen after ten readings.
    #[must_use]
    pub fn new(idle: Watts, most: Watts) -> Self {
        Self {
            idle,
            most,
            frozen_after: 10,
        }
    }

    /// The most energy that may have flowed: the limit and a quarter for `seconds`, and half a second more because counters
    /// are updated in steps.
    fn most_mj(&self, seconds: f64) -> u64 {
        (1.25 * self.most.0 * (seconds + 0.5) * 1e3) as u64
    }
}

/// Energy of one GPU over one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuEnergy {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What flowed; never negative, never beyond what the board can draw.
    pub energy: MilliJoules,
    /// How it is known.
    pub source: EnergySource,
    /// What is wrong with it.
    pub flaws: Vec<EnergyFlaw>,
}

/// Turns readings into energies. The intervals it returns follow one another without gap or overlap.
///
/// The counter is the truth where it moves. While it stands still though power is drawn, the interval is held open: it
/// closes when the counter moves (counters are updated in steps), or, once the counter counts as frozen, by the power
/// integral. What was then taken from power is taken off a later leap of the counter, so nothing counts twice.
#[derive(Clone, Debug)]
pub struct CounterIntegrator {
    limits: MeterLimits,
    /// End of what has been returned.
    closed: Option<Timestamp>,
    last: Option<CounterReading>,
    /// Power integral since `closed`, where power could be read.
    power_mj: f64,
    /// The counter that further differences start from, and when it was read.
    base: Option<(Timestamp, u64)>,
    suspect: u32,
    /// Taken from power while the counter stood still.
    credit_mj: u64,
    lost: bool,
    window: Comparison,
}

/// Sums for the comparison of counter and power, over windows long enough that the power sensor's averaging (a second)
/// does not matter.
#[derive(Clone, Copy, Debug, Default)]
struct Comparison {
    seconds: f64,
    counter_mj: f64,
    power_mj: f64,
}

const COMPARISON_SECONDS: f64 = 5.0;
const DISAGREEMENT: f64 = 0.05;

impl CounterIntegrator {
    /// An integrator that has seen nothing.
    #[must_use]
    pub fn new(limits: MeterLimits) -> Self {
        Self {
            limits,
            closed: None,
            last: None,
            power_mj: 0.0,
            base: None,
            suspect: 0,
            credit_mj: 0,
            lost: false,
            window: Comparison::default(),
        }
    }

    /// Takes a reading; returns an interval if one closes. The first reading only starts the clock; one that is not later
    /// than its predecessor is ignored.
    pub fn observe(&mut self, reading: CounterReading) -> Option<GpuEnergy> {
        let reading = self.plausible(reading);
        let Some(last) = self.last else {
            self.last = Some(reading);
            self.closed = Some(reading.at);
            self.base = reading.energy_mj.map(|energy| (reading.at, energy));
            self.lost = reading.energy_mj.is_none() && reading.power_mw.is_none();
            return None;
        };
        if reading.at <= last.at {
            return None;
        }
        self.power_mj += power_integral_mj(&last, &reading);
        self.last = Some(reading);
        match (reading.energy_mj, reading.power_mw) {
            (None, None) => {
                self.lost = true;
                Some(self.close(reading.at, 0, EnergySource::Power, vec![EnergyFlaw::GpuLost]))
            }
            (None, Some(_)) => {
                let energy = self.power_mj.round() as u64;
                // Where the counter comes back, it must not count this time again.
                self.credit_mj = self.credit_mj.saturating_add(energy);
                let flaws = self.recovered();
                Some(self.close(reading.at, energy, EnergySource::Power, flaws))
            }
            (Some(counter), _) => self.by_counter(reading, counter),
        }
    }

    fn by_counter(&mut self, reading: CounterReading, counter: u64) -> Option<GpuEnergy> {
        let Some((base_at, base)) = self.base else {
            // The first counter of this GPU: what came before is known from power, if at all.
            self.rebase(reading.at, counter);
            let energy = self.power_mj.round() as u64;
            let flaws = self.recovered();
            return Some(self.close(reading.at, energy, EnergySource::Power, flaws));
        };
        let seconds = reading.at.secs_since(base_at);
        if counter < base || counter - base > self.limits.most_mj(seconds).saturating_add(self.credit_mj) {
            self.rebase(reading.at, counter);
            let energy = self.power_mj.round() as u64;
            let mut flaws = self.recovered();
            flaws.push(EnergyFlaw::CounterReset);
            return Some(self.close(reading.at, energy, EnergySource::Power, flaws));
        }
        if counter == base {
            return self.standing(reading);
        }
        let energy = self.without_credit(counter - base);
        let was_frozen = self.suspect > self.limits.frozen_after;
        self.rebase(reading.at, counter);
        let mut flaws = self.recovered();
        if was_frozen {
            flaws.push(EnergyFlaw::CounterFrozen);
        } else if flaws.is_empty() && self.disagrees(reading, energy) {
            flaws.push(EnergyFlaw::Disagreement);
        }
        Some(self.close(reading.at, energy, EnergySource::Counter, flaws))
    }

    /// The counter has not moved.
    fn standing(&mut self, reading: CounterReading) -> Option<GpuEnergy> {
        let drawn = reading
            .power_mw
            .is_some_and(|power| f64::from(power) > 500.0 * self.limits.idle.0);
        if !drawn {
            let flaws = self.recovered();
            return Some(self.close(reading.at, 0, EnergySource::Counter, flaws));
        }
        self.suspect = self.suspect.saturating_add(1);
        if self.suspect <= self.limits.frozen_after {
            return None;
        }
        let energy = self.power_mj.round() as u64;
        self.credit_mj = self.credit_mj.saturating_add(energy);
        let mut flaws = self.recovered();
        flaws.push(EnergyFlaw::CounterFrozen);
        Some(self.close(reading.at, energy, EnergySource::Power, flaws))
    }

    /// A difference of the counter less what power has accounted for already, if the counter made up for it: that is
    /// whichever of the two readings of the difference lies nearer to what power says flowed since.
    fn without_credit(&self, difference: u64) -> u64 {
        let less = difference.saturating_sub(self.credit_mj);
        let distance = |energy: u64| (energy as f64 - self.power_mj).abs();
        if distance(less) <= distance(difference) {
            less
        } else {
            difference
        }
    }

    fn disagrees(&mut self, reading: CounterReading, energy: u64) -> bool {
        let Some(closed) = self.closed else { return false };
        if reading.power_mw.is_none() || self.power_mj <= 0.0 {
            self.window = Comparison::default();
            return false;
        }
        self.window.seconds += reading.at.secs_since(closed);
        self.window.counter_mj += energy as f64;
        self.window.power_mj += self.power_mj;
        if self.window.seconds < COMPARISON_SECONDS {
            return false;
        }
        let Comparison {
            counter_mj, power_mj, ..
        } = std::mem::take(&mut self.window);
        (power_mj - counter_mj).abs() > DISAGREEMENT * counter_mj.max(power_mj)
    }

    fn rebase(&mut self, at: Timestamp, counter: u64) {
        self.base = Some((at, counter));
        self.suspect = 0;
        self.credit_mj = 0;
    }

    /// The flaw of the first interval after the GPU was lost.
    fn recovered(&mut self) -> Vec<EnergyFlaw> {
        if std::mem::take(&mut self.lost) {
            vec![EnergyFlaw::GpuLost]
        } else {
            Vec::new()
        }
    }

    fn close(&mut self, end: Timestamp, energy: u64, source: EnergySource, flaws: Vec<EnergyFlaw>) -> GpuEnergy {
        let start = self.closed.replace(end).unwrap_or(end);
        self.power_mj = 0.0;
        if !flaws.is_empty() {
            self.window = Comparison::default();
        }
        GpuEnergy {
            start,
            end,
            energy: MilliJoules(energy),
            source,
            flaws,
        }
    }

    /// A power that no board of this kind can draw is no reading.
    fn plausible(&self, reading: CounterReading) -> CounterReading {
        let most_mw = 1.25e3 * self.limits.most.0;
        CounterReading {
            power_mw: reading.power_mw.filter(|&power| f64::from(power) <= most_mw),
            ..reading
        }
    }
}

/// Trapezoid where both ends are known, the known end where only one is, else nothing; milliwatts times seconds.
fn power_integral_mj(from: &CounterReading, to: &CounterReading) -> f64 {
    let seconds = to.at.secs_since(from.at);
    let unreadable = |reading: &CounterReading| reading.energy_mj.is_none() && reading.power_mw.is_none();
    if unreadable(from) || unreadable(to) {
        return 0.0;
    }
    let mean = match (from.power_mw, to.power_mw) {
        (Some(before), Some(after)) => f64::midpoint(f64::from(before), f64::from(after)),
        (Some(power), None) | (None, Some(power)) => f64::from(power),
        (None, None) => 0.0,
    };
    mean * seconds
}

#[cfg(test)]
mod tests;
