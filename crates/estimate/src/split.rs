//! Telling the two parts of an answer in one piece apart.
//!
//! Of such an answer only the whole is observed: `e2e = a·F + b·T`, with F the predicted time to first token, T the
//! predicted time of all further tokens, and a and b the factors to learn. Divided by F + T this is a straight line, ratio
//! = b + (a − b)·share, with share = F / (F + T): a running linear regression of the ratio on the share gives both. An
//! engine whose time does not depend on the answer's length shows b = 0, and long answers no longer look like a fast one.

use equipoise_types::Ewma;
use serde::{Deserialize, Serialize};

/// Weight of one observation once enough were seen: the shape of an engine changes less often than its speed.
const ALPHA: f64 = 0.03;
/// Fewer observations make no line.
const TRUSTED_AFTER: u64 = 8;
/// Variance of the share below which all answers are as good as equally long, and the slope says nothing. It is added
/// to the variance, so that the slope goes to zero with it.
const FLAT: f64 = 1e-5;
/// A part is never held to take no time at all.
const LEAST_FACTOR: f64 = 1e-6;

/// The running regression. Constant memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Split {
    ratio: Ewma,
    share: Ewma,
    share_ratio: Ewma,
    share_share: Ewma,
}

impl Default for Split {
    fn default() -> Self {
        let average = Ewma::new(ALPHA);
        Self {
            ratio: average,
            share: average,
            share_ratio: average,
            share_share: average,
        }
    }
}

impl Split {
    /// Takes an answer of `e2e_s` seconds in, predicted as `first_s` to the first token and `further_s` for all others, and
    /// answers what to hold its two parts to have been, seconds. Without an answer's worth of evidence both are off by
    /// the same factor.
    pub(crate) fn observe(&mut self, e2e_s: f64, first_s: f64, further_s: f64) -> (f64, f64) {
        let whole_s = first_s + further_s;
        let (ratio, share) = (e2e_s / whole_s, first_s / whole_s);
        if !(ratio.is_finite() && share.is_finite()) {
            return (first_s, further_s);
        }
        self.ratio.observe(ratio);
        self.share.observe(share);
        self.share_ratio.observe(share * ratio);
        self.share_share.observe(share * share);
        let (first, further) = self.factors().unwrap_or((ratio, ratio));
        let told_s = first * first_s + further * further_s;
        let off = e2e_s / told_s;
        (first * first_s * off, further * further_s * off)
    }

    /// Observed over predicted, of the time to first token and of the rest.
    fn factors(&self) -> Option<(f64, f64)> {
        if self.ratio.count() < TRUSTED_AFTER {
            return None;
        }
        let (ratio, share) = (self.ratio.value()?, self.share.value()?);
        let covariance = self.share_ratio.value()? - share * ratio;
        let variance = (self.share_share.value()? - share * share).max(0.0);
        let slope = covariance / (variance + FLAT);
        let further = ratio - slope * share;
        let first = further + slope;
        // Time is not negative: where one part would be, the line through zero that fits best takes its place.
        Some(if further < LEAST_FACTOR {
            (
                self.share_ratio.value()? / self.share_share.value()?.max(FLAT),
                LEAST_FACTOR,
            )
        } else if first < LEAST_FACTOR {
            let rest_rest = 1.0 - 2.0 * share + self.share_share.value()?;
            let rest_ratio = ratio - self.share_ratio.value()?;
            (LEAST_FACTOR, rest_ratio / rest_rest.max(FLAT))
        } else {
            (first, further)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_types::RandomStream;
    use proptest::prelude::*;

    /// Factors after 200 answers of log-normal length from an engine that takes `first_s` and then `token_s` a token.
    fn learned(first_s: f64, token_s: f64) -> (f64, f64) {
        let mut random = RandomStream::new(3);
        let mut split = Split::default();
        for _ in 0..200 {
            let tokens = random.log_normal(150.0, 0.8);
            split.observe(first_s + tokens * token_s, 0.05, tokens * 0.02);
        }
        split.factors().expect("enough")
    }

    #[test]
    fn a_box_is_told_from_an_engine() {
        let near = |got: (f64, f64), want: (f64, f64)| {
            assert!((got.0 / want.0 - 1.0).abs() < 0.05, "{got:?} {want:?}");
            assert!((got.1 - want.1).abs() < 0.02, "{got:?} {want:?}");
        };
        near(learned(0.05, 0.0), (1.0, 0.0));
        near(learned(0.4, 0.0), (8.0, 0.0));
        near(learned(0.1, 0.03), (2.0, 1.5));
    }

    #[test]
    fn equal_answers_leave_the_parts_alike() {
        let mut split = Split::default();
        for _ in 0..50 {
            split.observe(2.0, 0.5, 0.5);
        }
        let parts = split.observe(2.0, 0.5, 0.5);
        assert!(
            (parts.0 - 1.0).abs() < 1e-6 && (parts.1 - 1.0).abs() < 1e-6,
            "{parts:?}"
        );
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(
            answers in proptest::collection::vec((1e-4..1e3_f64, 1e-4..1e2_f64, 0.0..1e3_f64), 1..60),
        ) {
            let mut split = Split::default();
            for (e2e_s, first_s, further_s) in answers {
                let (first, further) = split.observe(e2e_s, first_s, further_s);
                prop_assert!(first >= 0.0 && further >= 0.0);
                prop_assert!(((first + further) / e2e_s - 1.0).abs() < 1e-9);
            }
        }
    }
}
