//! Synthetic workloads: Poisson arrivals, log-normal lengths, one seed.

use equipoise_types::RandomStream;

use crate::{Arrivals, LengthSource, Synthesis, Workload};

/// A log-normal distribution of lengths, tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// Mean, before it is cut at `most`.
    pub mean: f64,
    /// Standard deviation of the logarithm; zero: every length is the mean.
    pub sigma: f64,
    /// Longer ones are cut to this.
    pub most: u32,
}

impl Lengths {
    pub(crate) fn draw(&self, stream: &mut RandomStream) -> u32 {
        // Mean of a log-normal: median * exp(sigma^2 / 2).
        let median = self.mean * (-0.5 * self.sigma * self.sigma).exp();
        (stream.log_normal(median, self.sigma).round() as u32).clamp(1, self.most.max(1))
    }
}

/// Makes workloads. The defaults have the means and standard deviations of Azure's conversation trace of 2023 (19,366
/// requests in an hour; 1,155 ± 1,109 prompt and 211 ± 163 output tokens).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkloadGenerator {
    /// How many requests.
    pub requests: usize,
    /// Mean arrivals per second.
    pub rate_per_s: f64,
    /// Prompt lengths.
    pub prompt: Lengths,
    /// Answer lengths.
    pub output: Lengths,
    /// Same seed, same workload. Arrivals and lengths are drawn apart: another rate keeps the lengths.
    pub seed: u64,
}

impl Default for WorkloadGenerator {
    fn default() -> Self {
        Self {
            requests: 1000,
            rate_per_s: 5.5,
            prompt: Lengths {
                mean: 1155.0,
                sigma: 0.81,
                most: 14_050,
            },
            output: Lengths {
                mean: 211.0,
                sigma: 0.68,
                most: 1000,
            },
            seed: 1,
        }
    }
}

/// Why a workload is not made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GeneratorError {
    /// It would not fit into memory.
    #[error(
        "{requests} requests are too many to generate: ask for at most {}",
        WorkloadGenerator::MOST_REQUESTS
    )]
    TooManyRequests {
        /// As asked for.
        requests: usize,
    },
    /// It would last longer than any trace may.
    #[error("at {rate_per_s} requests per second, request {index} arrives after more than a century: raise the rate")]
    TooSlow {
        /// As asked for.
        rate_per_s: f64,
        /// Which one, from 0.
        index: usize,
    },
    /// A parameter makes no sense.
    #[error("{what} is {value}; it must be from {least} to {most}")]
    NotInRange {
        /// Which one, with its unit.
        what: &'static str,
        /// As asked for.
        value: f64,
        /// At least.
        least: f64,
        /// At most.
        most: f64,
    },
    /// Neither a number of requests nor a duration.
    #[error("a workload without end: say how many requests, or how long")]
    Endless,
    /// There are no lengths to draw from.
    #[error("there are no lengths to draw from: the trace that they should come from is empty")]
    NoLengths,
    /// Clients were not recorded at that time.
    #[error("the clients were recorded from 0 to {recorded_s} s; {start_s} to {end_s} s is not within")]
    OutsideRecording {
        /// Begin of what is asked for.
        start_s: f64,
        /// Its end.
        end_s: f64,
        /// End of the recording.
        recorded_s: f64,
    },
    /// Nobody sent anything at that time.
    #[error("no client sends anything from {start_s} to {end_s} s")]
    NobodySends {
        /// Begin of what is asked for.
        start_s: f64,
        /// Its end.
        end_s: f64,
    },
}

impl WorkloadGenerator {
    /// Requests of one workload at most: three weeks at the default rate, and about a gigabyte in a simulation.
    pub const MOST_REQUESTS: usize = 10_000_000;

    /// Makes the workload. A rate that is not positive makes all requests arrive at once.
    ///
    /// # Errors
    /// When more than [`Self::MOST_REQUESTS`] are asked for, before anything is made; or when they come so seldom that the
    /// workload would last longer than a century.
    pub fn generate(&self) -> Result<Workload, GeneratorError> {
        if self.requests > Self::MOST_REQUESTS {
            return Err(GeneratorError::TooManyRequests {
                requests: self.requests,
            });
        }
        let synthesis = Synthesis {
            arrivals: Arrivals::Poisson,
            rate_per_s: self.rate_per_s,
            lengths: LengthSource::LogNormal {
                prompt: self.prompt,
                output: self.output,
            },
            requests: Some(self.requests as u64),
            duration_s: None,
            seed: self.seed,
        };
        let records = synthesis.begin().collect::<Result<_, _>>()?;
        Ok(Workload {
            records,
            notes: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkloadRecord;

    #[test]
    fn means_are_as_asked_for() {
        let generator = WorkloadGenerator {
            requests: 20_000,
            ..WorkloadGenerator::default()
        };
        let workload = generator.generate().expect("a workload");
        let mean = |length: fn(&WorkloadRecord) -> u32| {
            workload
                .records
                .iter()
                .map(|record| f64::from(length(record)))
                .sum::<f64>()
                / 20_000.0
        };
        assert!((mean(|record| record.prompt_tokens) / 1155.0 - 1.0).abs() < 0.03);
        assert!((mean(|record| record.output_tokens) / 211.0 - 1.0).abs() < 0.03);
        assert!((workload.rate_per_s().expect("a rate") / 5.5 - 1.0).abs() < 0.03);
    }

    #[test]
    fn what_would_never_end_is_not_begun() {
        let ask = |requests, rate_per_s| {
            let generator = WorkloadGenerator {
                requests,
                rate_per_s,
                ..WorkloadGenerator::default()
            };
            generator.generate().map(|workload| workload.records.len())
        };
        let error = |requests, rate_per_s| ask(requests, rate_per_s).expect_err("nonsense").to_string();
        assert_eq!(
            error(99_999_999_999, 5.0),
            "99999999999 requests are too many to generate: ask for at most 10000000"
        );
        assert!(error(usize::MAX, 5.0).contains("ask for at most"));
        assert_eq!(
            error(3, 1e-15),
            "at 0.000000000000001 requests per second, request 0 arrives after more than a century: raise the rate"
        );
        assert!(error(1000, 1e-320).contains("request 0 arrives"));
        assert_eq!(ask(3, 1e-8), Ok(3), "rare, but possible");
        assert_eq!((ask(0, 1.0), ask(5, 0.0)), (Ok(0), Ok(5)));
    }

    #[test]
    fn a_seed_is_a_workload_and_another_rate_keeps_its_lengths() {
        let generate = |generator: WorkloadGenerator| generator.generate().expect("a workload");
        let generator = WorkloadGenerator::default();
        assert_eq!(generate(generator), generate(generator));
        assert_ne!(
            generate(generator),
            generate(WorkloadGenerator { seed: 2, ..generator })
        );
        let faster = generate(WorkloadGenerator {
            rate_per_s: 50.0,
            ..generator
        });
        let sizes = |workload: &Workload| {
            workload
                .records
                .iter()
                .map(|record| (record.prompt_tokens, record.output_tokens))
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(&faster), sizes(&generate(generator)));
    }
}
