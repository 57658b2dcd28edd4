//! Units of energy and power, and how an integer amount is split without losing any of it.

use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Sub};

/// Energy as estimates use it: joules, a real number.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Joules(pub f64);

/// Power: joules per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watts(pub f64);

/// Energy as it is accounted: whole millijoules, the unit of NVML's counter, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MilliJoules(pub u64);

impl MilliJoules {
    /// No energy.
    pub const ZERO: Self = Self(0);

    /// The same amount in joules.
    #[must_use]
    pub fn as_joules(self) -> Joules {
        Joules(self.0 as f64 / 1e3)
    }

    /// The difference, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Joules {
    /// Rounded to whole millijoules; negative amounts read as zero.
    #[must_use]
    pub fn to_millijoules(self) -> MilliJoules {
        MilliJoules((self.0 * 1e3).round() as u64)
    }
}

impl Mul<f64> for Watts {
    type Output = Joules;
    /// Power times seconds.
    fn mul(self, seconds: f64) -> Joules {
        Joules(self.0 * seconds)
    }
}

macro_rules! additive {
    ($($unit:ident),*) => {$(
        impl Add for $unit {
            type Output = Self;
            fn add(self, other: Self) -> Self { Self(self.0 + other.0) }
        }
        impl AddAssign for $unit {
            fn add_assign(&mut self, other: Self) { self.0 += other.0; }
        }
        impl Sum for $unit {
            fn sum<I: Iterator<Item = Self>>(parts: I) -> Self { parts.fold(Self::default(), Add::add) }
        }
    )*};
}
additive!(Joules, Watts, MilliJoules);

impl Sub for Joules {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

/// Splits `total` in proportion to `weights` so that the parts sum to `total` exactly (largest remainder; ties go to
/// the earlier part). Weights that are not positive and finite get nothing.
///
/// Returns `None` when no weight is usable: then the caller must keep the amount under another name.
#[must_use]
pub fn apportion(total: MilliJoules, weights: &[f64]) -> Option<Vec<MilliJoules>> {
    let usable = |weight: f64| {
        if weight.is_finite() && weight > 0.0 {
            weight
        } else {
            0.0
        }
    };
    let largest = weights.iter().copied().map(usable).fold(0.0, f64::max);
    if largest <= 0.0 {
        return None;
    }
    // Scaled by the largest first, so that the sum cannot overflow to infinity.
    let sum: f64 = weights.iter().map(|&weight| usable(weight) / largest).sum();
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut given = 0_u64;
    for (index, &weight) in weights.iter().enumerate() {
        let exact = total.0 as f64 * (usable(weight) / largest / sum);
        let floor = (exact.floor() as u64).min(total.0 - given);
        given += floor;
        parts.push(floor);
        if usable(weight) > 0.0 {
            remainders.push((exact - exact.floor(), index));
        }
    }
    remainders.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // Above 2^53 rounding can leave more than one unit per part: hand out evenly, then one by one.
    let left = total.0 - given;
    let each = left / remainders.len() as u64;
    let mut extra = left % remainders.len() as u64;
    for &(_, index) in &remainders {
        parts[index] += each + u64::from(extra > 0);
        extra = extra.saturating_sub(1);
    }
    Some(parts.into_iter().map(MilliJoules).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_remainder_gets_the_odd_unit() {
        let parts = apportion(MilliJoules(10), &[1.0, 1.0, 1.0]).expect("usable weights");
        assert_eq!(parts, [MilliJoules(4), MilliJoules(3), MilliJoules(3)]);
        assert_eq!(apportion(MilliJoules(10), &[0.0, f64::NAN, -1.0]), None);
        assert_eq!(apportion(MilliJoules(10), &[]), None);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(total in any::<u64>(), weights in proptest::collection::vec(prop_oneof![0.0..1e3_f64, 0.0..1e300_f64, Just(f64::NAN)], 1..40)) {
            if let Some(parts) = apportion(MilliJoules(total), &weights) {
                prop_assert_eq!(parts.iter().map(|part| u128::from(part.0)).sum::<u128>(), u128::from(total));
                for (part, weight) in parts.iter().zip(&weights) {
                    prop_assert!(part.0 == 0 || *weight > 0.0);
                }
            }
        }
    }
}
