//! What a scheduler can be told.

use equipoise_policy::PolicySettings;
use serde::{Deserialize, Serialize};

/// Settings of one scheduler. Absent fields keep their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerConfig {
    /// The policy's name, see `equipoise_policy::names`.
    pub policy: String,
    /// What the policies are told.
    pub settings: PolicySettings,
    /// Seed of every random draw.
    pub seed: u64,
    /// Requests that may wait at the router; the next one is refused.
    pub queue_limit: u32,
    /// How long one may wait there, seconds.
    pub queue_timeout_s: f64,
    /// Requests wait at the router rather than in a full engine.
    pub late_binding: bool,
    /// How often a request is sent before it is given up, at least 1.
    pub attempts_max: u32,
    /// Telemetry older than this says nothing about load any more, seconds.
    pub telemetry_stale_s: f64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            policy: "equipoise".to_owned(),
            settings: PolicySettings::default(),
            seed: 0,
            queue_limit: 1024,
            queue_timeout_s: 30.0,
            late_binding: true,
            attempts_max: 3,
            telemetry_stale_s: 5.0,
        }
    }
}
