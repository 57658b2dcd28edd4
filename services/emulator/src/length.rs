//! How long an answer is, and why it ends there.

use crate::config::OutputLengths;
use equipoise_types::RandomStream;

/// What the client and the context allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Most tokens, at least 1.
    pub(crate) most: u32,
    /// Fewest tokens, at most `most`.
    pub(crate) fewest: u32,
    pub(crate) ignore_eos: bool,
}

/// An answer's length, decided before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) tokens: u32,
    pub(crate) finish: Finish,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
}

impl Finish {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

impl OutputLengths {
    /// The length of the answer to the prompt with this hash.
    pub(crate) fn sample(&self, seed: u64, prompt_hash: u64, allowance: Allowance) -> Length {
        let Allowance {
            most,
            fewest,
            ignore_eos,
        } = allowance;
        if ignore_eos {
            return Length {
                tokens: most,
                finish: Finish::Length,
            };
        }
        // The median of a log-normal lies exp(sigma^2 / 2) below its mean.
        let median = self.mean_tokens * (-0.5 * self.sigma * self.sigma).exp();
        let mut stream = RandomStream::new(seed).derive(&format!("answer {prompt_hash:016x}"));
        let natural = (stream.log_normal(median, self.sigma).round() as u32)
            .max(fewest)
            .max(1);
        if natural > most {
            return Length {
                tokens: most,
                finish: Finish::Length,
            };
        }
        Length {
            tokens: natural,
            finish: Finish::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Allowance = Allowance {
        most: u32::MAX,
        fewest: 0,
        ignore_eos: false,
    };

    #[test]
    fn the_mean_is_as_configured_and_the_same_prompt_repeats() {
        let lengths = OutputLengths {
            mean_tokens: 200.0,
            sigma: 0.8,
        };
        let total: f64 = (0..20_000)
            .map(|hash| f64::from(lengths.sample(1, hash, FREE).tokens))
            .sum();
        let mean = total / 20_000.0;
        assert!((mean / 200.0 - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(lengths.sample(1, 5, FREE), lengths.sample(1, 5, FREE));
    }

    #[test]
    fn the_client_s_limits_hold() {
        let lengths = OutputLengths {
            mean_tokens: 10.0,
            sigma: 0.0,
        };
        let sample = |allowance| lengths.sample(0, 0, allowance);
        assert_eq!(
            sample(FREE),
            Length {
                tokens: 10,
                finish: Finish::Stop
            }
        );
        assert_eq!(
            sample(Allowance { most: 4, ..FREE }),
            Length {
                tokens: 4,
                finish: Finish::Length
            }
        );
        assert_eq!(
            sample(Allowance { fewest: 30, ..FREE }),
            Length {
                tokens: 30,
                finish: Finish::Stop
            }
        );
        let forced = Allowance {
            most: 50,
            fewest: 0,
            ignore_eos: true,
        };
        assert_eq!(
            sample(forced),
            Length {
                tokens: 50,
                finish: Finish::Length
            }
        );
    }
}
