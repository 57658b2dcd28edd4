//! The control plane's metrics.

use crate::catalogue;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Where measured energy went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnergyCause {
    /// Split over requests.
    Attributed,
    /// The idle draw.
    Idle,
    /// Above idle, but no known request ran.
    Unattributed,
}

impl EncodeLabelValue for EnergyCause {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Attributed => "attributed",
            Self::Idle => "idle",
            Self::Unattributed => "unattributed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

/// The labels of the energy counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EnergyLabels {
    /// The instance's name.
    pub instance: String,
    /// Where the energy went.
    pub cause: EnergyCause,
}

/// Handles to the control plane's metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct ControlMetrics {
    /// Instances in the registry.
    pub instances: Gauge,
    /// Instances whose latest sample is healthy.
    pub healthy_instances: Gauge,
    /// Node leases renewed here.
    pub leases: Gauge,
    /// Routers that report a ledger.
    pub routers: Gauge,
    /// Open watch streams.
    pub watchers: Gauge,
    /// Times a router fell behind.
    pub watch_overflows: Counter,
    /// Telemetry batches taken.
    pub telemetry_batches: Counter,
    /// Failed operations on the store.
    pub store_errors: Counter,
    /// Energy samples not accounted.
    pub rejected_energy: Counter,
    /// Activity slices given up.
    pub dropped_activity: Counter,
    energy: Family<EnergyLabels, Counter>,
}

impl ControlMetrics {
    /// Registers the control plane's metrics.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            instances: catalogue::CONTROL_INSTANCES.register(registry, Gauge::default()),
            healthy_instances: catalogue::CONTROL_HEALTHY_INSTANCES.register(registry, Gauge::default()),
            leases: catalogue::CONTROL_LEASES.register(registry, Gauge::default()),
            routers: catalogue::CONTROL_ROUTERS.register(registry, Gauge::default()),
            watchers: catalogue::CONTROL_WATCHERS.register(registry, Gauge::default()),
            watch_overflows: catalogue::CONTROL_WATCH_OVERFLOWS.register(registry, Counter::default()),
            telemetry_batches: catalogue::CONTROL_TELEMETRY_BATCHES.register(registry, Counter::default()),
            store_errors: catalogue::CONTROL_STORE_ERRORS.register(registry, Counter::default()),
            rejected_energy: catalogue::CONTROL_REJECTED_ENERGY.register(registry, Counter::default()),
            dropped_activity: catalogue::CONTROL_DROPPED_ACTIVITY.register(registry, Counter::default()),
            energy: catalogue::CONTROL_ENERGY.register(registry, Family::default()),
        }
    }

    /// Adds energy of an instance to one cause.
    pub fn add_energy(&self, instance: &str, cause: EnergyCause, millijoules: u64) {
        self.energy
            .get_or_create(&EnergyLabels {
                instance: instance.to_owned(),
                cause,
            })
            .inc_by(millijoules);
    }
}
