//! A learned correction: the logarithm of observed over predicted, averaged, bounded, and fading with age.

use equipoise_types::{Ewma, Timestamp};
use serde::{Deserialize, Serialize};

/// Weight of one observation once enough were seen.
const ALPHA: f64 = 0.1;
/// After this many observations a single one may move the target by a factor of e at most.
const TRUSTED_AFTER: u64 = 5;
const OUTLIER_LOG: f64 = 1.0;
/// Factors beyond these say that the base prediction is of another world; they are still bounded.
const LOG_BOUND: f64 = 7.0;
/// Without observations the correction fades: what was slow five minutes ago may be well again.
const FADE_S: f64 = 300.0;

/// One multiplicative correction. Constant memory; reads do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    log: Ewma,
    last: Timestamp,
}

impl Default for Residual {
    fn default() -> Self {
        Self {
            log: Ewma::new(ALPHA),
            last: Timestamp::ZERO,
        }
    }
}

impl Residual {
    /// Learns from one pair; what is not positive and finite is left out.
    pub fn observe(&mut self, now: Timestamp, observed: f64, predicted: f64) {
        let ratio = observed / predicted;
        if !(ratio.is_finite() && ratio > 0.0) {
            return;
        }
        let mut log = ratio.ln().clamp(-LOG_BOUND, LOG_BOUND);
        if let Some(current) = self.log.value().filter(|_| self.log.count() >= TRUSTED_AFTER) {
            log = log.clamp(current - OUTLIER_LOG, current + OUTLIER_LOG);
        }
        self.log.observe(log);
        self.last = now;
    }

    /// The factor to multiply a base prediction with; 1 while nothing was observed.
    #[must_use]
    pub fn factor(&self, now: Timestamp) -> f64 {
        match self.log.value() {
            Some(log) => (log * (-now.secs_since(self.last) / FADE_S).exp()).exp(),
            None => 1.0,
        }
    }

    /// How many pairs it has learned from.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.log.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn learns_a_constant_factor_and_forgets_it() {
        let mut residual = Residual::default();
        let now = Timestamp::from_secs_f64(1.0);
        for _ in 0..20 {
            residual.observe(now, 3.0, 1.5);
        }
        assert!((residual.factor(now) - 2.0).abs() < 1e-9);
        let later = now + Duration::from_secs(3000);
        assert!((residual.factor(later) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn one_outlier_does_not_ruin_it() {
        let mut residual = Residual::default();
        for _ in 0..20 {
            residual.observe(Timestamp::ZERO, 1.0, 1.0);
        }
        residual.observe(Timestamp::ZERO, 1e6, 1.0);
        assert!(residual.factor(Timestamp::ZERO) < 1.2);
    }

    proptest! {
        #[test]
        fn is_always_positive_and_finite(pairs in proptest::collection::vec((any::<f64>(), any::<f64>()), 0..50)) {
            let mut residual = Residual::default();
            for (observed, predicted) in pairs {
                residual.observe(Timestamp::ZERO, observed, predicted);
                let factor = residual.factor(Timestamp(5));
                prop_assert!(factor.is_finite() && factor > 0.0);
            }
        }
    }
}
