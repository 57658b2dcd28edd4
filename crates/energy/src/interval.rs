//! The split of a measured interval of a real engine, whose steps nobody sees.

use crate::attribution::StepTerms;
use crate::source::{EnergyFlaw, EnergySource};
use equipoise_types::{MilliJoules, Timestamp, apportion};
use serde::{Deserialize, Serialize};

/// Energy of one instance over one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalEnergy {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Energy of all the instance's GPUs.
    pub measured: MilliJoules,
    /// What the idle draw accounts for; what exceeds `measured` is ignored.
    pub idle: MilliJoules,
    /// Where `measured` comes from.
    pub source: EnergySource,
    /// What is wrong with it.
    pub flaws: Vec<EnergyFlaw>,
}

/// What one request did over some time. A request may have several slices; they should not overlap one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivitySlice {
    /// The caller's name for the request; it plays no part in the split.
    pub key: u64,
    /// When the slice began.
    pub start: Timestamp,
    /// When it ended; work counts as spread evenly. A slice without length belongs to the interval that holds its start.
    pub end: Timestamp,
    /// Prompt tokens computed (cached ones not).
    pub prefill_tokens: u32,
    /// Tokens decoded.
    pub decode_tokens: u32,
    /// Mean context while decoding, tokens: what each decoded token reads.
    pub context_tokens: u32,
}

/// The split of an interval: `idle + unattributed + parts = measured`, to the millijoule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSplit {
    /// The idle draw.
    pub idle: MilliJoules,
    /// Above idle, but no known request ran.
    pub unattributed: MilliJoules,
    /// Index of the slice and its energy, in order; slices that get nothing are left out.
    pub parts: Vec<(usize, MilliJoules)>,
}

impl IntervalSplit {
    /// What requests are charged for in all.
    #[must_use]
    pub fn attributed(&self) -> MilliJoules {
        self.parts.iter().map(|&(_, energy)| energy).sum()
    }
}

/// A slice as far as it lies in the interval.
struct Overlap {
    /// Nanoseconds; equal for a slice without length.
    start: u64,
    end: u64,
    own_joules: f64,
    /// Engine steps per nanosecond that the slice lets one infer.
    steps_per_ns: f64,
}

/// Splits an interval over the requests that were active in it.
///
/// The idle part is kept apart. Of the rest, the energy that steps cost whatever they do is shared equally at each moment
/// among those active then, and each slice pays for its own tokens, as far as they fall into the interval; the sum is scaled
/// to what was measured. The rate of steps at a moment is taken as the mean decode rate of those active: each running
/// sequence decodes one token a step (a slice that only prefills counts as one step).
#[must_use]
pub fn attribute_interval(sample: &IntervalEnergy, activity: &[ActivitySlice], terms: &StepTerms) -> IntervalSplit {
    let idle = sample.idle.min(sample.measured);
    let active = sample.measured.saturating_sub(idle);
    let overlaps: Vec<Option<Overlap>> = activity.iter().map(|slice| overlap(sample, slice, terms)).collect();
    let (time_shares, step_shares) = shared(&overlaps);
    let weights: Vec<f64> = overlaps
        .iter()
        .zip(&step_shares)
        .map(|(overlap, steps)| {
            overlap
                .as_ref()
                .map_or(0.0, |overlap| overlap.own_joules + terms.fixed_joules * steps)
        })
        .collect();
    // Where the terms say nothing about those who were there, time decides.
    match apportion(active, &weights).or_else(|| apportion(active, &time_shares)) {
        Some(parts) => {
            let parts = parts
                .into_iter()
                .enumerate()
                .filter(|(_, energy)| *energy > MilliJoules::ZERO)
                .collect();
            IntervalSplit {
                idle,
                unattributed: MilliJoules::ZERO,
                parts,
            }
        }
        None => IntervalSplit {
            idle,
            unattributed: active,
            parts: Vec::new(),
        },
    }
}

fn overlap(sample: &IntervalEnergy, slice: &ActivitySlice, terms: &StepTerms) -> Option<Overlap> {
    let (from, to) = (slice.start.0, slice.end.0.max(slice.start.0));
    let (start, end) = (from.max(sample.start.0), to.min(sample.end.0));
    let length = to - from;
    let share = if length == 0 {
        // Half open, so that of two neighbouring intervals one has it; an interval without length has its own moment.
        let inside =
            (sample.start.0 <= from && from < sample.end.0) || (from == sample.start.0 && from == sample.end.0);
        inside.then_some(1.0)?
    } else {
        (start < end).then(|| (end - start) as f64 / length as f64)?
    };
    let decoded = f64::from(slice.decode_tokens);
    let own = f64::from(slice.prefill_tokens) * terms.joules_per_prefill_token
        + decoded * terms.joules_per_decode_token
        + decoded * f64::from(slice.context_tokens) * terms.joules_per_kv_token;
    let steps = if slice.prefill_tokens > 0 {
        decoded.max(1.0)
    } else {
        decoded
    };
    let steps_per_ns = if length == 0 { 0.0 } else { steps / length as f64 };
    Some(Overlap {
        start,
        end: end.max(start),
        own_joules: share * own,
        steps_per_ns,
    })
}

/// For each slice, its equal share of the active time (nanoseconds) and of the steps, by one sweep over all boundaries:
/// with F(t) the integral of dt / n(t), a slice's share is F(end) - F(start).
fn shared(overlaps: &[Option<Overlap>]) -> (Vec<f64>, Vec<f64>) {
    let mut bounds: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * overlaps.len());
    for (index, overlap) in overlaps.iter().enumerate() {
        if let Some(overlap) = overlap
            && overlap.start < overlap.end
        {
            bounds.push((overlap.start, true, index));
            bounds.push((overlap.end, false, index));
        }
    }
    bounds.sort_unstable();
    let (mut time_shares, mut step_shares) = (vec![0.0; overlaps.len()], vec![0.0; overlaps.len()]);
    let (mut time, mut steps) = (0.0, 0.0);
    let (mut active, mut rate_sum, mut last) = (0_u32, 0.0_f64, 0);
    for (at, begins, index) in bounds {
        if active > 0 {
            let span = (at - last) as f64;
            let count = f64::from(active);
            time += span / count;
            steps += span * (rate_sum / count).max(0.0) / count;
        }
        last = at;
        let rate = overlaps[index].as_ref().map_or(0.0, |overlap| overlap.steps_per_ns);
        let sign = if begins { 1.0 } else { -1.0 };
        time_shares[index] += -sign * time;
        step_shares[index] += -sign * steps;
        rate_sum += sign * rate;
        active = if begins { active + 1 } else { active - 1 };
        if active == 0 {
            rate_sum = 0.0;
        }
    }
    (time_shares, step_shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: StepTerms = StepTerms {
        fixed_joules: 3.0,
        joules_per_prefill_token: 0.02,
        joules_per_decode_token: 0.05,
        joules_per_kv_token: 1e-5,
    };

    fn sample(start: u64, end: u64, measured: u64, idle: u64) -> IntervalEnergy {
        IntervalEnergy {
            start: Timestamp(start),
            end: Timestamp(end),
            measured: MilliJoules(measured),
            idle: MilliJoules(idle),
            source: EnergySource::Counter,
            flaws: Vec::new(),
        }
    }

    fn slice(start: u64, end: u64, prefill_tokens: u32, decode_tokens: u32) -> ActivitySlice {
        ActivitySlice {
            key: 0,
            start: Timestamp(start),
            end: Timestamp(end),
            prefill_tokens,
            decode_tokens,
            context_tokens: 0,
        }
    }

    fn energies(split: &IntervalSplit) -> Vec<(usize, u64)> {
        split.parts.iter().map(|&(index, energy)| (index, energy.0)).collect()
    }

    #[test]
    fn equal_slices_share_equally_and_idle_stays_apart() {
        let split = attribute_interval(
            &sample(0, 100, 1000, 200),
            &[slice(0, 100, 0, 10), slice(0, 100, 0, 10)],
            &TERMS,
        );
        assert_eq!((split.idle.0, split.unattributed.0), (200, 0));
        assert_eq!(energies(&split), [(0, 400), (1, 400)]);
    }

    #[test]
    fn whoever_is_alone_pays_the_steps_alone() {
        // The first decodes 10 tokens alone and 10 beside the second: 1.5 shares of the steps against 0.5.
        let fixed = StepTerms {
            fixed_joules: 1.0,
            ..StepTerms::default()
        };
        let split = attribute_interval(
            &sample(0, 200, 2000, 0),
            &[slice(0, 200, 0, 20), slice(100, 200, 0, 10)],
            &fixed,
        );
        assert_eq!(energies(&split), [(0, 1500), (1, 500)]);
    }

    #[test]
    fn only_what_falls_into_the_interval_counts() {
        let own = StepTerms {
            joules_per_decode_token: 1.0,
            ..StepTerms::default()
        };
        let activity = [slice(0, 400, 0, 40), slice(100, 200, 0, 30), slice(300, 400, 0, 99)];
        let split = attribute_interval(&sample(100, 200, 4000, 0), &activity, &own);
        assert_eq!(energies(&split), [(0, 1000), (1, 3000)]);
    }

    #[test]
    fn nobody_there_means_unattributed_and_idle_is_clamped() {
        let split = attribute_interval(
            &sample(100, 200, 500, 100),
            &[slice(0, 100, 5, 5), slice(200, 300, 5, 5)],
            &TERMS,
        );
        assert_eq!((split.idle.0, split.unattributed.0, split.parts.len()), (100, 400, 0));
        let split = attribute_interval(&sample(100, 200, 500, 900), &[slice(100, 200, 5, 5)], &TERMS);
        assert_eq!((split.idle.0, split.unattributed.0, split.parts.len()), (500, 0, 0));
    }

    #[test]
    fn a_slice_without_length_belongs_to_one_interval() {
        let point = [slice(100, 100, 50, 1)];
        assert_eq!(
            attribute_interval(&sample(0, 100, 500, 0), &point, &TERMS)
                .unattributed
                .0,
            500
        );
        assert_eq!(
            energies(&attribute_interval(&sample(100, 200, 500, 0), &point, &TERMS)),
            [(0, 500)]
        );
    }

    #[test]
    fn without_terms_time_decides() {
        let activity = [slice(0, 100, 0, 0), slice(0, 50, 0, 0)];
        let split = attribute_interval(&sample(0, 100, 1000, 0), &activity, &StepTerms::default());
        assert_eq!(energies(&split), [(0, 750), (1, 250)]);
    }

    fn slices() -> impl Strategy<Value = Vec<ActivitySlice>> {
        let one = (0_u64..1000, 0_u64..1000, 0_u32..3000, 0_u32..500, 0_u32..9000).prop_map(
            |(start, end, prefill_tokens, decode_tokens, context_tokens)| ActivitySlice {
                context_tokens,
                ..slice(start, end, prefill_tokens, decode_tokens)
            },
        );
        proptest::collection::vec(one, 0..30)
    }

    proptest! {
        #[test]
        fn attributed_idle_and_unattributed_are_what_was_measured(
            (start, length) in (0_u64..1000, 0_u64..600),
            (measured, idle) in (any::<u64>(), prop_oneof![any::<u64>(), 0_u64..1000]),
            activity in slices(),
            fixed_joules in 0.0..9.0_f64,
        ) {
            let sample = sample(start, start + length, measured, idle);
            let terms = StepTerms { fixed_joules, ..TERMS };
            let split = attribute_interval(&sample, &activity, &terms);
            let parts: u128 = split.parts.iter().map(|part| u128::from(part.1.0)).sum();
            prop_assert_eq!(parts + u128::from(split.idle.0) + u128::from(split.unattributed.0), u128::from(measured));
            for (index, _) in &split.parts {
                let slice = &activity[*index];
                prop_assert!(slice.start <= sample.end && slice.end.max(slice.start) >= sample.start, "paid for elsewhere");
            }
            prop_assert!(split.unattributed.0 == 0 || split.parts.is_empty());
        }
    }
}
