//! Multidimensional item response theory with two parameters per prompt regressed from its vector, as RADAR.
//!
//! `logit P(model m is right on x) = θ_m · z(x)` with `z(x) = (1, W·x)`: the first entry of θ is the model's ability on the
//! average prompt, the next weighs the prompt's easiness (every model starts with weight one, so this is what they share),
//! the others are directions in which models differ. W and θ are fitted together by penalised likelihood. A new model needs
//! only its own θ, which a few dozen graded answers determine: the fleet's spread of abilities is its prior.

use equipoise_types::RandomStream;

use super::{Estimate, QualityPredictor, Scaling, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{minimise, sigmoid, solve_positive};
use crate::training::Examples;

const ITERATIONS: usize = 150;

/// Sizes and penalties of an [`Irt`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct IrtConfig {
    /// Numbers that a prompt is described by, besides the constant.
    pub(crate) traits: usize,
    /// Ridge penalty on W.
    pub(crate) loading_penalty: f64,
    /// Ridge penalty on the distance of θ from its start.
    pub(crate) ability_penalty: f64,
    /// Of so many of a vector's last coordinates the squares are seen, too: what is hardest may lie in the middle.
    pub(crate) curved: usize,
}

/// The baseline: difficulty and one discriminating direction.
pub(crate) const RADAR: IrtConfig = IrtConfig {
    traits: 2,
    loading_penalty: 100.0,
    ability_penalty: 50.0,
    curved: 0,
};

/// An item response model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Irt {
    scaling: Scaling,
    curved: usize,
    traits: usize,
    /// W, row-major, (dimension + curved) × traits.
    loadings: Vec<f64>,
    abilities: Vec<Ability>,
}

/// Where one model stands: θ and how well it is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ability {
    theta: Vec<f64>,
    /// Posterior covariance of θ, row-major.
    covariance: Vec<f64>,
}

/// One model's log-odds on one prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Response {
    /// Log-odds on the average prompt.
    pub(crate) base: f64,
    /// What this prompt adds.
    pub(crate) delta: f64,
    /// Variance of the sum, from the uncertainty of θ.
    pub(crate) variance: f64,
}

impl Irt {
    pub(crate) fn train(examples: &Examples, config: &IrtConfig, random: &RandomStream) -> Self {
        let scaling = Scaling::of(examples);
        let curved = config.curved.min(examples.dimension);
        let vectors: Vec<f32> = (0..examples.len())
            .flat_map(|prompt| seen(&scaling, curved, examples.vector(prompt)))
            .collect();
        let (loadings, thetas) = fit(examples, &vectors, config, &mut random.derive("irt"));
        let mut irt = Self {
            scaling,
            curved,
            traits: config.traits,
            loadings,
            abilities: Vec::new(),
        };
        let size = config.traits + 1;
        let mut information = vec![vec![0.0; size * size]; examples.models];
        for prompt in 0..examples.len() {
            let traits = irt.traits(examples.vector(prompt));
            for (model, score) in examples.scores(prompt).iter().enumerate() {
                if !score.is_nan() {
                    let probability = sigmoid(inner(&thetas[model * size..(model + 1) * size], &traits));
                    add_outer(&mut information[model], probability * (1.0 - probability), &traits);
                }
            }
        }
        for (model, mut information) in information.into_iter().enumerate() {
            for index in 0..size {
                information[index * size + index] += if index == 0 { 1.0 } else { config.ability_penalty };
            }
            irt.abilities.push(Ability {
                theta: thetas[model * size..(model + 1) * size].to_vec(),
                covariance: inverse(&information, size),
            });
        }
        irt
    }

    /// z(x): the constant one and the traits of a prompt.
    fn traits(&self, vector: &[f32]) -> Vec<f64> {
        let mut traits = vec![0.0; self.traits + 1];
        traits[0] = 1.0;
        for (value, row) in seen(&self.scaling, self.curved, vector)
            .iter()
            .zip(self.loadings.chunks_exact(self.traits))
        {
            for (to, loading) in traits[1..].iter_mut().zip(row) {
                *to += f64::from(*value) * loading;
            }
        }
        traits
    }

    /// Every model's log-odds on a prompt.
    pub(crate) fn responses(&self, vector: &[f32]) -> Vec<Response> {
        let traits = self.traits(vector);
        self.abilities
            .iter()
            .map(|ability| Response {
                base: ability.theta[0],
                delta: inner(&ability.theta[1..], &traits[1..]),
                variance: quadratic(&ability.covariance, &traits),
            })
            .collect()
    }

    /// Every model's probability on the average prompt.
    pub(crate) fn means(&self) -> Vec<f64> {
        self.abilities.iter().map(|ability| sigmoid(ability.theta[0])).collect()
    }

    /// Finds where a new model stands from its graded answers (vector of the prompt, score): maximum a posteriori, with
    /// the mean and the spread of the known models as the prior.
    pub(crate) fn locate(&self, graded: &[(Vec<f32>, f64)]) -> Ability {
        let size = self.traits + 1;
        #[expect(clippy::cast_precision_loss, reason = "a number of models")]
        let count = self.abilities.len().max(1) as f64;
        let moment = |index: usize, about: f64, power: i32| {
            self.abilities
                .iter()
                .map(|ability| (ability.theta[index] - about).powi(power))
                .sum::<f64>()
                / count
        };
        let mean: Vec<f64> = (0..size).map(|index| moment(index, 0.0, 1)).collect();
        // The floor keeps a fleet of like models from ruling out a different one.
        let precision: Vec<f64> = (0..size)
            .map(|index| 1.0 / (moment(index, mean[index], 2) + 0.05))
            .collect();
        let graded: Vec<(Vec<f64>, f64)> = graded
            .iter()
            .map(|(vector, score)| (self.traits(vector), *score))
            .collect();
        let theta = minimise(mean.clone(), 100, |theta, gradient| {
            let mut value = 0.0;
            for index in 0..size {
                let off = theta[index] - mean[index];
                value += 0.5 * precision[index] * off * off;
                gradient[index] = precision[index] * off;
            }
            for (traits, score) in &graded {
                let logit = inner(theta, traits);
                value += log1p_exp(logit) - score * logit;
                let residual = sigmoid(logit) - score;
                for (to, along) in gradient.iter_mut().zip(traits) {
                    *to += residual * along;
                }
            }
            value
        });
        let mut information = vec![0.0; size * size];
        for index in 0..size {
            information[index * size + index] = precision[index];
        }
        for (traits, _) in &graded {
            let probability = sigmoid(inner(&theta, traits));
            add_outer(&mut information, probability * (1.0 - probability), traits);
        }
        Ability {
            covariance: inverse(&information, size),
            theta,
        }
    }

    /// Adds a model at the end.
    pub(crate) fn push(&mut self, ability: Ability) {
        self.abilities.push(ability);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.scaling.write(writer);
        writer.size(self.curved);
        writer.size(self.traits);
        writer.f64s(&self.loadings);
        for ability in &self.abilities {
            writer.f64s(&ability.theta);
            writer.f64s(&ability.covariance);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let scaling = Scaling::read(reader, sizes)?;
        let curved = reader.size()?;
        if curved > sizes.dimension {
            return Err(reader.invalid("the number of curved coordinates"));
        }
        let traits = reader.size()?;
        if !(1..=16).contains(&traits) {
            return Err(reader.invalid("the number of traits"));
        }
        let loadings = reader.f64s((sizes.dimension + curved) * traits)?;
        let size = traits + 1;
        let mut abilities = Vec::new();
        for _ in 0..sizes.models {
            abilities.push(Ability {
                theta: reader.f64s(size)?,
                covariance: reader.f64s(size * size)?,
            });
        }
        Ok(Self {
            scaling,
            curved,
            traits,
            loadings,
            abilities,
        })
    }
}

impl QualityPredictor for Irt {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        self.responses(vector)
            .iter()
            .map(|response| {
                let probability = sigmoid(response.base + response.delta);
                // Delta method: the slope of the logistic function is p(1 - p).
                Estimate::new(
                    probability,
                    probability * (1.0 - probability) * response.variance.max(0.0).sqrt(),
                )
            })
            .collect()
    }
}

/// What the model sees of a vector: its coordinates, standardised, and of the last `curved` the squares, which have mean
/// zero and variance one if the coordinate is normal.
fn seen(scaling: &Scaling, curved: usize, vector: &[f32]) -> Vec<f32> {
    let mut seen = scaling.apply(vector);
    for index in seen.len() - curved..seen.len() {
        seen.push(((seen[index] * seen[index] - 1.0) * std::f32::consts::FRAC_1_SQRT_2).min(4.0));
    }
    seen
}

/// Penalised maximum likelihood for W (coordinates × traits) and θ (models × (1 + traits)).
fn fit(examples: &Examples, vectors: &[f32], config: &IrtConfig, random: &mut RandomStream) -> (Vec<f64>, Vec<f64>) {
    let (traits, models) = (config.traits, examples.models);
    let dimension = vectors.len() / examples.len().max(1);
    let size = traits + 1;
    let loading_count = dimension * traits;
    let mut start: Vec<f64> = (0..loading_count).map(|_| 0.01 * random.normal()).collect();
    let mut prior = Vec::with_capacity(models * size);
    for mean in examples.mean_scores() {
        prior.push((mean / (1.0 - mean)).ln());
        prior.extend((0..traits).map(|index| if index == 0 { 1.0 } else { 0.0 }));
    }
    // Directions beyond the first must not start alike, or they stay alike.
    start.extend(prior.iter().enumerate().map(|(index, value)| match index % size {
        0 => *value,
        _ => value + 0.1 * random.normal(),
    }));
    let found = minimise(start, ITERATIONS, |point, gradient| {
        let (loadings, thetas) = point.split_at(loading_count);
        let (loading_gradient, theta_gradient) = gradient.split_at_mut(loading_count);
        let mut value = 0.0;
        for (to, loading) in loading_gradient.iter_mut().zip(loadings) {
            *to = config.loading_penalty * loading;
            value += 0.5 * config.loading_penalty * loading * loading;
        }
        for (index, to) in theta_gradient.iter_mut().enumerate() {
            let penalty = if index % size == 0 { 1.0 } else { config.ability_penalty };
            let off = thetas[index] - prior[index];
            *to = penalty * off;
            value += 0.5 * penalty * off * off;
        }
        let mut z = vec![0.0; size];
        let mut pull = vec![0.0; traits];
        for (prompt, vector) in vectors.chunks_exact(dimension).enumerate() {
            z.fill(0.0);
            z[0] = 1.0;
            for (along, row) in vector.iter().zip(loadings.chunks_exact(traits)) {
                for (to, loading) in z[1..].iter_mut().zip(row) {
                    *to += f64::from(*along) * loading;
                }
            }
            pull.fill(0.0);
            for (model, &score) in examples.scores(prompt).iter().enumerate() {
                if score.is_nan() {
                    continue;
                }
                let theta = &thetas[model * size..(model + 1) * size];
                let logit = inner(theta, &z);
                value += log1p_exp(logit) - score * logit;
                let residual = sigmoid(logit) - score;
                for (to, along) in theta_gradient[model * size..(model + 1) * size].iter_mut().zip(&z) {
                    *to += residual * along;
                }
                for (to, weight) in pull.iter_mut().zip(&theta[1..]) {
                    *to += residual * weight;
                }
            }
            for (along, row) in vector.iter().zip(loading_gradient.chunks_exact_mut(traits)) {
                for (to, pull) in row.iter_mut().zip(&pull) {
                    *to += f64::from(*along) * pull;
                }
            }
        }
        value
    });
    (found[..loading_count].to_vec(), found[loading_count..].to_vec())
}

fn inner(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

/// `ln(1 + eˣ)` without overflow.
pub(crate) fn log1p_exp(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn add_outer(matrix: &mut [f64], factor: f64, vector: &[f64]) {
    for (row, &along) in matrix.chunks_exact_mut(vector.len()).zip(vector) {
        for (to, other) in row.iter_mut().zip(vector) {
            *to += factor * along * other;
        }
    }
}

fn quadratic(matrix: &[f64], vector: &[f64]) -> f64 {
    matrix
        .chunks_exact(vector.len())
        .zip(vector)
        .map(|(row, along)| along * inner(row, vector))
        .sum()
}

/// The inverse of a positive definite matrix; zero where rounding has made it indefinite.
fn inverse(matrix: &[f64], size: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; size * size];
    for column in 0..size {
        let unit: Vec<f64> = (0..size).map(|row| if row == column { 1.0 } else { 0.0 }).collect();
        if let Some(solution) = solve_positive(matrix, &unit) {
            for (row, value) in solution.into_iter().enumerate() {
                inverse[row * size + column] = value;
            }
        }
    }
    inverse
}
