//! How good predictions are, on prompts that were not trained on.

mod metrics;
mod routing;

pub use metrics::{Bin, auc, brier, expected_calibration_error, reliability};
pub use routing::{Point, RoutedCurve, oracle_curve, routed_curve};

/// Whether a prompt belongs to the held-out 30 %: `mix(FNV-1a(id)) mod 10 < 3`, with FNV-1a of 64 bits and as mix
/// `h ^= h >> 33; h *= 0xff51afd7ed558ccd; h ^= h >> 33`.
#[must_use]
pub fn held_out(id: &str) -> bool {
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ (hash >> 33)) % 10 < 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_pinned() {
        let share = (0..10_000).filter(|id| held_out(&id.to_string())).count();
        assert!((2850..3150).contains(&share), "{share}");
        // The first ids of both sets, so that a change of the hash is noticed.
        let first: Vec<bool> = (0..8)
            .map(|id| held_out(&format!("gsm:gsm8k-main-test-#{id}")))
            .collect();
        assert_eq!(first, PINNED);
    }

    const PINNED: [bool; 8] = [true, true, true, false, false, false, false, true];
}
