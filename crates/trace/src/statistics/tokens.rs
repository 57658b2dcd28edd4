//! A histogram of lengths: exact for short ones, ten bits of precision for long ones.

use super::TokenSummary;

/// Values below this have a bucket each; above, each doubling has half as many.
const EXACT: u32 = 2048;
const EXACT_BITS: u32 = EXACT.ilog2();

/// Lengths in tokens, counted: at most 23,000 buckets.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenHistogram {
    buckets: Vec<u64>,
    count: u64,
    total: u64,
    max: u32,
}

fn bucket(value: u32) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let shift = value.ilog2() - (EXACT_BITS - 1);
    (shift * (EXACT / 2) + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u32 {
    let half = (EXACT / 2) as usize;
    if bucket < 2 * half {
        return bucket as u32;
    }
    let shift = bucket / half - 1;
    let leading = (bucket - shift * half) as u64;
    u32::try_from(((leading + 1) << shift) - 1).unwrap_or(u32::MAX)
}

impl TokenHistogram {
    pub(super) fn observe(&mut self, value: u32) {
        let bucket = bucket(value);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.total += u64::from(value);
        self.max = self.max.max(value);
    }

    /// The least value that a share of `q` does not exceed.
    fn quantile(&self, q: f64) -> u32 {
        let rank = (q * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        reached.map_or(0, upper).min(self.max)
    }

    pub(super) fn summary(&self) -> TokenSummary {
        if self.count == 0 {
            return TokenSummary::default();
        }
        TokenSummary {
            total: self.total,
            mean: self.total as f64 / self.count as f64,
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            max: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_value_within_a_thousandth(value in any::<u32>()) {
            let upper = upper(bucket(value));
            prop_assert!(upper >= value && f64::from(upper) <= f64::from(value) * 1.001, "{value} {upper}");
            if value < EXACT {
                prop_assert_eq!(upper, value);
            }
            prop_assert!(bucket(value) < 24_000);
        }
    }
}
