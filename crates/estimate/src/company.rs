//! In how large a batch one model's requests are served: who else pays for a step that has to run anyway.

use equipoise_types::Timestamp;
use serde::{Deserialize, Serialize};

/// Weight of one request.
const ALPHA: f64 = 0.02;
/// Without requests nobody else is expected, after a while.
const FADE_S: f64 = 60.0;

/// Mean batch that requests of one model joined lately. Constant memory; reads do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Company {
    others: f64,
    last: Timestamp,
}

impl Default for Company {
    fn default() -> Self {
        Self {
            others: 0.0,
            last: Timestamp::ZERO,
        }
    }
}

impl Company {
    /// A request was sent to where so many others were.
    pub fn observe(&mut self, now: Timestamp, others: u32) {
        let known = self.batch(now) - 1.0;
        self.others = known + ALPHA * (f64::from(others) - known);
        self.last = now;
    }

    /// The batch to be expected, oneself included; at least 1.
    #[must_use]
    pub fn batch(&self, now: Timestamp) -> f64 {
        1.0 + self.others * (-now.secs_since(self.last) / FADE_S).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_batches_and_is_forgotten_when_nobody_comes() {
        let at = Timestamp::from_secs_f64;
        let mut company = Company::default();
        assert_eq!(company.batch(at(5.0)), 1.0);
        for request in 0..400 {
            company.observe(at(5.0 + 0.01 * f64::from(request)), 31);
        }
        assert!((company.batch(at(9.0)) - 32.0).abs() < 0.5, "{company:?}");
        assert!(company.batch(at(609.0)) < 1.01, "{company:?}");
    }
}
