//! The node agent: registers the instances of a node under a lease and streams what their engines and GPUs say.
//!
//! ```text
//! engine tasks (one each): /health, /metrics ─┐
//! GPU task ─ thread that calls the driver ────┴─► outbox ─► session task ─► control plane
//! ```
//!
//! State: the outbox owns what waits to be sent, each engine task its engine's health, the GPU task the energy meters.
//! Samples replace older ones; energy intervals are kept until acknowledged, so neither a restart of the control plane
//! nor a lost lease loses a millijoule. Does not belong here: choosing instances, attribution of energy to requests.

mod agent;
mod backoff;
mod clock;
mod complaint;
mod config;
mod counter;
mod engines;
mod exposition;
mod gpu_meter;
mod gpu_thread;
mod health;
mod idle;
mod outbox;
mod replacement;
mod session;
mod shared;

pub use agent::{Agent, RunningAgent};
pub use config::{AgentConfig, AgentError, NvmlMode};
