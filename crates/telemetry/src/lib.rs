//! Logs, metrics and trace context: how the services tell what they do.
//!
//! [`catalogue`] lists every metric with its unit and labels; [`RouterMetrics`], [`ControlMetrics`] and
//! [`AgentMetrics`] are the handles that code records with. Nothing is global: each constructor takes the registry it
//! registers in, and its owner is the service that serves `/metrics`. The one exception is the log subscriber, which
//! the process has once by its nature.
//!
//! Does not belong here: HTTP servers, exporters that open connections, and any decision that reads a metric.

mod agent;
pub mod catalogue;
mod control;
mod gateway;
mod latency;
mod logging;
mod router;
pub mod trace_context;

pub use agent::{AgentMetrics, GpuLabel};
pub use catalogue::InstanceLabel;
pub use control::{ControlMetrics, EnergyCause, EnergyLabels};
pub use gateway::{ExtProcOutcome, GatewayMetrics};
pub use latency::LatencyHistogram;
pub use logging::{LogFormat, LoggingError, init_logging};
pub use prometheus_client::registry::Registry;
pub use router::{Direction, FeedbackOutcome, GateOutcome, Outcome, RouterMetrics};
pub use trace_context::TraceContext;

/// The content type of [`exposition`].
pub const EXPOSITION_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry in the OpenMetrics text format, as Prometheus scrapes it.
///
/// # Errors
/// Only if a registered metric fails to format itself, which none of this crate does.
pub fn exposition(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}
