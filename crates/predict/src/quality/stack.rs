//! How opinions about a prompt are put together: weights learned from predictions out of sample ("stacking", Wolpert
//! 1992), so that they are honest about how much each opinion is worth.
//!
//! Each opinion, in log-odds against the models' means, is split into the mean over the models (is this prompt hard?) and
//! each model's deviation from it (is it harder for this one?). Deviations are noisier and get a weight of their own: this
//! is what keeps a router from chasing noise. The result is a logistic calibration (Platt 1999) at the same time.

use super::irt::log1p_exp;
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{minimise, sigmoid};

/// Terms that are weighted: three opinions, each with a common and an own part.
const TERMS: usize = 6;

/// The terms of one model on one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// Log-odds of the model on the average prompt; added as it is.
    pub(crate) base: f64,
    /// Common and own part of each opinion, in that order.
    pub(crate) parts: [f64; TERMS],
}

impl Terms {
    /// Variance of the opinions, in squared log-odds.
    pub(crate) fn spread(&self) -> f64 {
        let opinions = || self.parts.chunks_exact(2).map(|parts| parts[0] + parts[1]);
        let count = f64::from(u32::try_from(TERMS / 2).unwrap_or(1));
        let mean = opinions().sum::<f64>() / count;
        opinions().map(|opinion| (opinion - mean).powi(2)).sum::<f64>() / count
    }
}

/// Weights, none negative, and an intercept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stack {
    intercept: f64,
    pub(crate) weights: [f64; TERMS],
}

impl Stack {
    /// Fits to terms and scores out of sample.
    pub(crate) fn train(samples: &[(Terms, f64)]) -> Self {
        // Weights are squares of what is fitted, hence never negative.
        let mut start = vec![0.6; TERMS];
        start.push(0.0);
        let found = minimise(start, 200, |point, gradient| {
            gradient.fill(0.0);
            let mut value = 0.0;
            let stack = Self::of(point);
            for (terms, score) in samples {
                let logit = stack.log_odds(terms);
                value += log1p_exp(logit) - score * logit;
                let residual = sigmoid(logit) - score;
                for term in 0..TERMS {
                    gradient[term] += residual * terms.parts[term] * 2.0 * point[term];
                }
                gradient[TERMS] += residual;
            }
            for (to, at) in gradient.iter_mut().zip(point) {
                *to += 2.0 * at;
                value += at * at;
            }
            value
        });
        Self::of(&found)
    }

    fn of(point: &[f64]) -> Self {
        let mut weights = [0.0; TERMS];
        for (weight, root) in weights.iter_mut().zip(point) {
            *weight = root * root;
        }
        Self {
            intercept: point[TERMS],
            weights,
        }
    }

    pub(crate) fn log_odds(&self, terms: &Terms) -> f64 {
        let sum: f64 = self
            .weights
            .iter()
            .zip(&terms.parts)
            .map(|(weight, part)| weight * part)
            .sum();
        terms.base + self.intercept + sum
    }

    /// Of the part of the last opinion that is one model's own.
    pub(crate) fn own_vote_weight(&self) -> f64 {
        self.weights[TERMS - 1]
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64(self.intercept);
        writer.f64s(&self.weights);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        let intercept = reader.f64()?;
        let mut weights = [0.0; TERMS];
        for weight in &mut weights {
            *weight = reader.f64()?;
        }
        Ok(Self { intercept, weights })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::RandomStream;

    #[test]
    fn noise_gets_no_weight_and_signal_its_own() {
        let mut random = RandomStream::new(3);
        let samples: Vec<(Terms, f64)> = (0..20_000)
            .map(|_| {
                let parts = [(); TERMS].map(|()| random.normal());
                let logit = 0.3 + 1.5 * parts[0] + 0.5 * parts[3];
                let score = f64::from(u8::from(random.uniform() < sigmoid(logit)));
                (Terms { base: 0.3, parts }, score)
            })
            .collect();
        let stack = Stack::train(&samples);
        for (weight, truth) in stack.weights.iter().zip([1.5, 0.0, 0.0, 0.5, 0.0, 0.0]) {
            assert!((weight - truth).abs() < 0.08, "{stack:?}");
        }
    }
}
