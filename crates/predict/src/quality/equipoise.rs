//! Our predictor: an item response model and the votes of near prompts, stacked.
//!
//! The item response model generalises (what makes a prompt hard is shared), the neighbours know what it cannot express
//! (families of like questions). Both are fitted on all examples; how much each is worth is learned from predictions for
//! examples that neither had seen.

use equipoise_types::RandomStream;

use super::irt::{Ability, Irt, IrtConfig};
use super::neighbours::{Neighbours, Votes, lists_for};
use super::stack::{Stack, Terms};
use super::{Estimate, QualityPredictor, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{logit, sigmoid};
use crate::text::SURFACE_FEATURES;
use crate::training::Examples;

/// Chosen by cross-validation on the training parts of both published sets.
const CONFIG: IrtConfig = IrtConfig {
    traits: 2,
    loading_penalty: 200.0,
    ability_penalty: 100.0,
    curved: SURFACE_FEATURES,
};
/// Neighbours that vote.
const VOTERS: usize = 80;
/// Lists that are searched, of at most 64.
const PROBES: usize = 6;
/// A neighbour at distance d weighs `(nearest + SOFTNESS) / (d + SOFTNESS)`: a near-duplicate of the prompt counts far more
/// than the rest.
const SOFTNESS: f64 = 1e-6;
/// Votes that each model's mean has before any neighbour is asked.
const PRIOR_VOTES: f64 = 0.5;
/// Prompts that a model's mean is taken over: their sampling error is about 0.01.
const PROMPTS_OF_MEANS: usize = 500;
const FOLDS: usize = 4;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Equipoise {
    irt: Irt,
    neighbours: Neighbours,
    stack: Stack,
    /// Models that were trained on, which come first and whose mean is the common part. One that joins changes nothing
    /// for them.
    trained: usize,
}

/// What is known of one model's answer to one prompt before the stack weighs it.
struct Opinion {
    terms: Terms,
    /// Variance of the log-odds from the uncertainty of the model's ability.
    ability_variance: f64,
    votes: Votes,
}

impl Equipoise {
    pub(crate) fn train(examples: &Examples, random: &RandomStream) -> Self {
        let mut fold_of = random.derive("folds");
        let fold_of: Vec<usize> = (0..examples.len()).map(|_| fold_of.below(FOLDS)).collect();
        let mut samples = Vec::new();
        for fold in 0..FOLDS {
            let seen = examples.subset(|prompt| fold_of[prompt] != fold);
            if seen.len() == 0 {
                continue;
            }
            let random = random.derive(&format!("fold {fold}"));
            let irt = Irt::train(&seen, &CONFIG, &random);
            let neighbours = Neighbours::build(&seen, lists_for(seen.len()), &random);
            for prompt in (0..examples.len()).filter(|&prompt| fold_of[prompt] == fold) {
                let opinions = opinions(&irt, &neighbours, examples.models, examples.vector(prompt));
                for (opinion, &score) in opinions.iter().zip(examples.scores(prompt)) {
                    if !score.is_nan() {
                        samples.push((opinion.terms, score));
                    }
                }
            }
        }
        Self {
            irt: Irt::train(examples, &CONFIG, random),
            neighbours: Neighbours::build(examples, lists_for(examples.len()), random),
            stack: Stack::train(&samples),
            trained: examples.models,
        }
    }

    pub(crate) fn irt(&self) -> &Irt {
        &self.irt
    }

    /// Adds a model at the end, which no neighbour was graded for.
    pub(crate) fn push(&mut self, ability: Ability) {
        self.irt.push(ability);
        self.neighbours.push_ungraded_model();
    }

    /// Every model's mean probability over some of the prompts that it was trained on, the same for all models. By the
    /// item response model alone: the neighbours of these prompts are they themselves, with their labels.
    pub(crate) fn means(&self) -> Vec<f64> {
        let mut means = self.irt.means();
        let mut count = 1.0;
        for vector in self.neighbours.some_prompts(PROMPTS_OF_MEANS) {
            count += 1.0;
            for (mean, response) in means.iter_mut().zip(self.irt.responses(&vector)) {
                *mean += (sigmoid(response.base + response.delta) - *mean) / count;
            }
        }
        means
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.irt.write(writer);
        self.neighbours.write(writer);
        self.stack.write(writer);
        writer.size(self.trained);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let read = Self {
            irt: Irt::read(reader, sizes)?,
            neighbours: Neighbours::read(reader, sizes)?,
            stack: Stack::read(reader)?,
            trained: reader.size()?,
        };
        if (1..=sizes.models).contains(&read.trained) {
            Ok(read)
        } else {
            Err(reader.invalid("the number of models trained on"))
        }
    }
}

/// Both opinions of every model, split into common and own parts; common is the mean over the first `trained` models.
fn opinions(irt: &Irt, neighbours: &Neighbours, trained: usize, vector: &[f32]) -> Vec<Opinion> {
    let responses = irt.responses(vector);
    let votes = neighbours.votes(vector, VOTERS, PROBES, SOFTNESS);
    let voted: Vec<Option<f64>> = responses
        .iter()
        .zip(&votes)
        .map(|(response, votes)| {
            let good = votes.good + PRIOR_VOTES * sigmoid(response.base);
            (votes.weight > 0.0).then(|| logit(good / (votes.weight + PRIOR_VOTES), 0.02) - response.base)
        })
        .collect();
    let common_response = mean(responses[..trained].iter().map(|response| response.delta));
    let common_vote = mean(voted[..trained].iter().flatten().copied());
    responses
        .iter()
        .zip(voted)
        .zip(votes)
        .map(|((response, voted), votes)| Opinion {
            terms: Terms {
                base: response.base,
                parts: [
                    common_response,
                    response.delta - common_response,
                    common_vote,
                    // Where no neighbour knows this model, what they say of the prompt still holds.
                    voted.map_or(0.0, |voted| voted - common_vote),
                ],
            },
            ability_variance: response.variance,
            votes,
        })
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

impl QualityPredictor for Equipoise {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        opinions(&self.irt, &self.neighbours, self.trained, vector)
            .iter()
            .map(|opinion| {
                let probability = sigmoid(self.stack.log_odds(&opinion.terms));
                let slope = probability * (1.0 - probability);
                // Three sources, as variances of the log-odds: the model's ability, the two opinions at odds (half their
                // distance), and the sampling error of the votes that say what is this model's own.
                let [response, own_response, vote, own_vote] = opinion.terms.parts;
                let odds = 0.5 * (response + own_response - vote - own_vote);
                let voters = opinion.votes.weight + PRIOR_VOTES;
                let sampling = self.stack.weights[3].powi(2) / (slope.max(0.02) * voters);
                let variance = opinion.ability_variance.max(0.0) + odds * odds + sampling;
                Estimate::new(probability, slope * variance.sqrt())
            })
            .collect()
    }
}
