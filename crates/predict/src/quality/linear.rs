//! A logistic head per model on the prompt's vector, each fitted alone: what RouteLLM's and BEST-Route's classifiers are
//! on top of their encoders.

use super::irt::log1p_exp;
use super::{Estimate, QualityPredictor, Scaling, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{minimise, sigmoid};
use crate::training::Examples;

/// Ridge penalty; between 100 and 300 did best in cross-validation on both published sets.
const PENALTY: f64 = 200.0;
const ITERATIONS: usize = 60;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    scaling: Scaling,
    /// Row-major, models × (dimension + 1), the intercept last.
    weights: Vec<f64>,
    models: usize,
}

impl Linear {
    pub(crate) fn train(examples: &Examples) -> Self {
        let scaling = Scaling::of(examples);
        let vectors = scaling.apply_all(examples);
        let dimension = examples.dimension;
        let mut weights = Vec::with_capacity(examples.models * (dimension + 1));
        for (model, mean) in examples.mean_scores().into_iter().enumerate() {
            let mut start = vec![0.0; dimension + 1];
            start[dimension] = (mean / (1.0 - mean)).ln();
            weights.extend(minimise(start, ITERATIONS, |point, gradient| {
                let mut value = 0.0;
                for (to, weight) in gradient.iter_mut().zip(&point[..dimension]) {
                    *to = PENALTY * weight;
                    value += 0.5 * PENALTY * weight * weight;
                }
                gradient[dimension] = 0.0;
                for (prompt, vector) in vectors.chunks_exact(dimension).enumerate() {
                    let score = examples.scores(prompt)[model];
                    if score.is_nan() {
                        continue;
                    }
                    let logit = log_odds(point, vector);
                    value += log1p_exp(logit) - score * logit;
                    let residual = sigmoid(logit) - score;
                    for (to, along) in gradient.iter_mut().zip(vector) {
                        *to += residual * f64::from(*along);
                    }
                    gradient[dimension] += residual;
                }
                value
            }));
        }
        Self {
            scaling,
            weights,
            models: examples.models,
        }
    }

    /// Every model's probability on the average prompt.
    pub(crate) fn means(&self) -> Vec<f64> {
        self.weights
            .chunks_exact(self.weights.len() / self.models)
            .map(|weights| weights.last().map_or(0.5, |&intercept| sigmoid(intercept)))
            .collect()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.scaling.write(writer);
        writer.f64s(&self.weights);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        Ok(Self {
            scaling: Scaling::read(reader, sizes)?,
            weights: reader.f64s((sizes.dimension + 1) * sizes.models)?,
            models: sizes.models,
        })
    }
}

/// Weights (the intercept last) times a vector.
fn log_odds(weights: &[f64], vector: &[f32]) -> f64 {
    let sum: f64 = weights
        .iter()
        .zip(vector)
        .map(|(weight, &value)| weight * f64::from(value))
        .sum();
    sum + weights[vector.len()]
}

impl QualityPredictor for Linear {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        let vector = self.scaling.apply(vector);
        self.weights
            .chunks_exact(self.weights.len() / self.models)
            .map(|weights| {
                let probability = sigmoid(log_odds(weights, &vector));
                // This kind has no uncertainty of its own: the widest that a probability can have.
                Estimate::new(probability, (probability * (1.0 - probability)).sqrt())
            })
            .collect()
    }
}
