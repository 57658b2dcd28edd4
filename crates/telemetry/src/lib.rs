//! Metric catalogue, Prometheus exposition, logs and trace context.
