//! The Prometheus text format, read line by line without allocating, and what of it the fleet needs.

mod engine;
mod text;

pub use engine::EngineMetrics;
pub use text::{LineError, Sample, samples};
