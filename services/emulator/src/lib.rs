//! A vLLM-compatible engine without a GPU: the engine model in real time behind real HTTP.
//!
//! Purpose: stand in for a vLLM server on a machine without an accelerator. It speaks vLLM's endpoints, streams, errors and
//! metric names; how long things take and what they draw comes from [`equipoise_engine`]; the words of its answers
//! are made up, from the seed and the prompt.
//!
//! State: one task owns the engine, its prefix cache and the live requests; HTTP handlers reach it through a bounded
//! channel, hear of progress through one watch cell per request, and read its numbers behind a short lock.
//!
//! Does not belong here: routing, prediction, and how long a step takes.

mod answer;
mod body;
mod config;
mod engine_task;
mod exposition;
mod handler;
mod histogram;
mod kept;
mod length;
mod meter;
mod metrics;
mod pooling;
mod prefix;
mod refusal;
mod server;
mod tokenizer;

pub use config::{EmulatorConfig, OutputLengths};
pub use server::{Emulator, RunningEmulator, StartError};
