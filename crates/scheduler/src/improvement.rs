//! The bounded improvement pass over a batch: moves and swaps after the greedy assignment, as long as they raise the sum of
//! scores.
//!
//! The model is the sequential one of the greedy pass: a request is scored beside what was there before the batch and
//! those of the batch that come before it. Only who comes later on an instance that gains or loses a request is scored
//! again. Bounded by evaluations, since pure code knows no time.

use equipoise_types::InstanceId;
use smallvec::SmallVec;

/// Other places that are tried for a request: the best but its own when it was placed.
pub(crate) const ALTERNATIVES: usize = 2;
/// Scores that may be computed for each request of a batch.
pub(crate) const EVALUATIONS_EACH: usize = 4;
/// Gains below this are rounding.
const LEAST_GAIN: f64 = 1e-9;

/// One request of a batch, placed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) instance: InstanceId,
    pub(crate) score: f64,
    /// Where else it may go; empty for one that must stay.
    pub(crate) alternatives: SmallVec<[InstanceId; ALTERNATIVES]>,
}

/// Improves `batch`, which is in the order of its decisions, with at most `budget` calls of `score(plan, k)`: the score
/// of request `k` at `plan[k]` beside `plan[..k]`; `None` where a hard constraint stands against it. Answers whether
/// anything has changed. The sum of scores never falls.
pub(crate) fn improve(
    batch: &mut [Placed],
    mut budget: usize,
    mut score: impl FnMut(&[InstanceId], usize) -> Option<f64>,
) -> bool {
    let mut plan: Vec<InstanceId> = batch.iter().map(|placed| placed.instance).collect();
    let mut changed = false;
    let mut attempt = |batch: &mut [Placed], plan: &mut Vec<InstanceId>, moves: &[(usize, InstanceId)]| {
        let accepted = attempt(batch, plan, moves, &mut budget, &mut score);
        changed |= accepted;
        accepted
    };
    for member in 0..batch.len() {
        for alternative in batch[member].alternatives.clone() {
            if alternative == plan[member] || attempt(batch, &mut plan, &[(member, alternative)]) {
                continue;
            }
            let here = plan[member];
            for other in 0..batch.len() {
                let movable = plan[other] == alternative && batch[other].alternatives.contains(&here);
                if movable && attempt(batch, &mut plan, &[(member, alternative), (other, here)]) {
                    break;
                }
            }
        }
    }
    changed
}

/// Carries `moves` out in `batch` and `plan` if that raises the sum and the budget allows to find out.
fn attempt(
    batch: &mut [Placed],
    plan: &mut [InstanceId],
    moves: &[(usize, InstanceId)],
    budget: &mut usize,
    score: &mut impl FnMut(&[InstanceId], usize) -> Option<f64>,
) -> bool {
    let mut touched: SmallVec<[InstanceId; 4]> = SmallVec::new();
    let before: SmallVec<[(usize, InstanceId); 2]> = moves.iter().map(|(member, _)| (*member, plan[*member])).collect();
    for (member, to) in moves {
        touched.extend([plan[*member], *to]);
        plan[*member] = *to;
    }
    let first = moves.iter().map(|(member, _)| *member).min().unwrap_or(0);
    let affected: SmallVec<[usize; 16]> = (first..batch.len())
        .filter(|member| touched.contains(&plan[*member]))
        .collect();
    let gain = (affected.len() <= *budget).then(|| {
        let mut gain = 0.0;
        let mut scores: SmallVec<[f64; 16]> = SmallVec::new();
        for member in &affected {
            *budget -= 1;
            let new = score(plan, *member)?;
            gain += new - batch[*member].score;
            scores.push(new);
        }
        (gain > LEAST_GAIN).then_some(scores)
    });
    if let Some(Some(scores)) = gain {
        for (member, score) in affected.into_iter().zip(scores) {
            (batch[member].instance, batch[member].score) = (plan[member], score);
        }
        return true;
    }
    for (member, instance) in before {
        plan[member] = instance;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scores fall with each request of the batch that is there already; some pairs are forbidden.
    fn scored(values: &[Vec<f64>], weights: &[f64], plan: &[InstanceId], member: usize) -> Option<f64> {
        let here = plan[member];
        let ahead: f64 = (0..member).filter(|k| plan[*k] == here).map(|k| weights[k]).sum();
        let value = values[member][here.index()];
        (value >= 0.0).then_some(value - ahead)
    }

    #[test]
    fn one_that_is_in_the_way_is_moved() {
        // The first takes the only good place of the second, though another is as good as that for itself.
        let values = [vec![1.0, 0.99], vec![1.0, 0.2]];
        let score = |plan: &[InstanceId], member: usize| scored(&values, &[0.7, 0.7], plan, member);
        let both: SmallVec<[InstanceId; ALTERNATIVES]> = SmallVec::from_slice(&[InstanceId(0), InstanceId(1)]);
        let placed = |score| Placed {
            instance: InstanceId(0),
            score,
            alternatives: both.clone(),
        };
        let mut batch = [placed(1.0), placed(0.3)];
        assert!(improve(&mut batch, 8, score));
        let places: Vec<InstanceId> = batch.iter().map(|placed| placed.instance).collect();
        assert_eq!(places, [InstanceId(1), InstanceId(0)]);
        let mut batch = [placed(1.0), placed(0.3)];
        assert!(!improve(&mut batch, 1, score), "two scores are needed to find out");
    }

    proptest! {
        #[test]
        fn the_sum_never_falls_and_no_constraint_breaks(
            values in proptest::collection::vec(proptest::collection::vec(-0.3..1.0_f64, 4), 1..12),
            weights in proptest::collection::vec(0.0..1.0_f64, 12),
        ) {
            let (mut plan, mut batch) = (Vec::new(), Vec::new());
            for member in 0..values.len() {
                let mut options: Vec<(f64, InstanceId)> = (0..4)
                    .map(InstanceId)
                    .filter_map(|instance| {
                        let mut there: Vec<InstanceId> = plan.clone();
                        there.push(instance);
                        Some((scored(&values, &weights, &there, member)?, instance))
                    })
                    .collect();
                options.sort_by(|a, b| b.0.total_cmp(&a.0));
                prop_assume!(!options.is_empty());
                plan.push(options[0].1);
                let others = options[1..].iter().take(ALTERNATIVES).map(|option| option.1);
                batch.push(Placed { instance: options[0].1, score: options[0].0, alternatives: others.collect() });
            }
            let before: f64 = batch.iter().map(|placed| placed.score).sum();
            let mut evaluations = 0;
            let budget = EVALUATIONS_EACH * batch.len();
            improve(&mut batch, budget, |plan, member| {
                evaluations += 1;
                scored(&values, &weights, plan, member)
            });
            prop_assert!(evaluations <= budget);
            let plan: Vec<InstanceId> = batch.iter().map(|placed| placed.instance).collect();
            let mut after = 0.0;
            for (member, placed) in batch.iter().enumerate() {
                let score = scored(&values, &weights, &plan, member).expect("no constraint breaks");
                prop_assert!((score - placed.score).abs() < 1e-12, "what is said of a score is true");
                after += score;
            }
            prop_assert!(after >= before - 1e-12, "{after} < {before}");
        }
    }
}
