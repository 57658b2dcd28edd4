//! The fair split of one engine step.

use equipoise_types::{MilliJoules, apportion};
use serde::{Deserialize, Serialize};

/// Step energy as an affine function of its work. The engine crate's `EnergyTerms` has the same four fields; the crates
/// do not know one another, so whoever has both copies them over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepTerms {
    /// Joules of a step whatever it does.
    pub fixed_joules: f64,
    /// Joules per prompt token computed.
    pub joules_per_prefill_token: f64,
    /// Joules per token decoded.
    pub joules_per_decode_token: f64,
    /// Joules per token of context read.
    pub joules_per_kv_token: f64,
}

/// What a step did for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartWork {
    /// Prompt tokens computed.
    pub prefill_tokens: u32,
    /// Tokens decoded.
    pub decode_tokens: u32,
    /// Tokens of context read.
    pub kv_tokens: u64,
}

impl StepTerms {
    /// What a part would cost beyond the step's fixed energy, joules.
    #[must_use]
    pub fn own_joules(&self, part: &PartWork) -> f64 {
        f64::from(part.prefill_tokens) * self.joules_per_prefill_token
            + f64::from(part.decode_tokens) * self.joules_per_decode_token
            + part.kv_tokens as f64 * self.joules_per_kv_token
    }

    /// What a step with these parts costs by the terms, joules; an empty step costs nothing.
    #[must_use]
    pub fn step_joules(&self, parts: &[PartWork]) -> f64 {
        if parts.is_empty() {
            return 0.0;
        }
        self.fixed_joules + parts.iter().map(|part| self.own_joules(part)).sum::<f64>()
    }
}

/// Splits the energy of a step over its parts, in their order and exactly: the result sums to `total` (unless there are no
/// parts: then it is empty and the caller keeps the energy as unattributed).
///
/// This is the Shapley value of the affine game, in closed form: the fixed energy is shared equally among those who need
/// the step at all, and each pays its own marginal energy; the terms are then scaled to what was measured. Terms that are
/// all zero share equally.
#[must_use]
pub fn attribute_step(total: MilliJoules, terms: &StepTerms, parts: &[PartWork]) -> Vec<MilliJoules> {
    let equal = terms.fixed_joules / parts.len() as f64;
    let weights: Vec<f64> = parts.iter().map(|part| equal + terms.own_joules(part)).collect();
    apportion(total, &weights)
        .or_else(|| apportion(total, &vec![1.0; parts.len()]))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The Shapley value by its definition: each player's marginal cost, averaged over all orders of joining, as a sum over
    /// the coalitions that it may join.
    fn shapley(players: usize, cost: impl Fn(u32) -> f64) -> Vec<f64> {
        let factorial = |n: usize| (1..=n).map(|k| k as f64).product::<f64>();
        (0..players)
            .map(|player| {
                (0_u32..1 << players)
                    .filter(|coalition| coalition & (1 << player) == 0)
                    .map(|coalition| {
                        let size = coalition.count_ones() as usize;
                        let weight = factorial(size) * factorial(players - size - 1) / factorial(players);
                        weight * (cost(coalition | (1 << player)) - cost(coalition))
                    })
                    .sum()
            })
            .collect()
    }

    fn work() -> impl Strategy<Value = PartWork> {
        (0_u32..2000, 0_u32..2, 0_u64..20_000).prop_map(|(prefill_tokens, decode_tokens, kv_tokens)| PartWork {
            prefill_tokens,
            decode_tokens,
            kv_tokens,
        })
    }

    fn terms() -> impl Strategy<Value = StepTerms> {
        (0.0..10.0_f64, 0.0..0.1_f64, 0.0..0.1_f64, 0.0..1e-4_f64).prop_map(|(fixed_joules, a, b, c)| StepTerms {
            fixed_joules,
            joules_per_prefill_token: a,
            joules_per_decode_token: b,
            joules_per_kv_token: c,
        })
    }

    proptest! {
        #[test]
        fn the_closed_form_is_the_shapley_value(
            terms in terms(),
            parts in proptest::collection::vec(work(), 1..=8),
            scale in 0.5..2.0_f64,
        ) {
            let exact = shapley(parts.len(), |coalition| {
                let members: Vec<_> = (0..parts.len()).filter(|k| coalition & (1 << k) != 0).map(|k| parts[k]).collect();
                terms.step_joules(&members)
            });
            let modelled: f64 = terms.step_joules(&parts);
            prop_assume!(modelled > 0.0);
            let total = MilliJoules((modelled * scale * 1e3).round() as u64);
            let split = attribute_step(total, &terms, &parts);
            for (given, exact) in split.iter().zip(&exact) {
                let scaled = exact / modelled * total.0 as f64;
                prop_assert!((given.0 as f64 - scaled).abs() <= 1.0 + 1e-9 * scaled, "{} against {scaled}", given.0);
            }
        }

        #[test]
        fn nothing_is_lost(total in any::<u64>(), terms in terms(), parts in proptest::collection::vec(work(), 1..40)) {
            let split = attribute_step(MilliJoules(total), &terms, &parts);
            prop_assert_eq!(split.iter().map(|part| u128::from(part.0)).sum::<u128>(), u128::from(total));
        }
    }

    #[test]
    fn the_dummy_pays_only_its_share_of_the_fixed_part() {
        let terms = StepTerms {
            fixed_joules: 2.0,
            joules_per_decode_token: 1.0,
            ..StepTerms::default()
        };
        let busy = PartWork {
            decode_tokens: 2,
            ..PartWork::default()
        };
        assert_eq!(
            attribute_step(MilliJoules(4000), &terms, &[busy, PartWork::default()]),
            [MilliJoules(3000), MilliJoules(1000)]
        );
        assert_eq!(
            attribute_step(MilliJoules(5), &StepTerms::default(), &[busy, busy]),
            [MilliJoules(3), MilliJoules(2)]
        );
        assert_eq!(attribute_step(MilliJoules(5), &terms, &[]), []);
    }
}
