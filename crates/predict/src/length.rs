//! How long an answer will be: per model a distribution over tokens, from the prompt's vector.
//!
//! `ln tokens` is regressed on the vector (ridge), and so is the logarithm of the size of the residual, because some
//! prompts' lengths are less certain than others'. The shape of the distribution is the models' own: quantiles of residuals
//! over predicted size, on examples that the regression had not seen (split conformal prediction), so that coverage is
//! right on average whatever the shape.

use crate::artifact::{ArtifactError, Reader, Writer};
use crate::forecast::LengthForecast;
use crate::numeric::solve_positive;
use crate::quality::{Scaling, Sizes};
use crate::training::Examples;

/// Ridge penalty of both regressions.
const PENALTY: f64 = 100.0;
/// Folds for residuals out of sample.
const FOLDS: usize = 4;
/// Quantiles kept: the middles of as many equal slices of the distribution.
const SLICES: usize = 10;
/// Which probabilities they are, with the three that are reported.
const QUANTILES: [f64; SLICES + 3] = [
    0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 0.1, 0.5, 0.9,
];
/// Answers that a model must have before it gets a regression of its own.
const MIN_ANSWERS: usize = 20;
/// Spread of ln tokens for a model of which nothing is known.
const DEFAULT_SPREAD: f64 = 0.8;
/// No answer is forecast longer than this, tokens.
const MAX_TOKENS: f64 = 1e6;

/// Length distributions of all models.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lengths {
    scaling: Scaling,
    models: Vec<LengthModel>,
}

/// One model's.
#[derive(Clone, Debug, PartialEq)]
struct LengthModel {
    /// Of ln tokens; the intercept last.
    location: Vec<f32>,
    /// Of ln of the residual's size; the intercept last.
    spread: Vec<f32>,
    /// Of residual over predicted size, at [`QUANTILES`].
    quantiles: Vec<f64>,
}

impl Lengths {
    pub(crate) fn train(examples: &Examples) -> Self {
        let scaling = Scaling::of(examples);
        let vectors = scaling.apply_all(examples);
        let solver = Solver {
            vectors: &vectors,
            dimension: examples.dimension,
        };
        let mut cache = Vec::new();
        let models = (0..examples.models)
            .map(|model| {
                let targets: Vec<f64> = (0..examples.len())
                    .map(|prompt| examples.log_tokens(prompt)[model])
                    .collect();
                LengthModel::train(&solver, &targets, &mut cache)
            })
            .collect();
        Self { scaling, models }
    }

    /// Forecasts of one prompt's answers, each made when it is asked for by its model's place.
    pub(crate) fn of(&self, vector: &[f32]) -> impl Fn(usize) -> Option<LengthForecast> {
        let vector = self.scaling.apply(vector);
        move |place| Some(self.models.get(place)?.predict(&vector))
    }

    /// Adds a model of which only some answers' lengths are known: the typical regression of the others, moved to match.
    pub(crate) fn join(&mut self, answers: &[(Vec<f32>, f64)]) {
        let mut model = self.typical();
        let last = model.location.len() - 1;
        if !answers.is_empty() {
            let mut misses: Vec<f64> = answers
                .iter()
                .map(|(vector, tokens)| tokens.max(1.0).ln() - affine(&model.location, &self.scaling.apply(vector)))
                .collect();
            misses.sort_by(f64::total_cmp);
            #[expect(clippy::cast_possible_truncation, reason = "kept in single precision")]
            let shift = misses[misses.len() / 2] as f32;
            model.location[last] += shift;
        }
        self.models.push(model);
    }

    /// The mean of the models' coefficients.
    fn typical(&self) -> LengthModel {
        let Some(first) = self.models.first() else {
            return LengthModel::unknown(self.scaling.apply(&[]).len(), 5.5);
        };
        let mut typical = first.clone();
        for model in &self.models[1..] {
            add(&mut typical.location, &model.location);
            add(&mut typical.spread, &model.spread);
            for (to, from) in typical.quantiles.iter_mut().zip(&model.quantiles) {
                *to += from;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of models")]
        let count = self.models.len() as f32;
        for value in typical.location.iter_mut().chain(&mut typical.spread) {
            *value /= count;
        }
        for value in &mut typical.quantiles {
            *value /= f64::from(count);
        }
        typical
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.scaling.write(writer);
        for model in &self.models {
            writer.f32s(&model.location);
            writer.f32s(&model.spread);
            writer.f64s(&model.quantiles);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let scaling = Scaling::read(reader, sizes)?;
        let mut models = Vec::new();
        for _ in 0..sizes.models {
            models.push(LengthModel {
                location: reader.f32s(sizes.dimension + 1)?,
                spread: reader.f32s(sizes.dimension + 1)?,
                quantiles: reader.f64s(QUANTILES.len())?,
            });
        }
        Ok(Self { scaling, models })
    }
}

impl LengthModel {
    /// `targets` are ln tokens by prompt, NaN where unknown.
    fn train(solver: &Solver<'_>, targets: &[f64], cache: &mut Vec<Gram>) -> Self {
        let known: Vec<usize> = (0..targets.len()).filter(|&prompt| !targets[prompt].is_nan()).collect();
        if known.len() < MIN_ANSWERS {
            let sum: f64 = known.iter().map(|&prompt| targets[prompt]).sum();
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let typical = (sum + 5.5) / (known.len() as f64 + 1.0);
            return Self::unknown(solver.dimension, typical);
        }
        let mut residuals = vec![f64::NAN; targets.len()];
        for fold in 0..FOLDS {
            let seen: Vec<usize> = known.iter().copied().filter(|prompt| prompt % FOLDS != fold).collect();
            let weights = solver.ridge(&seen, targets, cache);
            for &prompt in known.iter().filter(|&prompt| prompt % FOLDS == fold) {
                residuals[prompt] = targets[prompt] - affine(&weights, solver.row(prompt));
            }
        }
        let sizes: Vec<f64> = residuals.iter().map(|residual| residual.abs().max(0.02).ln()).collect();
        let spread = solver.ridge(&known, &sizes, cache);
        let mut relative: Vec<f64> = known
            .iter()
            .map(|&prompt| residuals[prompt] / size(&spread, solver.row(prompt)))
            .collect();
        relative.sort_by(f64::total_cmp);
        let quantiles = QUANTILES
            .iter()
            .map(|&probability| quantile(&relative, probability))
            .collect();
        Self {
            location: solver.ridge(&known, targets, cache),
            spread,
            quantiles,
        }
    }

    fn unknown(dimension: usize, log_tokens: f64) -> Self {
        let mut location = vec![0.0; dimension + 1];
        #[expect(clippy::cast_possible_truncation, reason = "kept in single precision")]
        let typical = log_tokens as f32;
        location[dimension] = typical;
        // Of a normal distribution, with the spread as its deviation.
        let normal = [
            -1.645, -1.036, -0.674, -0.385, -0.126, 0.126, 0.385, 0.674, 1.036, 1.645, -1.282, 0.0, 1.282,
        ];
        Self {
            location,
            spread: vec![0.0; dimension + 1],
            quantiles: normal.map(|z| z * DEFAULT_SPREAD).to_vec(),
        }
    }

    fn predict(&self, vector: &[f32]) -> LengthForecast {
        let centre = affine(&self.location, vector);
        let size = size(&self.spread, vector);
        let tokens = |quantile: f64| {
            (centre + size * quantile)
                .min(MAX_TOKENS.ln())
                .exp()
                .clamp(1.0, MAX_TOKENS)
        };
        let (slices, reported) = self.quantiles.split_at(SLICES);
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let mean = slices.iter().map(|&quantile| tokens(quantile)).sum::<f64>() / SLICES as f64;
        let (p10, p50) = (tokens(reported[0]), tokens(reported[1]));
        // Whatever stands in an artifact, quantiles are in order.
        let p50 = p50.max(p10);
        LengthForecast {
            mean,
            p10,
            p50,
            p90: tokens(reported[2]).max(p50),
        }
    }
}

/// The predicted size of a residual.
fn size(spread: &[f32], vector: &[f32]) -> f64 {
    affine(spread, vector).clamp(-4.0, 2.0).exp()
}

/// Weights (the intercept last) times a vector.
fn affine(weights: &[f32], vector: &[f32]) -> f64 {
    let Some((intercept, weights)) = weights.split_last() else {
        return 0.0;
    };
    f64::from(crate::numeric::dot(weights, vector)) + f64::from(*intercept)
}

fn add(target: &mut [f32], source: &[f32]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to += from;
    }
}

/// The `probability` quantile of sorted values, between neighbours.
fn quantile(sorted: &[f64], probability: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let at = probability * (sorted.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (at - at.floor()) * (sorted[above] - sorted[below])
}

/// The Gram matrix of some prompts, which models that answered the same prompts share.
struct Gram {
    prompts: Vec<usize>,
    matrix: Vec<f64>,
}

/// Ridge regression on rows of standardised vectors.
struct Solver<'a> {
    vectors: &'a [f32],
    dimension: usize,
}

impl Solver<'_> {
    fn row(&self, prompt: usize) -> &[f32] {
        &self.vectors[prompt * self.dimension..(prompt + 1) * self.dimension]
    }

    /// Coefficients of `targets` over the vectors of `prompts`, the intercept last.
    fn ridge(&self, prompts: &[usize], targets: &[f64], cache: &mut Vec<Gram>) -> Vec<f32> {
        let size = self.dimension + 1;
        let position = cache.iter().position(|gram| gram.prompts == prompts);
        let position = position.unwrap_or_else(|| {
            cache.push(Gram {
                prompts: prompts.to_vec(),
                matrix: self.gram(prompts),
            });
            cache.len() - 1
        });
        let mut right = vec![0.0; size];
        for &prompt in prompts {
            for (to, &value) in right.iter_mut().zip(self.row(prompt)) {
                *to += targets[prompt] * f64::from(value);
            }
            right[self.dimension] += targets[prompt];
        }
        let solution = solve_positive(&cache[position].matrix, &right).unwrap_or_else(|| vec![0.0; size]);
        #[expect(clippy::cast_possible_truncation, reason = "kept in single precision")]
        solution.into_iter().map(|value| value as f32).collect()
    }

    fn gram(&self, prompts: &[usize]) -> Vec<f64> {
        let size = self.dimension + 1;
        let mut matrix = vec![0.0; size * size];
        let mut row = vec![1.0; size];
        for &prompt in prompts {
            for (to, &value) in row.iter_mut().zip(self.row(prompt)) {
                *to = f64::from(value);
            }
            for (index, &value) in row.iter().enumerate() {
                for (to, other) in matrix[index * size..=index * size + index].iter_mut().zip(&row) {
                    *to += value * other;
                }
            }
        }
        for index in 0..size {
            matrix[index * size + index] += if index == self.dimension { 1e-6 } else { PENALTY };
        }
        matrix
    }
}
