//! GPU telemetry: NVML, and a double with the same ABI for tests.
