//! Many routers with one view: how each picks so that they do not all pick the same.
//!
//! Between two reports, `n` requests of other routers go somewhere. If all see one best instance, all go there. Where
//! should they have gone? To fill the best up until it is no better than the next, then both, and so on: water-filling.
//! With a score `s` that falls to `c` when `n` newcomers arrive, taken as a straight line, an instance holds
//! `n · (s − L) / (s − c)` of them at level `L`, and the level is where they hold all. Each router draws from these shares;
//! then the routers' sum is, on average, what one router would have done.
//!
//! The draw is by credit rather than by dice: everybody earns its share at each pick, the richest is taken and pays one.
//! A router's own picks are so spread as evenly as they can be. Credits start at random, so that routers differ.

use std::collections::BTreeMap;

use equipoise_types::{InstanceId, RandomStream};

use crate::Candidate;

/// A newcomer is taken to cost at least this much of the score: an instance that gets better by company is not filled
/// without end.
const LEAST_FALL: f64 = 1e-9;

/// What one candidate is worth, alone and crowded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect {
    /// The score as it is, higher is better.
    pub(crate) score: f64,
    /// So many newcomers would bring the score to this.
    pub(crate) crowded: Option<(f64, f64)>,
}

/// Remembers the credits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    credits: BTreeMap<InstanceId, f64>,
    // Reused: score, fall of the score for each newcomer, share.
    slopes: Vec<(f64, f64, f64)>,
}

impl Spread {
    /// Picks a candidate, or `None` where nothing is to be spread: other routers are not there or sent nothing.
    pub(crate) fn pick(
        &mut self,
        candidates: &[Candidate],
        random: &mut RandomStream,
        prospect: impl Fn(&Candidate) -> Prospect,
    ) -> Option<usize> {
        if candidates.len() < 2 {
            return None;
        }
        self.slopes.clear();
        let mut newcomers = 0.0;
        for candidate in candidates {
            let Prospect { score, crowded } = prospect(candidate);
            let (count, then) = crowded?;
            newcomers = count;
            self.slopes.push((score, ((score - then) / count).max(LEAST_FALL), 0.0));
        }
        share_out(&mut self.slopes, newcomers + 1.0);
        // Whoever has no free slot is not worth the wait while another who is worth as much has one.
        let free = |candidate: &Candidate, share: f64| share > 0.0 && !candidate.is_saturated();
        let any_free = candidates
            .iter()
            .zip(&self.slopes)
            .any(|(candidate, slope)| free(candidate, slope.2));
        let mut best = (0, f64::NEG_INFINITY);
        for (index, (candidate, &(_, _, share))) in candidates.iter().zip(&self.slopes).enumerate() {
            let credit = self
                .credits
                .entry(candidate.instance)
                .or_insert_with(|| random.uniform());
            *credit += share;
            let open = share > 0.0 && (free(candidate, share) || !any_free);
            if open && *credit > best.1 {
                best = (index, *credit);
            }
        }
        if let Some(credit) = self.credits.get_mut(&candidates[best.0].instance) {
            *credit -= 1.0;
        }
        Some(best.0)
    }
}

/// Fills `amount` in from the top: the third of each becomes its share, and all shares are one together.
fn share_out(slopes: &mut [(f64, f64, f64)], amount: f64) {
    // The level at which those above it hold all: with `w = 1 / fall`, `Σ w (s − L) = amount`. It rises as those
    // below it drop out, and is right once nobody does.
    let best = slopes.iter().map(|slope| slope.0).fold(f64::NEG_INFINITY, f64::max);
    let mut level = f64::NEG_INFINITY;
    loop {
        let (mut weight, mut weighted) = (0.0, 0.0);
        for &(score, fall, _) in slopes.iter().filter(|slope| slope.0 > level) {
            weight += 1.0 / fall;
            weighted += (score - best) / fall;
        }
        let next = best + (weighted - amount) / weight;
        if next <= level || !next.is_finite() {
            break;
        }
        level = next;
    }
    for (score, fall, share) in slopes {
        *share = ((*score - level) / *fall / amount).max(0.0);
    }
}

#[cfg(test)]
mod tests;
