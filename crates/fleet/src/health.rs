//! Whether an instance may get work: what its agent says, and what happened to requests sent there.

use std::time::Duration;

use equipoise_types::Timestamp;
use serde::{Deserialize, Serialize};

/// So many failures in a row take an instance out.
const FAILURES_TO_EJECT: u32 = 3;
/// The first ejection lasts this long; each further one twice as long, up to the longest.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// Health of one instance, active (probes) and passive (requests). A client's error never counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    probed_healthy: bool,
    failures_in_a_row: u32,
    ejections_in_a_row: u32,
    ejected_until: Timestamp,
}

impl Default for Health {
    /// A new instance is trusted until something speaks against it.
    fn default() -> Self {
        Self {
            probed_healthy: true,
            failures_in_a_row: 0,
            ejections_in_a_row: 0,
            ejected_until: Timestamp::ZERO,
        }
    }
}

impl Health {
    /// True where it may get work at `now`.
    #[must_use]
    pub fn is_available(&self, now: Timestamp) -> bool {
        self.probed_healthy && self.ejected_until(now).is_none()
    }

    /// What the agent's last probe said; true before the first.
    #[must_use]
    pub fn is_probed_healthy(&self) -> bool {
        self.probed_healthy
    }

    /// What the agent's probe said. A good probe after a bad one ends an ejection at once.
    pub fn probed(&mut self, healthy: bool) {
        if healthy && !self.probed_healthy {
            *self = Self::default();
        }
        self.probed_healthy = healthy;
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        self.failures_in_a_row = 0;
        self.ejections_in_a_row = 0;
    }

    /// A request could not be served there, through no fault of the client.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures_in_a_row += 1;
        if self.failures_in_a_row >= FAILURES_TO_EJECT {
            let span = FIRST_EJECTION * 2_u32.pow(self.ejections_in_a_row.min(5));
            self.ejected_until = now + span.min(LONGEST_EJECTION);
            self.ejections_in_a_row += 1;
            // One more failure after it comes back ejects it again.
            self.failures_in_a_row = FAILURES_TO_EJECT - 1;
        }
    }

    /// When the running ejection ends, if there is one.
    #[must_use]
    pub fn ejected_until(&self, now: Timestamp) -> Option<Timestamp> {
        (now < self.ejected_until).then_some(self.ejected_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_eject_and_time_brings_back() {
        let mut health = Health::default();
        let now = Timestamp::from_secs_f64(10.0);
        health.failed(now);
        health.failed(now);
        assert!(health.is_available(now));
        health.failed(now);
        assert!(!health.is_available(now));
        let back = now + FIRST_EJECTION;
        assert!(health.is_available(back));
        health.failed(back);
        assert_eq!(health.ejected_until(back), Some(back + 2 * FIRST_EJECTION));
        health.succeeded();
        health.failed(back + LONGEST_EJECTION);
        assert!(health.is_available(back + LONGEST_EJECTION));
    }

    #[test]
    fn a_good_probe_after_a_bad_one_ends_an_ejection() {
        let mut health = Health::default();
        for _ in 0..3 {
            health.failed(Timestamp::ZERO);
        }
        health.probed(false);
        assert!(!health.is_available(Timestamp::MAX));
        health.probed(true);
        assert!(health.is_available(Timestamp::ZERO));
    }
}
