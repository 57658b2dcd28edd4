//! The physics of one inference engine instance: step time, power, KV memory and continuous batching.
//!
//! [`StepModel`] says what one step of a model on certain GPUs costs, in seconds and joules; it is immutable and cheap
//! to clone. [`Engine`] owns the state of one instance (running batch, waiting queue, KV ledger) and asks the step
//! model; the caller owns the clock: it calls [`Engine::begin_step`], lets `cost.seconds` pass and calls
//! [`Engine::end_step`]. Nothing here knows the time, another instance, or a policy.
//!
//! Does not belong here: routing, prediction of unknown output lengths, prefix-cache lookup (the caller says how many
//! prompt tokens are cached), attribution of joules to requests (that is the energy crate's).

mod deployment;
mod engine;
mod event;
mod gpu;
mod kv;
mod measured;
mod model;
mod power;
mod prefill_side;
mod rest;
mod roofline;
mod serving;
mod shape;
mod step;

pub use deployment::{Batching, Calibration, CalibrationError, Deployment, Link, Precision, Speculation, calibration};
pub use engine::{Engine, SteadyBatch};
pub use event::{EngineEvent, EngineRequest, EngineStats, Step, StepPart, SubmitError};
pub use gpu::{Generation, GpuSpec, gpu, gpus};
pub use measured::{ExpertStep, FitError, MeasuredError, MeasuredTable, MeasuredTier, measured_table, measured_tier};
pub use model::{Experts, Latent, ModelSpec, model, models};
pub use power::{MixtureCurve, PowerCurve};
pub use prefill_side::PrefillSide;
pub use rest::{Rest, Sleep, SleepLevel, Waking};
pub use serving::{DeclaredEngine, LinkSpec, PrefillSpec, Serving, ServingError, SpeculativeSpec};
pub use shape::{EngineLimits, EngineShape, ShapeError};
pub use step::{Decoding, EnergyTerms, StepCost, StepModel, StepWork};
