use proptest::prelude::*;

use super::*;

proptest! {
    // Water-filling: all of it is shared out, those who get some end at one level, and nobody above that level gets none.
    #[test]
    fn shares_are_one_together_and_level(
        figures in proptest::collection::vec((-5.0..5.0_f64, 1e-3..2.0_f64), 1..20),
        amount in 1.0..50.0_f64,
    ) {
        let mut slopes: Vec<_> = figures.iter().map(|&(score, fall)| (score, fall, 0.0)).collect();
        share_out(&mut slopes, amount);
        prop_assert!((slopes.iter().map(|slope| slope.2).sum::<f64>() - 1.0).abs() < 1e-6, "{:?}", slopes);
        let filled = |&(score, fall, share): &(f64, f64, f64)| score - fall * share * amount;
        let level = slopes.iter().filter(|slope| slope.2 > 0.0).map(filled).fold(f64::NEG_INFINITY, f64::max);
        for slope in &slopes {
            prop_assert!(slope.2 >= 0.0);
            if slope.2 > 0.0 {
                prop_assert!((filled(slope) - level).abs() < 1e-6, "{:?}", slopes);
            } else {
                prop_assert!(slope.0 <= level + 1e-6, "{:?}", slopes);
            }
        }
    }
}

#[test]
fn a_gap_is_filled_before_anybody_else_gets_some() {
    // Two better by four newcomers than the third: the first eight are theirs.
    let shares = |amount: f64| {
        let mut slopes = [(0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (-4.0, 1.0, 0.0)];
        share_out(&mut slopes, amount);
        slopes.map(|slope| slope.2)
    };
    assert_eq!(shares(8.0), [0.5, 0.5, 0.0]);
    assert_eq!(shares(14.0), [6.0 / 14.0, 6.0 / 14.0, 2.0 / 14.0]);
}
