//! Hedging: a stream whose first token is late is asked for a second time, elsewhere (Dean and Barroso, "The Tail at
//! Scale", CACM 56(2), 2013, who wait for the 95th percentile before they do). Off unless it is asked for.

use equipoise_policy::SettingsError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[scheduler.hedge]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HedgeSettings {
    /// A stream is late when it has waited for longer than this share of its model's last streams, in [0.5, 1).
    #[schemars(range(min = 0.5, max = 0.9999))]
    pub quantile: f64,
    /// And for so long at least, milliseconds.
    #[schemars(range(min = 1.0, max = 600_000.0))]
    pub least_delay_ms: f64,
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self {
            quantile: 0.95,
            least_delay_ms: 50.0,
        }
    }
}

impl HedgeSettings {
    pub(crate) fn validate(self) -> Result<(), SettingsError> {
        SettingsError::in_range("quantile", self.quantile, 0.5, 0.9999)?;
        SettingsError::in_range("least_delay_ms", self.least_delay_ms, 1.0, 600_000.0)
    }
}
