//! What a model's answer to a prompt will be like, before any model has seen it: the probability that it is good, how sure
//! that probability is, and how long the answer will be.
//!
//! A predictor is trained once on graded answers and is then a value: pure functions of a prompt's text, no clock, no I/O,
//! randomness from a seeded stream. State: the caller's; [`Forecast`] is what travels with a request. Does not belong here:
//! reading files of graded prompts (`trace`), latency and joules (`estimate`), what to do with a forecast (`policy`).

mod artifact;
mod embed;
pub mod evaluation;
mod forecast;
mod length;
mod name;
mod numeric;
mod online;
mod predictor;
mod quality;
mod roster;
mod text;
mod training;

pub use artifact::{ArtifactError, MAX_ARTIFACT_BYTES};
pub use embed::{Embedder, EmbeddingConfig, ExternalEncoder, HashedEmbedder};
pub use forecast::{Forecast, LengthForecast, ModelForecast};
pub use name::canonical_model_name;
pub use online::{OnlineCalibration, Shift};
pub use predictor::{GradedAnswer, JoinError, MIN_JOIN_ANSWERS, Predictor, Trainer, TrainingOptions};
pub use quality::{Estimate, Kind, QualityPredictor, UnknownKind};
pub use roster::Roster;
pub use training::{MIN_TRAINING_PROMPTS, TrainingError, TrainingPrompt, TrainingSet};
