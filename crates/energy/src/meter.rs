//! The energy of one instance: the sum over its GPUs.

use crate::counter::{CounterIntegrator, CounterReading, MeterLimits};
use crate::interval::IntervalEnergy;
use crate::source::{EnergyFlaw, EnergySource};
use equipoise_types::{Joules, MilliJoules, Timestamp};

/// Sums the energies of an instance's GPUs into intervals that follow one another.
#[derive(Clone, Debug)]
pub struct InstanceMeter {
    gpus: Vec<CounterIntegrator>,
    idle_watts: f64,
    start: Option<Timestamp>,
    energy: MilliJoules,
    source: EnergySource,
    flaws: Vec<EnergyFlaw>,
}

impl InstanceMeter {
    /// A meter for an instance with one GPU for each of `gpus`.
    #[must_use]
    pub fn new(gpus: &[MeterLimits]) -> Self {
        Self {
            gpus: gpus.iter().copied().map(CounterIntegrator::new).collect(),
            idle_watts: gpus.iter().map(|limits| limits.idle.0).sum(),
            start: None,
            energy: MilliJoules::ZERO,
            source: EnergySource::Counter,
            flaws: Vec::new(),
        }
    }

    /// Takes a reading of the instance's GPU number `gpu`; a number that it does not have is ignored.
    pub fn observe(&mut self, gpu: usize, reading: CounterReading) {
        let Some(integrator) = self.gpus.get_mut(gpu) else {
            return;
        };
        self.start.get_or_insert(reading.at);
        if let Some(energy) = integrator.observe(reading) {
            self.energy += energy.energy;
            self.source = self.source.max(energy.source);
            for flaw in energy.flaws {
                if !self.flaws.contains(&flaw) {
                    self.flaws.push(flaw);
                }
            }
        }
    }

    /// Closes the interval that ends at `now`. `None` before the first reading or without time in between. Energy of a GPU
    /// whose interval is still open is in the next one; the weakest source among the GPUs is named.
    pub fn take(&mut self, now: Timestamp) -> Option<IntervalEnergy> {
        let start = self.start.filter(|&start| start < now)?;
        self.start = Some(now);
        let measured = std::mem::take(&mut self.energy);
        let idle = Joules(self.idle_watts * now.secs_since(start))
            .to_millijoules()
            .min(measured);
        let source = std::mem::replace(&mut self.source, EnergySource::Counter);
        let mut flaws = std::mem::take(&mut self.flaws);
        flaws.sort_unstable();
        Some(IntervalEnergy {
            start,
            end: now,
            measured,
            idle,
            source,
            flaws,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::Watts;

    #[test]
    fn the_gpus_are_summed_and_the_weakest_source_is_named() {
        let mut meter = InstanceMeter::new(&[MeterLimits::new(Watts(50.0), Watts(400.0)); 2]);
        let at = Timestamp::from_secs_f64;
        assert_eq!(meter.take(at(0.0)), None);
        for (second, counter) in [(0.0, 0), (1.0, 150_000)] {
            meter.observe(
                0,
                CounterReading {
                    at: at(second),
                    energy_mj: Some(counter),
                    power_mw: None,
                },
            );
            meter.observe(
                1,
                CounterReading {
                    at: at(second),
                    energy_mj: None,
                    power_mw: Some(100_000),
                },
            );
            meter.observe(
                7,
                CounterReading {
                    at: at(second),
                    energy_mj: None,
                    power_mw: Some(100_000),
                },
            );
        }
        let interval = meter.take(at(1.0)).expect("a second has passed");
        assert_eq!((interval.measured.0, interval.idle.0), (250_000, 100_000));
        assert_eq!(interval.source, EnergySource::Power);
        meter.observe(
            0,
            CounterReading {
                at: at(2.0),
                energy_mj: Some(180_000),
                power_mw: None,
            },
        );
        let interval = meter.take(at(2.0)).expect("a second has passed");
        assert_eq!(
            (interval.measured.0, interval.idle.0, interval.source),
            (30_000, 30_000, EnergySource::Counter)
        );
        assert_eq!(meter.take(at(2.0)), None);
    }
}
