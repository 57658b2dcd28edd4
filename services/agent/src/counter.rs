//! The emulator's energy counters as intervals.

use equipoise_proto::v1::{EnergyFlaw, EnergySample, EnergySource};
use equipoise_types::{MilliJoules, Timestamp};

/// Turns the readings of an emulated engine's counters into intervals whose sums are the counters' differences.
#[derive(Debug)]
pub(crate) struct ModelledCounter {
    instance: String,
    last: Option<(Timestamp, MilliJoules, MilliJoules)>,
}

impl ModelledCounter {
    pub(crate) fn new(instance: String) -> Self {
        Self { instance, last: None }
    }

    /// The interval since the previous reading, if there was one.
    ///
    /// A counter that went back belongs to an emulator that was started anew: what it shows was used since then, what
    /// the old one used after its last reading is unknown, and the interval is flagged.
    pub(crate) fn observe(&mut self, at: Timestamp, energy: MilliJoules, idle: MilliJoules) -> Option<EnergySample> {
        let (start, old_energy, old_idle) = self.last.replace((at, energy, idle))?;
        let restarted = energy < old_energy;
        let (measured, idle) = if restarted {
            (energy, idle)
        } else {
            (energy.saturating_sub(old_energy), idle.saturating_sub(old_idle))
        };
        Some(EnergySample {
            instance: self.instance.clone(),
            start_unix_ns: start.0,
            end_unix_ns: at.0,
            measured_mj: measured.0,
            idle_mj: idle.min(measured).0,
            source: EnergySource::Modelled.into(),
            flaws: if restarted {
                vec![EnergyFlaw::CounterReset.into()]
            } else {
                Vec::new()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_sum_to_the_counters_difference() {
        let mut counter = ModelledCounter::new("a".to_owned());
        assert_eq!(counter.observe(Timestamp(1), MilliJoules(100), MilliJoules(40)), None);
        let first = counter
            .observe(Timestamp(2), MilliJoules(150), MilliJoules(60))
            .expect("an interval");
        assert_eq!(
            (first.start_unix_ns, first.end_unix_ns, first.measured_mj, first.idle_mj),
            (1, 2, 50, 20)
        );
        assert_eq!(first.source(), EnergySource::Modelled);
        let restarted = counter
            .observe(Timestamp(3), MilliJoules(30), MilliJoules(10))
            .expect("an interval");
        assert_eq!((restarted.measured_mj, restarted.idle_mj), (30, 10));
        assert_eq!(restarted.flaws, [i32::from(EnergyFlaw::CounterReset)]);
        let next = counter
            .observe(Timestamp(4), MilliJoules(31), MilliJoules(90))
            .expect("an interval");
        assert_eq!(
            (next.measured_mj, next.idle_mj),
            (1, 1),
            "idle is at most what was measured"
        );
    }
}
