//! A trained predictor: from a prompt's text to a forecast, and to a file and back.

use equipoise_types::RandomStream;

use crate::artifact::{ArtifactError, Reader, Writer, seal, unseal};
use crate::embed::{Embedder as _, Embedding, EmbeddingConfig, ExternalEncoder, HashedEmbedder};
use crate::forecast::{Forecast, ModelForecast};
use crate::length::Lengths;
use crate::name::canonical_model_name;
use crate::quality::{Estimate, Kind, Quality, QualityPredictor, Sizes};
use crate::training::{Examples, TrainingError, TrainingSet};

/// How to train.
#[derive(Clone, Debug)]
pub struct TrainingOptions {
    /// Which predictor of quality.
    pub kind: Kind,
    /// Sizes of the embedding.
    pub embedding: EmbeddingConfig,
    /// Encodes prompts in place of the hashed embedding, where it is given.
    pub encoder: Option<ExternalEncoder>,
    /// Seed of every random choice.
    pub seed: u64,
    /// What it is trained on, under which licences: kept in the artifact, for people.
    pub provenance: String,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self {
            kind: Kind::Equipoise,
            embedding: EmbeddingConfig::default(),
            encoder: None,
            seed: 0,
            provenance: String::new(),
        }
    }
}

/// One answer of a model that joins.
#[derive(Clone, Debug, PartialEq)]
pub struct GradedAnswer {
    /// What the model was asked.
    pub text: String,
    /// How good its answer was, in [0, 1].
    pub score: f64,
    /// How long it was, if known.
    pub output_tokens: Option<f64>,
}

/// Why a model could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It is there already.
    #[error("model {0} is already known to this predictor")]
    Known(String),
    /// This predictor would have to be trained anew.
    #[error("a predictor of kind {0} cannot take in a model without training; use irt or equipoise")]
    Unable(Kind),
    /// A score outside [0, 1], or a length that is not positive.
    #[error("graded answer {at}: {value} is no {what}")]
    Value {
        /// Which answer, from 0.
        at: usize,
        /// What stands there.
        value: String,
        /// What should.
        what: &'static str,
    },
    /// Too few answers to say anything.
    #[error("{found} graded answers; at least {MIN_JOIN_ANSWERS} are needed, a few dozen are better")]
    TooFew {
        /// Answers there are.
        found: usize,
    },
}

/// Fewest answers that a model can join with.
pub const MIN_JOIN_ANSWERS: usize = 5;

/// An embedding, a predictor of quality and one of length.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictor {
    models: Vec<String>,
    provenance: String,
    embedder: Embedding,
    quality: Quality,
    lengths: Lengths,
}

impl Predictor {
    /// Learns from graded answers. The same set, options and seed give the same predictor, bit for bit.
    ///
    /// # Errors
    /// A set that is too small, ragged, or has numbers out of range.
    pub fn train(set: &TrainingSet, options: &TrainingOptions) -> Result<Self, TrainingError> {
        Ok(Trainer::new(set, options)?.train(options.kind))
    }

    /// The predictor that comes with the program, trained on ZeroEval and MMLU-Pro; see `docs/predictors.md`.
    ///
    /// # Errors
    /// None in a program whose tests have passed.
    pub fn embedded() -> Result<Self, ArtifactError> {
        Self::from_bytes(include_bytes!("../artifacts/default.eqp"))
    }

    /// The canonical names of the models it knows, in the order of its forecasts.
    #[must_use]
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// What it was trained on.
    #[must_use]
    pub fn provenance(&self) -> &str {
        &self.provenance
    }

    /// Which predictor of quality it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.quality.kind()
    }

    /// Length of a prompt's vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.embedder.dimension()
    }

    /// The forecast of every known model's answer to a prompt.
    #[must_use]
    pub fn forecast(&self, text: &str) -> Forecast {
        self.forecast_of(text, self.models.iter().map(String::as_str).enumerate())
    }

    /// The forecast of some models, each given by its place in [`models`](Self::models) and the name it gets there.
    pub(crate) fn forecast_of<'a>(&self, text: &str, chosen: impl IntoIterator<Item = (usize, &'a str)>) -> Forecast {
        let vector = self.embedder.embed(text);
        let quality = self.quality.predict(&vector);
        // Few of the models that are known are served: only their lengths are worked out.
        let length = self.lengths.of(&vector);
        let models = chosen.into_iter().filter_map(|(place, name)| {
            let (estimate, output_tokens) = (quality.get(place)?, length(place)?);
            Some(ModelForecast {
                name: name.to_owned(),
                quality: estimate.probability,
                quality_sd: estimate.sd,
                output_tokens,
            })
        });
        Forecast {
            models: models.collect(),
        }
    }

    /// Every model's mean probability of a good answer over the prompts it was trained on, in the order of
    /// [`models`](Self::models). Costs about as much as a few dozen forecasts.
    #[must_use]
    pub fn mean_quality(&self) -> Vec<f64> {
        self.quality.means()
    }

    /// Only the estimates of quality, in the order of [`models`](Self::models).
    #[must_use]
    pub fn quality(&self, text: &str) -> Vec<Estimate> {
        self.quality.predict(&self.embedder.embed(text))
    }

    /// Takes in a model from graded answers, a few dozen of them, without training anything else.
    ///
    /// # Errors
    /// A model that is known, a kind that cannot, numbers out of range, too few answers.
    pub fn join_model(&mut self, name: &str, graded: &[GradedAnswer]) -> Result<(), JoinError> {
        let name = canonical_model_name(name);
        if self.models.contains(&name) {
            return Err(JoinError::Known(name));
        }
        if graded.len() < MIN_JOIN_ANSWERS {
            return Err(JoinError::TooFew { found: graded.len() });
        }
        for (at, answer) in graded.iter().enumerate() {
            if !(0.0..=1.0).contains(&answer.score) {
                return Err(JoinError::Value {
                    at,
                    value: answer.score.to_string(),
                    what: "score from 0 to 1",
                });
            }
            if let Some(tokens) = answer.output_tokens
                && !(tokens.is_finite() && tokens >= 0.0)
            {
                return Err(JoinError::Value {
                    at,
                    value: tokens.to_string(),
                    what: "length in tokens",
                });
            }
        }
        let Some(irt) = self.quality.irt() else {
            return Err(JoinError::Unable(self.kind()));
        };
        let answers: Vec<(Vec<f32>, &GradedAnswer)> = graded
            .iter()
            .map(|answer| (self.embedder.embed(&answer.text), answer))
            .collect();
        let scores: Vec<(Vec<f32>, f64)> = answers
            .iter()
            .map(|(vector, answer)| (vector.clone(), answer.score))
            .collect();
        let ability = irt.locate(&scores);
        let lengths: Vec<(Vec<f32>, f64)> = answers
            .into_iter()
            .filter_map(|(vector, answer)| answer.output_tokens.map(|tokens| (vector, tokens)))
            .collect();
        self.quality.join(ability);
        self.lengths.join(&lengths);
        self.models.push(name);
        Ok(())
    }

    /// The artifact.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.text(&self.provenance);
        writer.size(self.models.len());
        for model in &self.models {
            writer.text(model);
        }
        self.embedder.write(&mut writer);
        self.quality.write(&mut writer);
        self.lengths.write(&mut writer);
        seal(&writer.into_body())
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// Another kind of file, another version, a file that is cut off, damaged or inconsistent.
    pub fn from_bytes(file: &[u8]) -> Result<Self, ArtifactError> {
        Self::from_body(unseal(file)?, None)
    }

    /// The same for one that was trained with an encoder, which its file does not hold.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), and another encoder.
    pub fn from_bytes_with(file: &[u8], encoder: &ExternalEncoder) -> Result<Self, ArtifactError> {
        Self::from_body(unseal(file)?, Some(encoder))
    }

    fn from_body(body: &[u8], encoder: Option<&ExternalEncoder>) -> Result<Self, ArtifactError> {
        let mut reader = Reader::new(body);
        let provenance = reader.text()?;
        let count = reader.size()?;
        if count == 0 {
            return Err(reader.invalid("a predictor of no models"));
        }
        let mut models = Vec::new();
        for _ in 0..count {
            models.push(reader.text()?);
        }
        let embedder = Embedding::read(&mut reader, encoder)?;
        let sizes = Sizes {
            dimension: embedder.dimension(),
            models: count,
        };
        let quality = Quality::read(&mut reader, sizes)?;
        let lengths = Lengths::read(&mut reader, sizes)?;
        reader.finish()?;
        Ok(Self {
            models,
            provenance,
            embedder,
            quality,
            lengths,
        })
    }
}

/// Trains several kinds on one set without embedding it anew for each.
#[derive(Debug)]
pub struct Trainer {
    models: Vec<String>,
    provenance: String,
    embedder: Embedding,
    examples: Examples,
    lengths: Lengths,
    random: RandomStream,
}

impl Trainer {
    /// Learns the embedding and the lengths. `options.kind` is not looked at.
    ///
    /// # Errors
    /// A set that is too small, ragged, or has numbers out of range.
    pub fn new(set: &TrainingSet, options: &TrainingOptions) -> Result<Self, TrainingError> {
        set.check()?;
        let random = RandomStream::new(options.seed);
        let texts: Vec<&str> = set.prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        let embedder = match &options.encoder {
            Some(encoder) => Embedding::External(encoder.clone()),
            None => Embedding::Hashed(HashedEmbedder::train(&texts, options.embedding, &random)),
        };
        let examples = Examples::of(set, &embedder);
        Ok(Self {
            models: set.models.iter().map(|name| canonical_model_name(name)).collect(),
            provenance: options.provenance.clone(),
            lengths: Lengths::train(&examples),
            embedder,
            examples,
            random,
        })
    }

    /// A predictor of the given kind.
    #[must_use]
    pub fn train(&self, kind: Kind) -> Predictor {
        Predictor {
            models: self.models.clone(),
            provenance: self.provenance.clone(),
            embedder: self.embedder.clone(),
            quality: Quality::train(kind, &self.examples, &self.random),
            lengths: self.lengths.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
