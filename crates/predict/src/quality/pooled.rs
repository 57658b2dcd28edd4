//! Logistic heads that share what they can (partial pooling; "regularised multi-task learning", Evgeniou and Pontil 2004).
//!
//! `logit P(model m is right on x) = b_m + (w + v_m) · x`: `w` is what makes a prompt easy for every model, `v_m` what one
//! model finds easier than the others. Both are penalised, `v_m` far more: a router compares models on one prompt, where
//! `w` cancels, so a noisy `v_m` is what it would chase.

use super::irt::log1p_exp;
use super::{Scaling, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{dot, dots, minimise, sigmoid};
use crate::training::Examples;

/// Ridge penalty on `w`; chosen, as the next, by cross-validation on the training parts of both published sets.
const SHARED_PENALTY: f64 = 100.0;
/// Ridge penalty on every `v_m`.
const OWN_PENALTY: f64 = 800.0;
const ITERATIONS: usize = 120;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pooled {
    scaling: Scaling,
    /// Per model `b_m`, log-odds on the average prompt.
    bases: Vec<f64>,
    /// Row-major, models × dimension: `w + v_m`.
    weights: Vec<f32>,
}

impl Pooled {
    pub(crate) fn train(examples: &Examples) -> Self {
        let scaling = Scaling::of(examples);
        let vectors = scaling.apply_all(examples);
        let (dimension, models) = (examples.dimension, examples.models);
        // Intercepts, then w, then one v_m after another.
        let mut start: Vec<f64> = examples
            .mean_scores()
            .into_iter()
            .map(|mean| (mean / (1.0 - mean)).ln())
            .collect();
        start.resize(models + dimension * (1 + models), 0.0);
        let mut heads = vec![0.0_f32; models * dimension];
        let mut slopes = vec![0.0_f32; models * dimension];
        let found = minimise(start, ITERATIONS, |point, gradient| {
            let (bases, weights) = point.split_at(models);
            let (base_gradient, weight_gradient) = gradient.split_at_mut(models);
            join_heads(weights, dimension, &mut heads);
            slopes.fill(0.0);
            base_gradient.fill(0.0);
            let mut value = 0.0;
            for (prompt, vector) in vectors.chunks_exact(dimension).enumerate() {
                for (model, &score) in examples.scores(prompt).iter().enumerate() {
                    if score.is_nan() {
                        continue;
                    }
                    let row = model * dimension..(model + 1) * dimension;
                    let logit = bases[model] + f64::from(dot(&heads[row.clone()], vector));
                    value += log1p_exp(logit) - score * logit;
                    let residual = sigmoid(logit) - score;
                    base_gradient[model] += residual;
                    #[expect(clippy::cast_possible_truncation, reason = "a residual in [-1, 1]")]
                    crate::numeric::axpy(&mut slopes[row], residual as f32, vector);
                }
            }
            let (shared_gradient, own_gradient) = weight_gradient.split_at_mut(dimension);
            let (shared, own) = weights.split_at(dimension);
            for (to, weight) in shared_gradient.iter_mut().zip(shared) {
                *to = SHARED_PENALTY * weight;
                value += 0.5 * SHARED_PENALTY * weight * weight;
            }
            for (index, (to, weight)) in own_gradient.iter_mut().zip(own).enumerate() {
                let slope = f64::from(slopes[index]);
                *to = slope + OWN_PENALTY * weight;
                shared_gradient[index % dimension] += slope;
                value += 0.5 * OWN_PENALTY * weight * weight;
            }
            value
        });
        join_heads(&found[models..], dimension, &mut heads);
        Self {
            scaling,
            bases: found[..models].to_vec(),
            weights: heads,
        }
    }

    /// The log-odds of every model that was trained on.
    pub(crate) fn log_odds(&self, vector: &[f32]) -> Vec<f64> {
        let vector = self.scaling.apply(vector);
        let mut products = vec![0.0; self.bases.len()];
        dots(&self.weights, &vector, &mut products);
        let sums = products.into_iter().zip(&self.bases);
        sums.map(|(product, base)| base + f64::from(product)).collect()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.scaling.write(writer);
        writer.f64s(&self.bases);
        writer.f32s(&self.weights);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        Ok(Self {
            scaling: Scaling::read(reader, sizes)?,
            bases: reader.f64s(sizes.models)?,
            weights: reader.f32s(sizes.models.saturating_mul(sizes.dimension))?,
        })
    }
}

/// `w + v_m` of every model, from `w` and the `v_m` behind it.
#[expect(clippy::cast_possible_truncation, reason = "kept in single precision")]
fn join_heads(weights: &[f64], dimension: usize, heads: &mut [f32]) {
    let (shared, own) = weights.split_at(dimension);
    for (index, (to, own)) in heads.iter_mut().zip(own).enumerate() {
        *to = (shared[index % dimension] + own) as f32;
    }
}
