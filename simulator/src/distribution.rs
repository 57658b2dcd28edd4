//! A distribution in few numbers that can be added to another one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Upper end over lower end of a bucket: a quantile is off by 1 % at most.
const GROWTH: f64 = 1.02;
/// What is smaller counts as this: a microsecond.
const LEAST: f64 = 1e-6;

/// How often values of which size occurred, in buckets of equal ratios.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Bucket and count: bucket `i` holds what lies between `1.02^i` and `1.02^(i + 1)`.
    counts: BTreeMap<i32, u64>,
}

impl Distribution {
    /// Takes one value in.
    pub fn observe(&mut self, value: f64) {
        let bucket = (value.max(LEAST).ln() / GROWTH.ln()).floor() as i32;
        *self.counts.entry(bucket).or_default() += 1;
    }

    /// Takes all values of another one in.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Value and share of values up to it, by value.
    #[must_use]
    pub fn cumulative(&self) -> Vec<(f64, f64)> {
        let total = self.count() as f64;
        let mut below = 0;
        let mut points = Vec::with_capacity(self.counts.len() + 1);
        for (bucket, count) in &self.counts {
            if points.is_empty() {
                points.push((GROWTH.powi(*bucket), 0.0));
            }
            below += count;
            points.push((GROWTH.powi(bucket + 1), below as f64 / total));
        }
        points
    }

    /// The value at a share of all, in the middle of its bucket; `None` of nothing.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        let wanted = (share.clamp(0.0, 1.0) * total as f64).max(1.0);
        let mut below = 0;
        for (bucket, count) in &self.counts {
            below += count;
            if below as f64 >= wanted {
                return Some(GROWTH.powi(*bucket) * GROWTH.sqrt());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_a_percent_off_at_most_and_parts_add_up() {
        let (mut whole, mut even, mut odd) = (
            Distribution::default(),
            Distribution::default(),
            Distribution::default(),
        );
        for step in 1..=10_000_u32 {
            let value = 0.003 * f64::from(step);
            whole.observe(value);
            let part = if step % 2 == 0 { &mut even } else { &mut odd };
            part.observe(value);
        }
        for share in [0.01, 0.5, 0.95, 0.99, 1.0] {
            let (found, exact) = (whole.quantile(share).expect("values"), 30.0 * share);
            assert!((found / exact - 1.0).abs() < 0.011, "{share}: {found} {exact}");
        }
        even.merge(&odd);
        assert_eq!(even, whole);
        let points = whole.cumulative();
        assert_eq!(points.first().map(|point| point.1), Some(0.0));
        assert!((points.last().expect("points").1 - 1.0).abs() < 1e-12);
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1)
        );
        let json = serde_json::to_string(&whole).expect("plain");
        assert_eq!(serde_json::from_str::<Distribution>(&json).expect("the same"), whole);
        assert_eq!(Distribution::default().quantile(0.5), None);
    }
}
