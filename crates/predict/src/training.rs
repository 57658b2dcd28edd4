//! What predictors learn from.

use crate::embed::Embedder;

/// Prompts with what several models made of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingSet {
    /// Names of the models, canonical and distinct.
    pub models: Vec<String>,
    /// The prompts.
    pub prompts: Vec<TrainingPrompt>,
}

/// One prompt and the answers to it.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingPrompt {
    /// What the models were asked.
    pub text: String,
    /// Per model: how good its answer was, in [0, 1]; `None` if it was not asked.
    pub scores: Vec<Option<f64>>,
    /// Per model: length of its answer in tokens; `None` if unknown.
    pub output_tokens: Vec<Option<f64>>,
}

/// Why a training set cannot be learned from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainingError {
    /// Too little of it.
    #[error("{found} prompts of {found_models} models to train on; at least {needed} prompts and one model are needed")]
    TooSmall {
        /// Prompts there are.
        found: usize,
        /// Models there are.
        found_models: usize,
        /// Prompts that are needed.
        needed: usize,
    },
    /// A prompt has not one entry per model.
    #[error("prompt {prompt} has {found} scores and {found_lengths} lengths for {models} models")]
    Ragged {
        /// Which prompt, from 0.
        prompt: usize,
        /// Scores there are.
        found: usize,
        /// Lengths there are.
        found_lengths: usize,
        /// Models there are.
        models: usize,
    },
    /// A score outside [0, 1] or a length that is not positive and finite.
    #[error("prompt {prompt}, model {model}: {value} is no {what}")]
    Value {
        /// Which prompt, from 0.
        prompt: usize,
        /// Which model.
        model: String,
        /// What stands there.
        value: String,
        /// What should: "score from 0 to 1", "length in tokens".
        what: &'static str,
    },
    /// A model nobody graded.
    #[error("model {model} has no graded answer; leave it out")]
    Ungraded {
        /// Which model.
        model: String,
    },
}

/// Prompts below this number are no training set: folds and neighbours would be empty.
pub const MIN_TRAINING_PROMPTS: usize = 20;

impl TrainingSet {
    /// Says what is wrong with the set, if anything.
    ///
    /// # Errors
    /// The first thing found.
    pub fn check(&self) -> Result<(), TrainingError> {
        let (found, found_models) = (self.prompts.len(), self.models.len());
        if found < MIN_TRAINING_PROMPTS || found_models == 0 {
            return Err(TrainingError::TooSmall {
                found,
                found_models,
                needed: MIN_TRAINING_PROMPTS,
            });
        }
        let mut graded = vec![false; found_models];
        for (index, prompt) in self.prompts.iter().enumerate() {
            let (found, found_lengths) = (prompt.scores.len(), prompt.output_tokens.len());
            if found != found_models || found_lengths != found_models {
                return Err(TrainingError::Ragged {
                    prompt: index,
                    found,
                    found_lengths,
                    models: found_models,
                });
            }
            for (at, model) in self.models.iter().enumerate() {
                let bad = |value: f64, what| {
                    Err(TrainingError::Value {
                        prompt: index,
                        model: model.clone(),
                        value: value.to_string(),
                        what,
                    })
                };
                match prompt.scores[at] {
                    Some(score) if !(0.0..=1.0).contains(&score) => return bad(score, "score from 0 to 1"),
                    Some(_) => graded[at] = true,
                    None => {}
                }
                if let Some(tokens) = prompt.output_tokens[at]
                    && !(tokens.is_finite() && tokens >= 0.0)
                {
                    return bad(tokens, "length in tokens");
                }
            }
        }
        match graded.iter().position(|&graded| !graded) {
            Some(at) => Err(TrainingError::Ungraded {
                model: self.models[at].clone(),
            }),
            None => Ok(()),
        }
    }
}

/// A training set as numbers: one row per prompt.
#[derive(Clone, Debug)]
pub(crate) struct Examples {
    /// Length of a vector.
    pub(crate) dimension: usize,
    /// Number of models.
    pub(crate) models: usize,
    /// Row-major, prompts × dimension.
    vectors: Vec<f32>,
    /// Row-major, prompts × models; NaN where not graded.
    scores: Vec<f64>,
    /// Row-major, prompts × models; natural logarithm of tokens, NaN where unknown.
    log_tokens: Vec<f64>,
}

impl Examples {
    /// Embeds the prompts of a set that has been checked.
    pub(crate) fn of(set: &TrainingSet, embedder: &dyn Embedder) -> Self {
        let mut examples = Self {
            dimension: embedder.dimension(),
            models: set.models.len(),
            vectors: Vec::with_capacity(set.prompts.len() * embedder.dimension()),
            scores: Vec::with_capacity(set.prompts.len() * set.models.len()),
            log_tokens: Vec::with_capacity(set.prompts.len() * set.models.len()),
        };
        for prompt in &set.prompts {
            examples.vectors.extend(embedder.embed(&prompt.text));
            examples
                .scores
                .extend(prompt.scores.iter().map(|score| score.unwrap_or(f64::NAN)));
            examples.log_tokens.extend(
                prompt
                    .output_tokens
                    .iter()
                    .map(|tokens| tokens.map_or(f64::NAN, |tokens| tokens.max(1.0).ln())),
            );
        }
        examples
    }

    pub(crate) fn len(&self) -> usize {
        self.vectors.len() / self.dimension
    }

    pub(crate) fn vector(&self, prompt: usize) -> &[f32] {
        &self.vectors[prompt * self.dimension..(prompt + 1) * self.dimension]
    }

    pub(crate) fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    pub(crate) fn scores(&self, prompt: usize) -> &[f64] {
        &self.scores[prompt * self.models..(prompt + 1) * self.models]
    }

    pub(crate) fn log_tokens(&self, prompt: usize) -> &[f64] {
        &self.log_tokens[prompt * self.models..(prompt + 1) * self.models]
    }

    /// The prompts for which `keep` holds, in their order.
    pub(crate) fn subset(&self, keep: impl Fn(usize) -> bool) -> Self {
        let mut subset = Self {
            vectors: Vec::new(),
            scores: Vec::new(),
            log_tokens: Vec::new(),
            ..*self
        };
        for prompt in (0..self.len()).filter(|&prompt| keep(prompt)) {
            subset.vectors.extend_from_slice(self.vector(prompt));
            subset.scores.extend_from_slice(self.scores(prompt));
            subset.log_tokens.extend_from_slice(self.log_tokens(prompt));
        }
        subset
    }

    /// Per model its mean score, with one good and one bad answer added so that none is 0 or 1.
    pub(crate) fn mean_scores(&self) -> Vec<f64> {
        let mut sums = vec![(1.0, 2.0); self.models];
        for prompt in 0..self.len() {
            for (sum, &score) in sums.iter_mut().zip(self.scores(prompt)) {
                if !score.is_nan() {
                    sum.0 += score;
                    sum.1 += 1.0;
                }
            }
        }
        sums.into_iter().map(|(good, all)| good / all).collect()
    }
}
