//! What waits to be sent: the latest sample of each engine and GPU, and every interval of energy.
//!
//! Samples are states: a newer one replaces an older. Energy is a sum: intervals are kept until the control plane has
//! acknowledged them. An interval that was sent once is sent again as it was, so that the receiver can recognise it by
//! its start; those never sent are merged into longer ones when the control plane is away for long.

use equipoise_proto::v1::{EnergySample, EnergySource, EngineSample, GpuSample, TelemetryBatch};
use std::collections::{BTreeMap, VecDeque};

/// Never-sent intervals that an instance may have before neighbours are merged.
const FRESH_PER_INSTANCE: usize = 64;
/// Intervals in one batch: with names of 253 characters still far below gRPC's 4 MiB.
const PER_BATCH: usize = 1024;

/// What waits to be sent. Bounded: by the number of instances and GPUs, and by what may be in flight.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    engines: BTreeMap<String, EngineSample>,
    gpus: BTreeMap<String, GpuSample>,
    power_mw: BTreeMap<String, u32>,
    /// Sent once without acknowledgement, oldest first.
    again: VecDeque<EnergySample>,
    fresh: BTreeMap<String, VecDeque<EnergySample>>,
}

impl Outbox {
    pub(crate) fn put_engine(&mut self, sample: EngineSample) {
        self.engines.insert(sample.instance.clone(), sample);
    }

    pub(crate) fn put_gpu(&mut self, sample: GpuSample) {
        self.gpus.insert(sample.uuid.clone(), sample);
    }

    pub(crate) fn put_energy(&mut self, sample: EnergySample) {
        match mean_power_mw(&sample) {
            Some(power_mw) => self.power_mw.insert(sample.instance.clone(), power_mw),
            None => self.power_mw.remove(&sample.instance),
        };
        let waiting = self.fresh.entry(sample.instance.clone()).or_default();
        waiting.push_back(sample);
        if waiting.len() > FRESH_PER_INSTANCE {
            merge_neighbours(waiting);
        }
    }

    /// Takes what waits, as a batch without lease and number.
    pub(crate) fn take(&mut self) -> TelemetryBatch {
        let mut engines: Vec<EngineSample> = std::mem::take(&mut self.engines).into_values().collect();
        for engine in engines.iter_mut().filter(|engine| engine.healthy) {
            engine.power_mw = self.power_mw.get(&engine.instance).copied();
        }
        let mut energy: Vec<EnergySample> = self.again.drain(..self.again.len().min(PER_BATCH)).collect();
        for waiting in self.fresh.values_mut() {
            let room = PER_BATCH - energy.len();
            energy.extend(waiting.drain(..waiting.len().min(room)));
        }
        let gpus = std::mem::take(&mut self.gpus).into_values().collect();
        TelemetryBatch {
            engines,
            gpus,
            energy,
            ..TelemetryBatch::default()
        }
    }

    /// Puts energy back that was sent and not acknowledged, oldest first.
    pub(crate) fn send_again(&mut self, unacknowledged: impl DoubleEndedIterator<Item = EnergySample>) {
        for sample in unacknowledged.rev() {
            self.again.push_front(sample);
        }
    }

    /// True if no energy waits.
    pub(crate) fn is_drained(&self) -> bool {
        self.again.is_empty() && self.fresh.values().all(VecDeque::is_empty)
    }
}

/// Mean draw over the interval; unknown if the measurement has a flaw or the interval no length.
fn mean_power_mw(sample: &EnergySample) -> Option<u32> {
    let span_ns = sample.end_unix_ns.saturating_sub(sample.start_unix_ns);
    if span_ns == 0 || !sample.flaws.is_empty() {
        return None;
    }
    // Millijoules per second are milliwatts.
    u32::try_from(u128::from(sample.measured_mj) * 1_000_000_000 / u128::from(span_ns)).ok()
}

/// Merges each interval with its neighbour: half as many, twice as long, the same sums.
fn merge_neighbours(waiting: &mut VecDeque<EnergySample>) {
    let mut halved = VecDeque::with_capacity(waiting.len() / 2 + 1);
    while let Some(mut first) = waiting.pop_front() {
        if let Some(second) = waiting.pop_front() {
            merge(&mut first, second);
        }
        halved.push_back(first);
    }
    *waiting = halved;
}

fn merge(first: &mut EnergySample, second: EnergySample) {
    first.end_unix_ns = second.end_unix_ns;
    first.measured_mj = first.measured_mj.saturating_add(second.measured_mj);
    first.idle_mj = first.idle_mj.saturating_add(second.idle_mj);
    // Partly integrated from power is not the counter's figure.
    if first.source != second.source {
        first.set_source(EnergySource::Power);
    }
    for flaw in second.flaws {
        if !first.flaws.contains(&flaw) {
            first.flaws.push(flaw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_proto::v1::EnergyFlaw;

    fn interval(instance: &str, start: u64, mj: u64) -> EnergySample {
        let second = 1_000_000_000;
        EnergySample {
            instance: instance.to_owned(),
            start_unix_ns: start * second,
            end_unix_ns: (start + 1) * second,
            measured_mj: mj,
            idle_mj: mj / 2,
            source: EnergySource::Counter.into(),
            flaws: Vec::new(),
        }
    }

    #[test]
    fn a_long_absence_merges_intervals_and_loses_nothing() {
        let mut outbox = Outbox::default();
        let count: u64 = 100_000;
        for start in 0..count {
            let mut sample = interval("a", start, start);
            if start == 77 {
                sample.set_source(EnergySource::Power);
                sample.flaws = vec![EnergyFlaw::CounterReset.into(), EnergyFlaw::GpuLost.into()];
            }
            outbox.put_energy(sample);
            if start % 10 == 0 {
                outbox.put_energy(interval("b", start, 1));
            }
        }
        let energy = outbox.take().energy;
        assert!(energy.len() <= 2 * FRESH_PER_INSTANCE, "{}", energy.len());
        let of_a: Vec<_> = energy.iter().filter(|sample| sample.instance == "a").collect();
        assert_eq!(
            of_a.iter().map(|sample| sample.measured_mj).sum::<u64>(),
            count * (count - 1) / 2
        );
        assert_eq!(
            of_a.iter().map(|sample| sample.idle_mj).sum::<u64>(),
            (0..count).map(|mj| mj / 2).sum::<u64>()
        );
        assert!(of_a.windows(2).all(|pair| pair[0].end_unix_ns == pair[1].start_unix_ns));
        assert_eq!(of_a.iter().filter(|sample| sample.flaws.len() == 2).count(), 1);
        assert!(of_a.iter().any(|sample| sample.source() == EnergySource::Power));
        assert!(outbox.is_drained());
    }

    #[test]
    fn what_was_sent_is_sent_again_as_it_was_and_first() {
        let mut outbox = Outbox::default();
        outbox.put_energy(interval("a", 1, 10));
        outbox.put_energy(interval("a", 2, 20));
        let sent = outbox.take().energy;
        outbox.put_energy(interval("a", 3, 30));
        outbox.send_again(sent.clone().into_iter());
        assert!(!outbox.is_drained());
        let energy = outbox.take().energy;
        assert_eq!(energy[..2], sent);
        assert_eq!(energy[2], interval("a", 3, 30));
    }

    #[test]
    fn a_batch_is_bounded_and_the_rest_follows() {
        let mut outbox = Outbox::default();
        outbox.send_again((0..1500).map(|start| interval("a", start, 1)));
        outbox.put_energy(interval("a", 1500, 1));
        let (first, second) = (outbox.take().energy, outbox.take().energy);
        assert_eq!((first.len(), second.len()), (PER_BATCH, 1501 - PER_BATCH));
        assert_eq!(second[second.len() - 1].start_unix_ns, 1500 * 1_000_000_000);
    }

    #[test]
    fn states_are_replaced_and_carry_the_mean_draw() {
        let mut outbox = Outbox::default();
        outbox.put_energy(interval("a", 1, 300_000));
        for running in [1, 2] {
            outbox.put_engine(EngineSample {
                instance: "a".to_owned(),
                healthy: true,
                running,
                ..EngineSample::default()
            });
        }
        let batch = outbox.take();
        assert_eq!(batch.engines.len(), 1);
        assert_eq!(
            (batch.engines[0].running, batch.engines[0].power_mw),
            (2, Some(300_000))
        );
        assert_eq!(outbox.take(), TelemetryBatch::default());
        let mut flawed = interval("a", 2, 1);
        flawed.flaws.push(EnergyFlaw::GpuLost.into());
        outbox.put_energy(flawed);
        outbox.put_engine(EngineSample {
            instance: "a".to_owned(),
            healthy: true,
            ..EngineSample::default()
        });
        assert_eq!(outbox.take().engines[0].power_mw, None);
    }
}
