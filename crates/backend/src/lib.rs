//! Clients to inference engines: one [`EngineClient`] per engine with its connection pool, probes of health and models,
//! and a reader of the Prometheus text that engines expose.
//!
//! State: each [`EngineClient`] owns the idle connections of its engine; clones share them. Nothing else is kept.
//! Does not belong here: choosing an engine, retry policy (errors only say what a retry would cost), OpenAI's types.

mod client;
mod connection;
mod endpoint;
mod error;
pub mod metrics;
pub mod pem;
mod pool;
mod socket;
mod tls;

pub use client::{BoxBody, BoxError, EngineClient, EngineClientConfig, ServedModel, empty_body, full_body};
pub use connection::EngineBody;
pub use endpoint::{Endpoint, strip_hop_by_hop};
pub use error::{BackendError, Retry};
pub use metrics::EngineMetrics;
pub use tls::{EngineTls, EngineTlsError, EngineTlsFiles};
