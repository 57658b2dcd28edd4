//! Samples that come late, or never.

use std::collections::VecDeque;
use std::time::Duration;

use equipoise_fleet::EngineSample;
use equipoise_types::{RandomStream, Timestamp};

/// How each instance's samples fare.
#[derive(Debug)]
pub(super) struct TelemetryFaults {
    /// By instance.
    lines: Vec<Line>,
    random: RandomStream,
}

#[derive(Debug, Default)]
struct Line {
    delay_s: f64,
    lost_share: f64,
    /// Taken, and not there yet: when each is due.
    held: VecDeque<(Timestamp, EngineSample)>,
}

impl Default for TelemetryFaults {
    fn default() -> Self {
        Self::new(0, RandomStream::new(0))
    }
}

impl TelemetryFaults {
    pub(super) fn new(instances: usize, random: RandomStream) -> Self {
        let mut lines = Vec::new();
        lines.resize_with(instances, Line::default);
        Self { lines, random }
    }

    pub(super) fn delay(&mut self, instances: &[usize], delay_s: f64) {
        for instance in instances {
            self.lines[*instance].delay_s = delay_s;
        }
    }

    pub(super) fn lose(&mut self, instances: &[usize], share: f64) {
        for instance in instances {
            self.lines[*instance].lost_share = share;
        }
    }

    /// What comes through of the samples that were taken now: the last one that is due, by instance.
    pub(super) fn pass(&mut self, now: Timestamp, samples: Vec<Option<EngineSample>>) -> Vec<Option<EngineSample>> {
        let Self { lines, random } = self;
        let pass = |(line, sample): (&mut Line, Option<EngineSample>)| {
            let lost = line.lost_share > 0.0 && random.uniform() < line.lost_share;
            let sample = sample.filter(|_| !lost);
            if line.delay_s > 0.0 {
                if let Some(mut sample) = sample {
                    sample.age_s += line.delay_s;
                    let due = now + Duration::try_from_secs_f64(line.delay_s).unwrap_or_default();
                    line.held.push_back((due, sample));
                }
            } else if sample.is_some() {
                // Nothing older says anything any more.
                line.held.clear();
                return sample;
            }
            let mut last = None;
            while line.held.front().is_some_and(|(due, _)| *due <= now) {
                last = line.held.pop_front();
            }
            // It was due between two rounds, and is a little older than planned.
            last.map(|(due, mut sample)| {
                sample.age_s += now.secs_since(due);
                sample
            })
        };
        lines.iter_mut().zip(samples).map(pass).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_says_how_late_and_what_is_lost_is_gone() {
        let mut faults = TelemetryFaults::new(2, RandomStream::new(1));
        let sample = |running| {
            Some(EngineSample {
                healthy: true,
                running,
                waiting: 0,
                kv_usage: 0.0,
                power: None,
                age_s: 0.001,
            })
        };
        let at = |step: u32, faults: &mut TelemetryFaults| {
            let passed = faults.pass(
                Timestamp::from_secs_f64(f64::from(step)),
                vec![sample(step), sample(step)],
            );
            passed
                .into_iter()
                .map(|sample| sample.map(|sample| (sample.running, sample.age_s)))
                .collect::<Vec<_>>()
        };
        assert_eq!(at(0, &mut faults), [Some((0, 0.001)), Some((0, 0.001))]);
        faults.delay(&[0], 1.5);
        faults.lose(&[1], 1.0);
        assert_eq!(at(1, &mut faults), [None, None]);
        assert_eq!(at(2, &mut faults), [None, None]);
        assert_eq!(at(3, &mut faults), [Some((1, 2.001)), None]);
        faults.delay(&[0], 0.0);
        faults.lose(&[1], 0.0);
        assert_eq!(at(4, &mut faults), [Some((4, 0.001)), Some((4, 0.001))]);
    }
}
