//! A latency distribution with bounded memory and a bounded relative error.

use hdrhistogram::Histogram;
use std::time::Duration;

/// One microsecond to an hour, in microseconds.
const RANGE_US: (u64, u64) = (1, 3_600_000_000);

/// A distribution of durations between a microsecond and an hour, exact to 0.1 % (three significant digits).
///
/// For summaries in reports and load generators. What is scraped goes into the Prometheus histograms instead.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    microseconds: Histogram<u64>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl LatencyHistogram {
    /// An empty distribution.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants that the constructor accepts"
    )]
    pub fn new() -> Self {
        let microseconds = Histogram::new_with_bounds(RANGE_US.0, RANGE_US.1, 3)
            .expect("invariant: one microsecond to an hour with three digits is a valid range");
        Self { microseconds }
    }

    /// Takes a duration in; what lies outside the range counts at its edge.
    pub fn observe(&mut self, elapsed: Duration) {
        let value = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.saturating_record(value.clamp(RANGE_US.0, RANGE_US.1));
    }

    /// How many durations were taken in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.microseconds.len()
    }

    /// The duration below which the share `q` (in [0, 1]) lies, if there is any.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_micros(self.microseconds.value_at_quantile(q)))
    }

    /// The mean, if there is any.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_secs_f64(self.microseconds.mean() / 1e6))
    }

    /// Adds another distribution to this one.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same fixed bounds, so that every value of the other fits.
        let merged = self.microseconds.add(&other.microseconds);
        debug_assert!(merged.is_ok(), "equal bounds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth_and_outliers_count() {
        let mut first = LatencyHistogram::new();
        let mut second = LatencyHistogram::new();
        for millisecond in 1..=500 {
            first.observe(Duration::from_millis(millisecond));
            second.observe(Duration::from_millis(500 + millisecond));
        }
        first.merge(&second);
        let median = first.quantile(0.5).expect("seen").as_secs_f64();
        assert!((median / 0.5 - 1.0).abs() < 2e-3, "{median}");
        first.observe(Duration::from_secs(100_000));
        first.observe(Duration::ZERO);
        assert_eq!(first.count(), 1002);
        assert_eq!(LatencyHistogram::new().quantile(0.5), None);
    }
}
