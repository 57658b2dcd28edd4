//! What a scheduler can be told.

use std::collections::BTreeMap;

use equipoise_policy::{Policy, PolicySettings, SettingsError, by_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tenants::{MOST_TENANTS, TenantSettings};
use crate::{CascadeSettings, ExplorationSettings, HedgeSettings, PrefixSettings, RetrySettings};

/// Settings of one scheduler. Absent fields keep their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerConfig {
    /// The policy's name, see `equipoise_policy::all_names`; `cascade[@THRESHOLD]+NAME` is that policy with a cascade.
    pub policy: String,
    /// What the policies are told.
    pub settings: PolicySettings,
    /// Seed of every random draw.
    pub seed: u64,
    /// Requests that may wait at the router for each model, and for `auto`; one of those there are with the next is refused.
    /// 0: nobody waits.
    pub queue_limit: u32,
    /// How long one may wait there, seconds.
    #[schemars(range(min = 0.0, max = 86_400.0))]
    pub queue_timeout_s: f64,
    /// Requests wait at the router rather than in a full engine.
    pub late_binding: bool,
    /// A batch that arrived together is improved by moves and swaps after it was decided; policies without an absolute
    /// score are left alone.
    pub improve_batches: bool,
    /// How often a request is sent before it is given up, at least 1.
    #[schemars(range(min = 1, max = 100))]
    pub attempts_max: u32,
    /// How many of them may be sent again, so that failures do not multiply load.
    #[serde(skip_serializing_if = "RetrySettings::is_default")]
    pub retries: RetrySettings,
    /// Telemetry older than this says nothing about load any more, seconds.
    #[schemars(range(min = 0.001, max = 86_400.0))]
    pub telemetry_stale_s: f64,
    /// Outcomes of a model that are remembered, about: fewer follow a change sooner, more are steadier. 10 at least.
    #[schemars(range(min = 10.0, max = 1e6))]
    pub feedback_memory: f64,
    /// How prompts are cut into blocks, to tell what is in whose prefix cache.
    #[serde(skip_serializing_if = "PrefixSettings::is_default")]
    pub prefix: PrefixSettings,
    /// What holds for tenants, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, TenantSettings>,
    /// Whether some requests go elsewhere to learn about models. Off by default.
    pub exploration: ExplorationSettings,
    /// Whether first answers of `auto` that are not sure of themselves are replaced by a better model's. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<CascadeSettings>,
    /// Whether streams whose first token is late are asked for a second time, elsewhere. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeSettings>,
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
            improve_batches: true,
            attempts_max: 3,
            retries: RetrySettings::default(),
            prefix: PrefixSettings::default(),
            tenants: BTreeMap::new(),
            telemetry_stale_s: 5.0,
            feedback_memory: 100.0,
            exploration: ExplorationSettings::default(),
            cascade: None,
            hedge: None,
        }
    }
}

impl SchedulerConfig {
    /// The policy that its name means, and the cascade around it, if any.
    ///
    /// # Errors
    /// For a name nobody knows, and for settings that make no sense.
    pub fn policy(&self) -> Result<(Box<dyn Policy>, Option<CascadeSettings>), SettingsError> {
        let (name, cascade) = CascadeSettings::of_name(&self.policy, self.cascade)?;
        Ok((by_name(name, &self.settings)?, cascade))
    }

    /// Checks the figures that are the scheduler's own; the policy's are checked with the policy.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn validate(&self) -> Result<(), SettingsError> {
        const DAY_S: f64 = 86_400.0;
        SettingsError::in_range("queue_timeout_s", self.queue_timeout_s, 0.0, DAY_S)?;
        SettingsError::in_range("telemetry_stale_s", self.telemetry_stale_s, 0.001, DAY_S)?;
        self.exploration.validate()?;
        self.retries.validate()?;
        self.prefix.validate()?;
        self.cascade.map_or(Ok(()), CascadeSettings::validate)?;
        self.hedge.map_or(Ok(()), HedgeSettings::validate)?;
        SettingsError::in_range("feedback_memory", self.feedback_memory, 10.0, 1e6)?;
        SettingsError::in_range("tenants", self.tenants.len() as f64, 0.0, MOST_TENANTS as f64)?;
        for tenant in self.tenants.values() {
            tenant.validate()?;
        }
        SettingsError::in_range("attempts_max", f64::from(self.attempts_max), 1.0, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        let check = |change: fn(&mut SchedulerConfig)| {
            let mut config = SchedulerConfig::default();
            change(&mut config);
            config.validate()
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert!(check(|config| config.queue_timeout_s = -5.0).is_err());
        assert!(check(|config| config.queue_timeout_s = f64::NAN).is_err());
        assert!(check(|config| config.telemetry_stale_s = 0.0).is_err());
        assert!(check(|config| config.feedback_memory = 1.0).is_err());
        assert!(check(|config| config.exploration.share = 1.1).is_err());
        assert!(check(|config| config.exploration.budget_per_hour = f64::NAN).is_err());
        let error = check(|config| config.attempts_max = 0).expect_err("nonsense");
        assert_eq!(error.to_string(), "`attempts_max` is 0; it must be from 1 to 100");
    }
}
