//! Generated workloads of any length: arrivals that are steady, bursty or follow the day, and lengths, from one seed.

use std::sync::Arc;

use equipoise_types::{RandomStream, Timestamp};

use crate::distribution::{gamma, weibull, weibull_mean, weibull_shape};
use crate::{GeneratorError, Lengths, TraceError, WorkloadRecord};

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Independent of one another: exponential gaps, coefficient of variation 1.
    Poisson,
    /// Gaps of a Gamma distribution: bursty where the coefficient of variation is above 1, regular below.
    Gamma {
        /// Standard deviation of the gaps over their mean, 0.01 to 100.
        cv: f64,
    },
    /// Gaps of a Weibull distribution.
    Weibull {
        /// Standard deviation of the gaps over their mean, 0.02 to 100.
        cv: f64,
    },
    /// Poisson with a rate that is high for half of each period and low for the other: `rate · (1 ± swing)`.
    Square {
        /// 0: steady; 1: nothing in the low half.
        swing: f64,
        /// Seconds from one rise to the next.
        period_s: f64,
    },
    /// Poisson with a rate that follows a sine, from its lowest point: `rate · (1 − swing · cos(2π t / period))`.
    Diurnal {
        /// 0: steady; 1: nothing at the lowest point.
        swing: f64,
        /// Seconds from one lowest point to the next.
        period_s: f64,
    },
}

/// How long prompts and answers are.
#[derive(Clone, Debug, PartialEq)]
pub enum LengthSource {
    /// Log-normal, each apart.
    LogNormal {
        /// Prompt lengths.
        prompt: Lengths,
        /// Answer lengths.
        output: Lengths,
    },
    /// Pairs of prompt and answer length that occurred together, each as likely as any; see [`sample_lengths`].
    Empirical(Arc<[(u32, u32)]>),
}

/// A workload to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthesis {
    /// How requests come.
    pub arrivals: Arrivals,
    /// Mean requests per second.
    pub rate_per_s: f64,
    /// How long they are.
    pub lengths: LengthSource,
    /// So many at most.
    pub requests: Option<u64>,
    /// None later than this, seconds.
    pub duration_s: Option<f64>,
    /// Same seed, same workload. Arrivals and lengths are drawn apart: other arrivals keep the lengths.
    pub seed: u64,
}

fn within(what: &'static str, value: f64, least: f64, most: f64) -> Result<(), GeneratorError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(GeneratorError::NotInRange {
            what,
            value,
            least,
            most,
        })
    }
}

impl Arrivals {
    fn check(self) -> Result<(), GeneratorError> {
        match self {
            Self::Poisson => Ok(()),
            Self::Gamma { cv } => within("the coefficient of variation", cv, 0.01, 100.0),
            Self::Weibull { cv } => within("the coefficient of variation", cv, 0.02, 100.0),
            Self::Square { swing, period_s } | Self::Diurnal { swing, period_s } => {
                within("the swing", swing, 0.0, 1.0)?;
                within("the period in seconds", period_s, 1e-3, 1e9)
            }
        }
    }
}

impl Synthesis {
    /// Requests per second at most.
    const MOST_RATE_PER_S: f64 = 1e6;

    /// Begins the workload. It ends after the first of `requests` and `duration_s`, one of which must be given.
    ///
    /// # Errors
    /// A parameter out of range, no end, or no lengths to draw from. Items are errors where requests come so seldom that
    /// the next one is more than a century away.
    pub fn requests(&self) -> Result<SyntheticRequests, GeneratorError> {
        within(
            "the rate in requests per second",
            self.rate_per_s,
            1e-9,
            Self::MOST_RATE_PER_S,
        )?;
        self.arrivals.check()?;
        if let Some(duration_s) = self.duration_s {
            within("the duration in seconds", duration_s, 1e-9, CENTURY_S)?;
        }
        if self.requests.is_none() && self.duration_s.is_none() {
            return Err(GeneratorError::Endless);
        }
        if matches!(&self.lengths, LengthSource::Empirical(pairs) if pairs.is_empty()) {
            return Err(GeneratorError::NoLengths);
        }
        Ok(self.begin())
    }

    /// The same without checks. A rate that is not positive makes all Poisson arrivals come at once.
    pub(crate) fn begin(&self) -> SyntheticRequests {
        let parent = RandomStream::new(self.seed);
        SyntheticRequests {
            gaps: Gaps::new(self.arrivals, self.rate_per_s),
            rate_per_s: self.rate_per_s,
            arrivals: parent.derive("arrivals"),
            prompts: parent.derive("prompt lengths"),
            outputs: parent.derive("output lengths"),
            lengths: self.lengths.clone(),
            at_s: 0.0,
            made: 0,
            most: self.requests.unwrap_or(u64::MAX),
            until_s: self.duration_s.unwrap_or(f64::INFINITY),
        }
    }
}

const CENTURY_S: f64 = 100.0 * 365.25 * 86_400.0;

/// How the time of the next arrival follows from the last one, with what does not change worked out.
#[derive(Clone, Copy, Debug)]
enum Gaps {
    Exponential { mean_s: f64 },
    Gamma { shape: f64, scale_s: f64 },
    Weibull { shape: f64, scale_s: f64 },
    Thinned { wave: Arrivals, peak_gap_s: f64 },
}

impl Gaps {
    fn new(arrivals: Arrivals, rate_per_s: f64) -> Self {
        let mean_s = if rate_per_s > 0.0 { 1.0 / rate_per_s } else { 0.0 };
        match arrivals {
            Arrivals::Poisson => Self::Exponential { mean_s },
            Arrivals::Gamma { cv } => {
                // Mean shape · scale, squared coefficient of variation 1 / shape.
                let shape = 1.0 / (cv * cv);
                Self::Gamma {
                    shape,
                    scale_s: mean_s / shape,
                }
            }
            Arrivals::Weibull { cv } => {
                let shape = weibull_shape(cv);
                Self::Weibull {
                    shape,
                    scale_s: mean_s / weibull_mean(shape),
                }
            }
            Arrivals::Square { swing, .. } | Arrivals::Diurnal { swing, .. } => Self::Thinned {
                wave: arrivals,
                peak_gap_s: mean_s / (1.0 + swing),
            },
        }
    }

    fn next(self, at_s: f64, stream: &mut RandomStream) -> f64 {
        match self {
            Self::Exponential { mean_s } => at_s + stream.exponential(mean_s),
            Self::Gamma { shape, scale_s } => at_s + scale_s * gamma(stream, shape),
            Self::Weibull { shape, scale_s } => at_s + scale_s * weibull(stream, shape),
            Self::Thinned { wave, peak_gap_s } => {
                // Lewis and Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", 1979.
                let mut at_s = at_s;
                loop {
                    at_s += stream.exponential(peak_gap_s);
                    if at_s > CENTURY_S || stream.uniform() < share_of_peak(wave, at_s) {
                        return at_s;
                    }
                }
            }
        }
    }
}

/// The rate at a time over the highest one.
fn share_of_peak(wave: Arrivals, at_s: f64) -> f64 {
    match wave {
        Arrivals::Square { swing, period_s } => {
            if at_s.rem_euclid(period_s) < 0.5 * period_s {
                1.0
            } else {
                (1.0 - swing) / (1.0 + swing)
            }
        }
        Arrivals::Diurnal { swing, period_s } => {
            let phase = std::f64::consts::TAU * (at_s / period_s).fract();
            (1.0 - swing * phase.cos()) / (1.0 + swing)
        }
        Arrivals::Poisson | Arrivals::Gamma { .. } | Arrivals::Weibull { .. } => 1.0,
    }
}

/// The requests of a generated workload, by arrival, one at a time.
#[derive(Clone, Debug)]
pub struct SyntheticRequests {
    gaps: Gaps,
    rate_per_s: f64,
    arrivals: RandomStream,
    prompts: RandomStream,
    outputs: RandomStream,
    lengths: LengthSource,
    at_s: f64,
    made: u64,
    most: u64,
    until_s: f64,
}

impl Iterator for SyntheticRequests {
    type Item = Result<WorkloadRecord, GeneratorError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.made == self.most {
            return None;
        }
        self.at_s = self.gaps.next(self.at_s, &mut self.arrivals);
        if self.at_s > self.until_s {
            self.most = self.made;
            return None;
        }
        if self.at_s > CENTURY_S {
            self.most = self.made;
            return Some(Err(GeneratorError::TooSlow {
                rate_per_s: self.rate_per_s,
                index: self.made as usize,
            }));
        }
        self.made += 1;
        let (prompt_tokens, output_tokens) = match &self.lengths {
            LengthSource::LogNormal { prompt, output } => {
                (prompt.draw(&mut self.prompts), output.draw(&mut self.outputs))
            }
            LengthSource::Empirical(pairs) => pairs[self.prompts.below(pairs.len())],
        };
        Some(Ok(WorkloadRecord {
            arrival: Timestamp::from_secs_f64(self.at_s),
            prompt_tokens,
            output_tokens,
            ..WorkloadRecord::default()
        }))
    }
}

/// Prompt and answer lengths of a workload to draw from: all pairs, or a fair sample of `most` if there are more
/// (Vitter's algorithm R, ACM TOMS 11(1), 1985).
///
/// # Errors
/// As `records` has them; no request in it is an empty sample.
pub fn sample_lengths(
    records: impl IntoIterator<Item = Result<WorkloadRecord, TraceError>>,
    most: usize,
    seed: u64,
) -> Result<Vec<(u32, u32)>, TraceError> {
    let mut stream = RandomStream::new(seed).derive("sample of lengths");
    let mut sample = Vec::new();
    for (index, record) in records.into_iter().enumerate() {
        let record = record?;
        let pair = (record.prompt_tokens, record.output_tokens);
        if sample.len() < most {
            sample.push(pair);
        } else if let Some(kept) = sample.get_mut(stream.below(index + 1)) {
            *kept = pair;
        }
    }
    Ok(sample)
}

#[cfg(test)]
mod tests;
