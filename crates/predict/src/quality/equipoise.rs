//! Our predictor: an item response model, partially pooled heads and the votes of near prompts, stacked.
//!
//! The item response model generalises (what makes a prompt hard is shared), the pooled heads give every model directions
//! of its own where the data insist, the neighbours know what neither can express (families of like questions). All are
//! fitted on all examples; how much each is worth is learned from predictions for examples that none had seen.

use equipoise_types::RandomStream;

use super::irt::{Ability, Irt, IrtConfig};
use super::neighbours::{Neighbours, Votes, lists_for};
use super::pooled::Pooled;
use super::stack::{Stack, Terms};
use super::{Estimate, QualityPredictor, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{logit, sigmoid};
use crate::text::SURFACE_FEATURES;
use crate::training::Examples;

/// Chosen by cross-validation on the training parts of both published sets.
const CONFIG: IrtConfig = IrtConfig {
    traits: 4,
    loading_penalty: 200.0,
    ability_penalty: 100.0,
    curved: SURFACE_FEATURES,
};
/// Neighbours that vote.
const VOTERS: usize = 80;
/// Lists that are searched, of at most 64.
const PROBES: usize = 12;
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
    experts: Experts,
    stack: Stack,
    /// Models that were trained on, which come first and whose mean is the common part. One that joins changes nothing
    /// for them.
    trained: usize,
}

/// Those that have an opinion.
#[derive(Clone, Debug, PartialEq)]
struct Experts {
    irt: Irt,
    pooled: Pooled,
    neighbours: Neighbours,
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
            let experts = Experts::train(&seen, &random);
            for prompt in (0..examples.len()).filter(|&prompt| fold_of[prompt] == fold) {
                let opinions = experts.opinions(examples.models, examples.vector(prompt));
                for (opinion, &score) in opinions.iter().zip(examples.scores(prompt)) {
                    if !score.is_nan() {
                        samples.push((opinion.terms, score));
                    }
                }
            }
        }
        Self {
            experts: Experts::train(examples, random),
            stack: Stack::train(&samples),
            trained: examples.models,
        }
    }

    pub(crate) fn irt(&self) -> &Irt {
        &self.experts.irt
    }

    /// Adds a model at the end, which no neighbour was graded for.
    pub(crate) fn push(&mut self, ability: Ability) {
        self.experts.irt.push(ability);
        self.experts.neighbours.push_ungraded_model();
    }

    /// Every model's mean probability over some of the prompts that it was trained on, the same for all models. By the
    /// item response model alone: the neighbours of these prompts are they themselves, with their labels.
    pub(crate) fn means(&self) -> Vec<f64> {
        let mut means = self.experts.irt.means();
        let mut count = 1.0;
        for vector in self.experts.neighbours.some_prompts(PROMPTS_OF_MEANS) {
            count += 1.0;
            for (mean, response) in means.iter_mut().zip(self.experts.irt.responses(&vector)) {
                *mean += (sigmoid(response.base + response.delta) - *mean) / count;
            }
        }
        means
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.trained);
        self.experts.irt.write(writer);
        self.experts.pooled.write(writer);
        self.experts.neighbours.write(writer);
        self.stack.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let trained = reader.size()?;
        if !(1..=sizes.models).contains(&trained) {
            return Err(reader.invalid("the number of models trained on"));
        }
        let known = Sizes {
            models: trained,
            ..sizes
        };
        Ok(Self {
            experts: Experts {
                irt: Irt::read(reader, sizes)?,
                pooled: Pooled::read(reader, known)?,
                neighbours: Neighbours::read(reader, sizes)?,
            },
            stack: Stack::read(reader)?,
            trained,
        })
    }
}

impl Experts {
    fn train(examples: &Examples, random: &RandomStream) -> Self {
        Self {
            irt: Irt::train(examples, &CONFIG, random),
            pooled: Pooled::train(examples),
            neighbours: Neighbours::build(examples, lists_for(examples.len()), random),
        }
    }

    /// The opinions of every model, split into common and own parts; common is the mean over the first `trained` models.
    fn opinions(&self, trained: usize, vector: &[f32]) -> Vec<Opinion> {
        let responses = self.irt.responses(vector);
        let heads: Vec<f64> = self
            .pooled
            .log_odds(vector)
            .iter()
            .zip(&responses)
            .map(|(log_odds, response)| log_odds - response.base)
            .collect();
        let votes = self.neighbours.votes(vector, VOTERS, PROBES, SOFTNESS);
        let voted: Vec<Option<f64>> = responses
            .iter()
            .zip(&votes)
            .map(|(response, votes)| {
                let good = votes.good + PRIOR_VOTES * sigmoid(response.base);
                (votes.weight > 0.0).then(|| logit(good / (votes.weight + PRIOR_VOTES), 0.02) - response.base)
            })
            .collect();
        let common_response = mean(responses[..trained].iter().map(|response| response.delta));
        let common_head = mean(heads.iter().copied());
        let common_vote = mean(voted[..trained].iter().flatten().copied());
        let opinion = |model: usize| Opinion {
            terms: Terms {
                base: responses[model].base,
                // Where an expert does not know this model, what it says of the prompt still holds.
                parts: [
                    common_response,
                    responses[model].delta - common_response,
                    common_head,
                    heads.get(model).map_or(0.0, |head| head - common_head),
                    common_vote,
                    voted[model].map_or(0.0, |voted| voted - common_vote),
                ],
            },
            ability_variance: responses[model].variance,
            votes: votes[model],
        };
        (0..responses.len()).map(opinion).collect()
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

impl QualityPredictor for Equipoise {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        self.experts
            .opinions(self.trained, vector)
            .iter()
            .map(|opinion| {
                let probability = sigmoid(self.stack.log_odds(&opinion.terms));
                let slope = probability * (1.0 - probability);
                // Three sources, as variances of the log-odds: the model's ability, the opinions at odds, and the sampling
                // error of the votes that say what is this model's own.
                let voters = opinion.votes.weight + PRIOR_VOTES;
                let sampling = self.stack.own_vote_weight().powi(2) / (slope.max(0.02) * voters);
                let variance = opinion.ability_variance.max(0.0) + opinion.terms.spread() + sampling;
                Estimate::new(probability, slope * variance.sqrt())
            })
            .collect()
    }
}
