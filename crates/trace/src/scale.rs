//! More or fewer requests out of a workload, with its pattern in time.

use equipoise_types::{RandomStream, Timestamp};

use crate::order::Window;
use crate::{GeneratorError, TraceError, WorkloadRecord};

/// How a workload is scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// All times are multiplied: the same requests, at 1/factor of the rate, bursts drawn out as everything else.
    Time {
        /// 0.001 to 1000.
        factor: f64,
    },
    /// The rate is multiplied and time is kept: below 1, each request stays with this probability; above, each comes
    /// `factor` times (a fraction by chance). Bursts stay where they are and as long as they are.
    Rate {
        /// 0.000001 to 1000.
        factor: f64,
        /// Copies arrive within so many seconds after their original, uniformly; bursts that are longer are kept.
        spread_s: f64,
    },
}

/// Copies of one request that wait for their turn, in all, at most.
const MOST_WAITING: usize = 4_000_000;

/// Scales a workload request by request.
///
/// A copy's prefix blocks are another copy's blocks renamed: copies share prefixes with copies of the same number, as
/// the originals do with one another, and are no cheaper to cache than those.
#[derive(Debug)]
pub struct Scaled<I> {
    requests: Option<I>,
    scaling: Scaling,
    stream: RandomStream,
    window: Window,
    /// All requests that arrive before this have been read.
    reached: Timestamp,
    overfull: bool,
}

impl<I: Iterator<Item = Result<WorkloadRecord, TraceError>>> Scaled<I> {
    /// Scales `requests`, which come by arrival.
    ///
    /// # Errors
    /// A factor or spread out of range.
    pub fn new(requests: I, scaling: Scaling, seed: u64) -> Result<Self, GeneratorError> {
        let (what, value, least, most) = match scaling {
            Scaling::Time { factor } => ("the time factor", factor, 1e-3, 1e3),
            Scaling::Rate { factor, spread_s } => {
                if !(0.0..=1e6).contains(&spread_s) {
                    return Err(GeneratorError::NotInRange {
                        what: "the spread of copies in seconds",
                        value: spread_s,
                        least: 0.0,
                        most: 1e6,
                    });
                }
                ("the rate factor", factor, 1e-6, 1e3)
            }
        };
        if !(least..=most).contains(&value) {
            return Err(GeneratorError::NotInRange {
                what,
                value,
                least,
                most,
            });
        }
        Ok(Self {
            requests: Some(requests),
            scaling,
            stream: RandomStream::new(seed).derive("scale"),
            window: Window::default(),
            reached: Timestamp::ZERO,
            overfull: false,
        })
    }

    fn take(&mut self, mut record: WorkloadRecord) {
        match self.scaling {
            Scaling::Time { factor } => {
                record.arrival = Timestamp::from_secs_f64(record.arrival.as_secs_f64() * factor);
                self.hold(record);
            }
            Scaling::Rate { factor, spread_s } => {
                let copies = factor.floor() as u64 + u64::from(self.stream.uniform() < factor.fract());
                for copy in 0..copies {
                    let mut record = record.clone();
                    if copy > 0 {
                        let later_s = spread_s * self.stream.uniform();
                        record.arrival = Timestamp(record.arrival.0 + Timestamp::from_secs_f64(later_s).0);
                        for block in record.prefix_blocks.iter_mut().flatten() {
                            *block = renamed(*block, copy);
                        }
                    }
                    self.hold(record);
                }
            }
        }
    }

    fn hold(&mut self, record: WorkloadRecord) {
        // What comes by arrival is never too late, only too much.
        self.overfull |= self.window.push(record).is_err() || self.window.len() > MOST_WAITING;
    }
}

/// Another id for a copy's block, the same for all copies of that number.
fn renamed(block: u64, copy: u64) -> u64 {
    block.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ copy.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

impl<I: Iterator<Item = Result<WorkloadRecord, TraceError>>> Iterator for Scaled<I> {
    type Item = Result<WorkloadRecord, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Copies come after their originals: nothing that is still to be read can be earlier than `reached`.
            if self.requests.is_none() || self.window.earliest().is_some_and(|earliest| earliest < self.reached) {
                return self.window.pop().map(Ok);
            }
            match self.requests.as_mut()?.next() {
                Some(Ok(record)) => {
                    let at = record.arrival;
                    self.take(record);
                    self.reached = match self.scaling {
                        Scaling::Time { factor } => Timestamp::from_secs_f64(at.as_secs_f64() * factor),
                        Scaling::Rate { .. } => at,
                    };
                    if self.overfull {
                        self.requests = None;
                        self.window = Window::default();
                        return Some(Err(TraceError::TooManyCopies { most: MOST_WAITING }));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => self.requests = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arrivals, LengthSource, Synthesis, WorkloadGenerator, WorkloadStatistics, WorkloadSummary};

    fn bursty() -> Vec<WorkloadRecord> {
        let WorkloadGenerator { prompt, output, .. } = WorkloadGenerator::default();
        let synthesis = Synthesis {
            arrivals: Arrivals::Square {
                swing: 0.9,
                period_s: 200.0,
            },
            rate_per_s: 10.0,
            lengths: LengthSource::LogNormal { prompt, output },
            requests: Some(40_000),
            duration_s: None,
            seed: 2,
        };
        let records = synthesis
            .requests()
            .expect("in range")
            .map(|record| record.expect("soon"));
        let shared = records.enumerate().map(|(index, record)| WorkloadRecord {
            prefix_blocks: Some(vec![(index % 1000) as u64, index as u64]),
            ..record
        });
        shared.collect()
    }

    fn scaled(records: &[WorkloadRecord], scaling: Scaling) -> Vec<WorkloadRecord> {
        let requests = records.iter().cloned().map(Ok);
        let scaled = Scaled::new(requests, scaling, 5).expect("in range");
        scaled.map(|record| record.expect("no error in it")).collect()
    }

    fn summary(records: &[WorkloadRecord]) -> WorkloadSummary {
        let mut statistics = WorkloadStatistics::default();
        for record in records {
            statistics.observe(record);
        }
        statistics.summary()
    }

    #[test]
    fn a_rate_is_multiplied_and_bursts_stay_where_they_are() {
        let original = bursty();
        let share_in_high_half = |records: &[WorkloadRecord]| {
            let high = records
                .iter()
                .filter(|record| record.arrival.as_secs_f64().rem_euclid(200.0) < 100.0);
            high.count() as f64 / records.len() as f64
        };
        let before = summary(&original);
        for factor in [0.3, 1.0, 2.5] {
            let records = scaled(&original, Scaling::Rate { factor, spread_s: 1.0 });
            assert!(records.windows(2).all(|pair| pair[0].arrival <= pair[1].arrival));
            let after = summary(&records);
            let rate = after.rate_per_s.expect("a rate") / before.rate_per_s.expect("a rate");
            assert!((rate / factor - 1.0).abs() < 0.03, "{factor}: {rate}");
            assert!((after.span_s / before.span_s - 1.0).abs() < 0.01);
            assert!((share_in_high_half(&records) - share_in_high_half(&original)).abs() < 0.01);
            if factor >= 1.0 {
                let reuse = after.prefix.expect("blocks").reuse_share;
                assert!(
                    (reuse - before.prefix.expect("blocks").reuse_share).abs() < 0.02,
                    "{factor}: {reuse}"
                );
            }
        }
        assert_eq!(
            scaled(
                &original,
                Scaling::Rate {
                    factor: 1.0,
                    spread_s: 1.0
                }
            ),
            original
        );
    }

    #[test]
    fn time_is_drawn_out_and_nothing_else_changes() {
        let original = bursty();
        let records = scaled(&original, Scaling::Time { factor: 2.0 });
        let (before, after) = (summary(&original), summary(&records));
        assert!((2.0 * after.rate_per_s.expect("a rate") / before.rate_per_s.expect("a rate") - 1.0).abs() < 1e-6);
        assert!((after.gap_cv.expect("gaps") - before.gap_cv.expect("gaps")).abs() < 1e-6);
        assert_eq!(after.prompt_tokens, before.prompt_tokens);
    }

    #[test]
    fn factors_out_of_range_are_refused() {
        for scaling in [
            Scaling::Time { factor: 0.0 },
            Scaling::Rate {
                factor: f64::NAN,
                spread_s: 1.0,
            },
            Scaling::Rate {
                factor: 2.0,
                spread_s: -1.0,
            },
        ] {
            let none = std::iter::empty::<Result<WorkloadRecord, TraceError>>();
            assert!(Scaled::new(none, scaling, 0).is_err(), "{scaling:?}");
        }
    }
}
