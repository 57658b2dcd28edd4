//! What a model's answer to a prompt will be like, before any model has seen it: the probability that it is good, how sure
//! that probability is, and how long the answer will be.
//!
//! A predictor is trained once on graded answers and is then a value: pure functions of a prompt's text, no clock, no I/O,
//! randomness from a seeded stream. State: the caller's; [`Forecast`] is what travels with a request. Does not belong here:
//! reading files of graded prompts (`trace`), latency and joules (`estimate`), what to do with a forecast (`policy`).

mod forecast;
mod name;

pub use forecast::{Forecast, LengthForecast, ModelForecast};
pub use name::canonical_model_name;
