//! How many requests may be sent a second time: a share of all, as Finagle's and Envoy's retry budgets have it, so that
//! failures do not multiply the load of a fleet that fails because of its load.

use equipoise_policy::SettingsError;
use equipoise_types::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Retries are held against the requests of about so long.
const MEMORY_S: f64 = 10.0;

/// `[scheduler.retries]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// Retries that are allowed per request, of those that arrived in the last ten seconds and those that are out; [0, 1].
    /// Both of Finagle's and of Envoy's budgets it is 20 % by default.
    pub share: f64,
    /// Retries a second that are allowed beside those.
    pub floor_per_s: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            share: 0.2,
            floor_per_s: 10.0,
        }
    }
}

impl RetrySettings {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn validate(self) -> Result<(), SettingsError> {
        SettingsError::in_range("share", self.share, 0.0, 1.0)?;
        SettingsError::in_range("floor_per_s", self.floor_per_s, 0.0, 1e6)
    }
}

/// Requests and retries of the recent past, each fading with [`MEMORY_S`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryBudget {
    settings: RetrySettings,
    requests: f64,
    retries: f64,
    at: Timestamp,
}

impl RetryBudget {
    pub(crate) fn new(settings: RetrySettings) -> Self {
        Self {
            settings,
            requests: 0.0,
            retries: 0.0,
            at: Timestamp::ZERO,
        }
    }

    /// Takes other settings over; what was sent stays counted.
    pub(crate) fn configure(&mut self, settings: RetrySettings) {
        self.settings = settings;
    }

    fn fade(&mut self, now: Timestamp) {
        let left = (-now.secs_since(self.at) / MEMORY_S).exp();
        self.requests *= left;
        self.retries *= left;
        self.at = self.at.max(now);
    }

    /// A request came for the first time.
    pub(crate) fn arrived(&mut self, now: Timestamp) {
        self.fade(now);
        self.requests += 1.0;
    }

    /// Whether one may be sent again while `in_flight` are out.
    pub(crate) fn allows(&mut self, now: Timestamp, in_flight: usize) -> bool {
        self.fade(now);
        let RetrySettings { share, floor_per_s } = self.settings;
        let allowed = share * (self.requests + in_flight as f64) + floor_per_s * MEMORY_S;
        self.retries + 1.0 <= allowed
    }

    /// One is sent again.
    pub(crate) fn spend(&mut self, now: Timestamp) {
        self.fade(now);
        self.retries += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries that are allowed at once after `requests` at `now`.
    fn granted(budget: &mut RetryBudget, now: Timestamp) -> usize {
        let mut granted = 0;
        while budget.allows(now, 0) {
            budget.spend(now);
            granted += 1;
        }
        granted
    }

    #[test]
    fn retries_are_a_share_of_requests_and_a_floor() {
        let settings = RetrySettings {
            share: 0.2,
            floor_per_s: 1.0,
        };
        let mut budget = RetryBudget::new(settings);
        let at = |seconds: f64| Timestamp::from_secs_f64(seconds);
        assert_eq!(granted(&mut budget, at(0.0)), 10, "the floor");
        for _ in 0..1000 {
            budget.arrived(at(0.0));
        }
        assert_eq!(granted(&mut budget, at(0.0)), 200);
        // A second later a tenth of what was spent has faded, and a tenth of the requests with it: the floor's is left.
        assert_eq!(granted(&mut budget, at(1.0)), 0);
        assert_eq!(granted(&mut budget, at(2.2)), 1);
        // Whoever is out counts, however long ago it came.
        assert!(!budget.allows(at(2.2), 0));
        assert!(budget.allows(at(2.2), 1));
    }

    #[test]
    fn nothing_is_allowed_where_nothing_is_set() {
        let settings = RetrySettings {
            share: 0.0,
            floor_per_s: 0.0,
        };
        let mut budget = RetryBudget::new(settings);
        budget.arrived(Timestamp::ZERO);
        assert!(!budget.allows(Timestamp::ZERO, 1_000_000));
    }
}
