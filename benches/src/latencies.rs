//! Durations in a histogram, three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Recorded durations. Bounded memory; anything above an hour counts as an hour.
#[derive(Clone, Debug)]
pub struct Latencies {
    nanoseconds: Histogram<u64>,
}

const LONGEST_NS: u64 = 3_600_000_000_000;

impl Latencies {
    /// An empty histogram.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    #[must_use]
    #[expect(clippy::expect_used, reason = "constant bounds, covered by a test")]
    pub fn new() -> Self {
        let nanoseconds = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("invariant: the bounds are valid");
        Self { nanoseconds }
    }

    /// Adds one duration.
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST_NS);
        self.nanoseconds.saturating_record(nanoseconds.max(1));
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nanoseconds.len()
    }

    /// The duration that `percent` of 100 do not exceed; zero of an empty histogram.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.nanoseconds.value_at_percentile(percent))
    }

    /// The mean; zero of an empty histogram.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.nanoseconds.mean() / 1e9)
    }

    /// The longest; zero of an empty histogram.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.max())
    }

    /// Adds another histogram's durations.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same constant bounds: nothing can lie outside.
        let _never_outside = self.nanoseconds.add(&other.nanoseconds);
    }

    /// Percentiles as milliseconds with one decimal, for a table.
    #[must_use]
    pub fn in_ms(&self, percents: &[f64]) -> Vec<String> {
        let cell = |percent: &f64| format!("{:.1}", self.percentile(*percent).as_secs_f64() * 1e3);
        percents.iter().map(cell).collect()
    }

    /// Percentiles as microseconds with one decimal, for a table.
    #[must_use]
    pub fn in_us(&self, percents: &[f64]) -> Vec<String> {
        let cell = |percent: &f64| format!("{:.1}", self.percentile(*percent).as_secs_f64() * 1e6);
        percents.iter().map(cell).collect()
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latencies = Latencies::new();
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        latencies.record(Duration::from_secs(10_000));
        let p50 = latencies.percentile(50.0).as_secs_f64();
        assert!((p50 / 0.501 - 1.0).abs() < 2e-3, "{p50}");
        assert_eq!(latencies.count(), 1001);
        assert!(latencies.max() >= Duration::from_secs(3599));
    }
}
