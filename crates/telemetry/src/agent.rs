//! The node agent's metrics.

use crate::catalogue::{self, InstanceLabel};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The label of a metric that is kept per GPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GpuLabel {
    /// The GPU's NVML UUID.
    pub gpu: String,
}

/// Handles to the agent's metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// 1 while the telemetry stream is up.
    pub connected: Gauge,
    /// Batches acknowledged.
    pub batches: Counter,
    /// Times the node registered.
    pub registrations: Counter,
    /// Energy intervals with a flaw.
    pub energy_flaws: Counter,
    engine_healthy: Family<InstanceLabel, Gauge>,
    gpu_power: Family<GpuLabel, Gauge>,
    energy: Family<InstanceLabel, Counter>,
    probe: Histogram,
}

impl AgentMetrics {
    /// Registers the agent's metrics.
    pub fn new(registry: &mut Registry) -> Self {
        // A millisecond to about 16 s.
        let probe_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Self {
            connected: catalogue::AGENT_CONNECTED.register(registry, Gauge::default()),
            batches: catalogue::AGENT_BATCHES.register(registry, Counter::default()),
            registrations: catalogue::AGENT_REGISTRATIONS.register(registry, Counter::default()),
            energy_flaws: catalogue::AGENT_ENERGY_FLAWS.register(registry, Counter::default()),
            engine_healthy: catalogue::AGENT_ENGINE_HEALTHY.register(registry, Family::default()),
            gpu_power: catalogue::AGENT_GPU_POWER.register(registry, Family::default()),
            energy: catalogue::AGENT_ENERGY.register(registry, Family::default()),
            probe: catalogue::AGENT_PROBE.register(registry, probe_seconds),
        }
    }

    /// Says whether an engine answered healthy.
    pub fn set_engine_healthy(&self, instance: &str, healthy: bool) {
        self.engine_healthy
            .get_or_create(&InstanceLabel::new(instance))
            .set(i64::from(healthy));
    }

    /// Sets a GPU's board draw, milliwatts.
    pub fn set_gpu_power(&self, gpu: &str, milliwatts: u32) {
        self.gpu_power
            .get_or_create(&GpuLabel { gpu: gpu.to_owned() })
            .set(i64::from(milliwatts));
    }

    /// Adds measured energy of an instance, millijoules.
    pub fn add_energy(&self, instance: &str, millijoules: u64) {
        self.energy
            .get_or_create(&InstanceLabel::new(instance))
            .inc_by(millijoules);
    }

    /// Takes in the time that one probe took.
    pub fn observe_probe(&self, elapsed: Duration) {
        self.probe.observe(elapsed.as_secs_f64());
    }
}
