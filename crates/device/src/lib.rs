//! GPU telemetry: what the boards of a node say about themselves, through NVML.
//!
//! State: [`Nvml`] owns the loaded library and the identities of the GPUs it found. Every call blocks (a driver call
//! takes from microseconds to, on a sick board, seconds): use it on a thread of its own, never on an async runtime.
//! Does not belong here: what the energy means (crate `equipoise-energy`), whose GPU it is (the agent), setting limits.

mod error;
mod nvml;
mod reading;

pub use error::DeviceError;
pub use nvml::Nvml;
pub use reading::{GpuIdentity, GpuReading, GpuSource, Memory, find_gpu, throttle};
