//! When an engine counts as healthy.

/// Failures in a row after which an engine is unhealthy.
const FAILURES: u32 = 2;

/// Healthy after one success, unhealthy after two failures in a row; unhealthy before the first answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    healthy: bool,
    failures: u32,
}

impl Health {
    /// Takes one probe's outcome in and says whether the verdict changed.
    pub(crate) fn observe(&mut self, success: bool) -> bool {
        let before = self.healthy;
        if success {
            *self = Self {
                healthy: true,
                failures: 0,
            };
        } else {
            self.failures = self.failures.saturating_add(1);
            self.healthy &= self.failures < FAILURES;
        }
        self.healthy != before
    }

    pub(crate) fn healthy(self) -> bool {
        self.healthy
    }

    /// Healthy, and its last answer was none but good.
    pub(crate) fn beyond_doubt(self) -> bool {
        self.healthy && self.failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_forgiven_and_one_success_heals() {
        let mut health = Health::default();
        let verdicts: Vec<bool> = [false, true, false, true, false, false, false, true]
            .into_iter()
            .map(|success| {
                health.observe(success);
                health.healthy()
            })
            .collect();
        assert_eq!(verdicts, [false, true, true, true, true, false, false, true]);
    }
}
