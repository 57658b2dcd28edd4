//! The tables of a scenario file, key by key; values keep their place in the text.

use std::collections::BTreeMap;

use equipoise_policy::{PolicySettings, Preset, Weights};
use equipoise_scheduler::{SchedulerConfig, TenantSettings};
use serde::Deserialize;
use toml::Spanned;

use crate::fleet_file::table::{ModelTable, PoolTable};

/// A number and its place.
pub(super) type Number = Option<Spanned<f64>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTable {
    pub(super) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) policies: Vec<Spanned<String>>,
    #[serde(default, rename = "policy")]
    pub(super) policy_tables: Vec<Spanned<PolicyTable>>,
    pub(super) seeds: Option<Spanned<Vec<u64>>>,
    pub(super) fleet: Option<Spanned<FleetTable>>,
    pub(super) workload: Option<Spanned<WorkloadTable>>,
    pub(super) sweep: Option<SweepTable>,
    pub(super) slo: Option<Spanned<SloTable>>,
    #[serde(default)]
    pub(super) mismatch: MismatchTable,
    #[serde(default)]
    pub(super) network: NetworkTable,
    #[serde(default, rename = "fault")]
    pub(super) faults: Vec<FaultTable>,
    #[serde(default)]
    pub(super) autoscaling: Vec<AutoscalingTable>,
    #[serde(default, rename = "rack")]
    pub(super) racks: Vec<RackTable>,
    #[serde(default)]
    pub(super) facility: FacilityTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetTable {
    pub(super) file: Option<Spanned<String>>,
    pub(super) scheduler: Option<Spanned<SchedulerConfig>>,
    pub(super) tenants: Option<Spanned<BTreeMap<String, TenantSettings>>>,
    #[serde(default, rename = "model")]
    pub(super) models: Vec<ModelTable>,
    #[serde(default, rename = "pool")]
    pub(super) pools: Vec<PoolTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyTable {
    pub(super) policy: Spanned<String>,
    pub(super) label: Option<Spanned<String>>,
    pub(super) preset: Option<Spanned<Preset>>,
    pub(super) weights: Option<Spanned<WeightsTable>>,
    pub(super) settings: Option<PolicySettings>,
}

/// Weights; those that are absent are zero.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightsTable {
    #[serde(default)]
    quality: f64,
    #[serde(default)]
    latency: f64,
    #[serde(default)]
    energy: f64,
    #[serde(default)]
    cost: f64,
}

impl From<WeightsTable> for Weights {
    fn from(table: WeightsTable) -> Self {
        Self {
            quality: table.quality,
            latency: table.latency,
            energy: table.energy,
            cost: table.cost,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadTable {
    pub(super) trace: Option<Spanned<String>>,
    pub(super) format: Option<Spanned<String>>,
    pub(super) from_s: Number,
    pub(super) to_s: Number,
    pub(super) scale: Option<Spanned<ScaleName>>,
    pub(super) arrivals: Option<Spanned<ArrivalsName>>,
    pub(super) cv: Number,
    pub(super) swing: Number,
    pub(super) period_s: Number,
    pub(super) rate_per_s: Number,
    pub(super) requests: Option<Spanned<u64>>,
    pub(super) duration_s: Number,
    pub(super) prompt_tokens: Option<LengthsTable>,
    pub(super) output_tokens: Option<LengthsTable>,
    pub(super) exact_rate: Option<Spanned<bool>>,
    pub(super) seed: Option<Spanned<u64>>,
    pub(super) prompts: Option<PromptsName>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ScaleName {
    Time,
    Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ArrivalsName {
    Poisson,
    Gamma,
    Square,
    Diurnal,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PromptsName {
    ZeroEval,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LengthsTable {
    pub(super) mean: Spanned<f64>,
    pub(super) sigma: Number,
    pub(super) most: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SweepTable {
    #[serde(default)]
    pub(super) rates_per_s: Vec<Spanned<f64>>,
    #[serde(default)]
    pub(super) presets: Vec<Spanned<Preset>>,
    #[serde(default)]
    pub(super) weights: Vec<Spanned<WeightsTable>>,
    pub(super) seeds: Option<Spanned<Vec<u64>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SloTable {
    pub(super) ttft_ms: Number,
    pub(super) e2e_ms: Number,
    pub(super) confidence: Number,
    pub(super) enforced: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MismatchTable {
    pub(super) sd: Number,
    pub(super) speed_sd: Number,
    pub(super) noise_sd: Number,
    pub(super) drift_sd: Number,
    pub(super) stall_share: Number,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkTable {
    pub(super) hop_ms: Number,
    pub(super) telemetry_interval_ms: Number,
    pub(super) routers: Option<Spanned<u32>>,
    pub(super) state_interval_ms: Number,
    pub(super) state_age_ms: Number,
    pub(super) feedback_share: Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultName {
    Crash,
    Slow,
    RouterAway,
    ControlPlaneAway,
    TelemetryLate,
    TelemetryLost,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultTable {
    pub(super) kind: Spanned<FaultName>,
    pub(super) at_s: Spanned<f64>,
    pub(super) until_s: Number,
    pub(super) instance: Option<Spanned<String>>,
    pub(super) pool: Option<Spanned<String>>,
    pub(super) router: Option<Spanned<u32>>,
    pub(super) factor: Number,
    pub(super) delay_s: Number,
    pub(super) share: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AutoscalingTable {
    pub(super) pool: Spanned<String>,
    pub(super) min: Spanned<u32>,
    pub(super) max: Option<Spanned<u32>>,
    pub(super) target_in_flight: Number,
    pub(super) target_queue: Number,
    pub(super) start_up_s: Number,
    pub(super) cool_down_s: Number,
    pub(super) interval_s: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RackTable {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) pools: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) instances: Vec<Spanned<String>>,
    pub(super) cap_watts: Spanned<f64>,
    pub(super) interval_s: Number,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FacilityTable {
    pub(super) pue: Number,
    pub(super) carbon_g_per_kwh: Option<Spanned<CarbonValue>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum CarbonValue {
    Constant(f64),
    Hourly(Vec<f64>),
}
