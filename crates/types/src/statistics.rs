//! Small statistics with bounded memory. Reads never change state; time is an argument.

use serde::{Deserialize, Serialize};

/// An exponentially weighted moving average: the mean of what was seen, with the latest weighing `alpha`.
///
/// The first few values weigh 1/n until 1/n falls below `alpha`, so that the start is not biased to the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    alpha: f64,
    value: f64,
    count: u64,
}

impl Ewma {
    /// An average without a value yet; `alpha` in (0, 1].
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self {
            alpha,
            value: 0.0,
            count: 0,
        }
    }

    /// Takes one more value in; what is not finite is left out.
    pub fn observe(&mut self, value: f64) {
        if value.is_finite() {
            self.count += 1;
            let weight = self.alpha.max(1.0 / self.count as f64);
            self.value += weight * (value - self.value);
        }
    }

    /// The average, if anything was seen.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then_some(self.value)
    }

    /// How many values were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

const BUCKETS_PER_OCTAVE: f64 = 4.0;
const BUCKETS: usize = 80;

/// A running distribution of positive numbers up to about a million: 80 buckets, four to an octave (width 19 %),
/// with old weight fading so that it follows the workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogHistogram {
    weights: Vec<f64>,
    total: f64,
    sum: f64,
    memory: f64,
}

impl LogHistogram {
    /// A distribution that remembers about `memory` observations.
    #[must_use]
    pub fn new(memory: f64) -> Self {
        Self {
            weights: vec![0.0; BUCKETS],
            total: 0.0,
            sum: 0.0,
            memory: memory.max(1.0),
        }
    }

    fn bucket(value: f64) -> usize {
        ((value.max(1.0).log2() * BUCKETS_PER_OCTAVE) as usize).min(BUCKETS - 1)
    }

    /// Takes one value in.
    pub fn observe(&mut self, value: f64) {
        self.observe_weighted(value, 1.0);
    }

    /// Takes one value in that stands for `weight` observations.
    pub fn observe_weighted(&mut self, value: f64, weight: f64) {
        if !value.is_finite() || !weight.is_finite() || weight <= 0.0 {
            return;
        }
        self.weights[Self::bucket(value)] += weight;
        self.total += weight;
        self.sum += weight * value;
        if self.total > 2.0 * self.memory {
            // Halving when full costs 80 multiplications once per `memory` observations.
            for bucket in &mut self.weights {
                *bucket *= 0.5;
            }
            self.total *= 0.5;
            self.sum *= 0.5;
        }
    }

    /// The mean, if anything was seen.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.sum / self.total)
    }

    /// The weight of what was seen and is still remembered.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.total
    }

    /// The value below which the share `q` lies, interpolated inside its bucket, if anything was seen.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.total <= 0.0 {
            return None;
        }
        let mut left = q.clamp(0.0, 1.0) * self.total;
        let mut last = 0;
        for (index, &weight) in self.weights.iter().enumerate() {
            if weight <= 0.0 {
                continue;
            }
            if left <= weight {
                return Some(2_f64.powf((index as f64 + left / weight) / BUCKETS_PER_OCTAVE));
            }
            left -= weight;
            last = index;
        }
        Some(2_f64.powf((last as f64 + 1.0) / BUCKETS_PER_OCTAVE))
    }
}

/// The quantile of values that are sorted ascending, linearly interpolated (type 7); `None` if there are none.
#[must_use]
pub fn quantile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_starts_as_a_mean_and_then_follows() {
        let mut average = Ewma::new(0.1);
        assert_eq!(average.value(), None);
        average.observe(1.0);
        average.observe(3.0);
        assert_eq!(average.value(), Some(2.0));
        for _ in 0..200 {
            average.observe(10.0);
        }
        assert!((average.value().expect("seen") - 10.0).abs() < 1e-6);
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut lengths = LogHistogram::new(1e6);
        for value in 1..=1000 {
            lengths.observe(f64::from(value));
        }
        let median = lengths.quantile(0.5).expect("seen");
        assert!((median / 500.0 - 1.0).abs() < 0.1, "{median}");
        assert!((lengths.mean().expect("seen") - 500.5).abs() < 1e-9);
    }

    #[test]
    fn sorted_quantiles_interpolate() {
        assert_eq!(quantile_of_sorted(&[1.0, 2.0, 3.0], 0.5), Some(2.0));
        assert_eq!(quantile_of_sorted(&[1.0, 2.0], 0.75), Some(1.75));
        assert_eq!(quantile_of_sorted(&[], 0.5), None);
    }
}
