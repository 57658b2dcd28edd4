//! How often ids come again, counted on as many of them as fit.

use std::collections::BTreeMap;

/// Different ids that are remembered at most: some tens of megabytes.
const MOST_IDS: usize = 1 << 20;

/// Counts occurrences of ids. Where there are too many different ones, only those go on being counted whose hash lies
/// below a threshold that halves (adaptive sampling: Wegman; Flajolet, "On adaptive sampling", Computing 34, 1990). An id
/// is in the sample or not whatever its number of occurrences, so that the share that recurs is an unbiased count.
#[derive(Clone, Debug)]
pub(super) struct Recurrence {
    all: u64,
    /// Occurrences by hash.
    sample: BTreeMap<u64, u64>,
    /// Hashes up to this are in the sample.
    threshold: u64,
    most: usize,
}

impl Default for Recurrence {
    fn default() -> Self {
        Self::with_most(MOST_IDS)
    }
}

/// A mixer that is one to one (the finaliser of SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
fn mix(id: u64) -> u64 {
    let mut hash = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl Recurrence {
    fn with_most(most: usize) -> Self {
        Self {
            all: 0,
            sample: BTreeMap::new(),
            threshold: u64::MAX,
            most,
        }
    }

    pub(super) fn observe(&mut self, id: u64) {
        self.all += 1;
        let hash = mix(id);
        if hash > self.threshold {
            return;
        }
        *self.sample.entry(hash).or_default() += 1;
        while self.sample.len() > self.most {
            self.threshold /= 2;
            drop(self.sample.split_off(&(self.threshold + 1)));
        }
    }

    /// All occurrences.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    /// The share of occurrences that are not the first of their id.
    pub(super) fn share(&self) -> f64 {
        let occurrences: u64 = self.sample.values().sum();
        if occurrences == 0 {
            return 0.0;
        }
        1.0 - self.sample.len() as f64 / occurrences as f64
    }

    /// The share of ids that are counted.
    pub(super) fn sampled_share(&self) -> f64 {
        self.threshold as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_finds_the_same_share() {
        let count = |most| {
            let mut recurrence = Recurrence::with_most(most);
            // Every id once, and every fourth three times more.
            for id in 0..200_000_u64 {
                for _ in 0..if id.is_multiple_of(4) { 4 } else { 1 } {
                    recurrence.observe(id);
                }
            }
            recurrence
        };
        let (exact, sampled) = (count(1 << 20), count(4096));
        assert!((exact.share() - 3.0 / 7.0).abs() < 1e-12, "{}", exact.share());
        assert!((exact.sampled_share() - 1.0).abs() < 1e-12);
        assert!(sampled.sample.len() <= 4096 && sampled.sampled_share() < 0.03);
        assert!((sampled.share() - 3.0 / 7.0).abs() < 0.02, "{}", sampled.share());
        assert_eq!(sampled.all(), 350_000);
    }
}
