//! Ours: quality, latency, energy and price on absolute scales, one comparable number for each instance.
//!
//! `score = wq·Q − wl·(t + t²) − we·E/E_ref − wc·C/C_ref`
//!
//! with Q the predicted quality, E the predicted marginal energy, C the predicted price, and `t = (T + T_others)/T_ref`:
//! the predicted end-to-end time, and the seconds by which everybody who is there already finishes later because of this
//! request (a request's own SLO takes the place of `T_ref`).
//!
//! - **Others count.** Who joins a batch slows it for all; without that part of the price every request would take the
//!   quickest instance until it is no quicker than the next. It is the marginal cost of congestion, as in road pricing.
//! - **The square** makes a long answer that much more eager for a fast instance than a short one: tails are made of them.
//! - **Energy is marginal**: joining a running batch costs its own part of each step, waking an engine the fixed part of
//!   its steps as well, shared with whom it will serve beside (see `Company` in the estimate crate). So work gathers on few
//!   instances until the latency of one more in the batch is worth more than the joules of another engine.
//!
//! No term looks at another candidate: a tier that drowns gets worse without bound, and adding or losing a candidate
//! reorders nobody else. That is the difference to the relative score of RouteBalance (see `routebalance.rs`).

use equipoise_estimate::Estimate;
use equipoise_types::RandomStream;

use crate::least_requests::LastChosen;
use crate::spread::{Prospect, Spread};
use crate::{Candidate, Choice, Policy, Preset, References, Request, Weights};

/// See the module.
#[derive(Clone, Debug)]
pub struct Equipoise {
    name: &'static str,
    weights: Weights,
    references: References,
    last_chosen: LastChosen,
    spread: Spread,
}

impl Equipoise {
    /// With the fleet's weights and scales; both must be valid.
    #[must_use]
    pub fn new(weights: Weights, references: References) -> Self {
        Self {
            name: "equipoise",
            weights,
            references,
            last_chosen: LastChosen::default(),
            spread: Spread::default(),
        }
    }

    /// With a preset's weights, whatever the fleet's are.
    #[must_use]
    pub fn preset(preset: Preset, references: References) -> Self {
        Self {
            name: preset.policy(),
            ..Self::new(preset.weights(), references)
        }
    }

    /// The score of one candidate for one request: higher is better, no bound on either side.
    #[must_use]
    pub fn value(&self, request: &Request, candidate: &Candidate) -> f64 {
        self.value_of(request, candidate, candidate.estimate())
    }

    fn value_of(&self, request: &Request, candidate: &Candidate, estimate: &Estimate) -> f64 {
        let weights = request.wishes.weights.unwrap_or(self.weights);
        let e2e_reference_s = request.wishes.e2e_slo_s.unwrap_or(self.references.e2e_s);
        // Half the weight: twice as long, as far as traffic is concerned.
        let e2e_s = estimate.e2e_s * (1.0 + candidate.peers.price);
        let time = (e2e_s + estimate.others_s) / e2e_reference_s / candidate.weight;
        let latency = time * (1.0 + time);
        let joules = estimate.energy.0 + self.references.idle_share * estimate.idle_energy.0;
        weights.quality * estimate.quality
            - weights.latency * latency
            - weights.energy * joules / self.references.joules
            - weights.cost * estimate.cost_usd / self.references.usd
    }
}

impl Policy for Equipoise {
    fn name(&self) -> &str {
        self.name
    }

    /// Longest expected answer first: what is long has the least room to be placed later.
    fn order_key(&self, lengths: &[f64]) -> f64 {
        lengths.iter().copied().fold(0.0, f64::max)
    }

    fn binds_late(&self) -> bool {
        true
    }

    fn score(&self, request: &Request, candidate: &Candidate) -> Option<f64> {
        Some(self.value(request, candidate))
    }

    fn choose(&mut self, request: &Request, candidates: &[Candidate], random: &mut RandomStream) -> Choice {
        let mut spread = std::mem::take(&mut self.spread);
        let picked = spread.pick(candidates, random, |candidate| Prospect {
            score: self.value(request, candidate),
            crowded: candidate.crowded.map(|crowded| {
                let estimate = crowded.estimate(candidate.estimate());
                (crowded.newcomers, self.value_of(request, candidate, &estimate))
            }),
        });
        self.spread = spread;
        let index = picked.unwrap_or_else(|| {
            self.last_chosen
                .least(candidates, |candidate| -self.value(request, candidate))
        });
        let best = &candidates[index];
        if best.is_saturated() {
            // The prediction holds the wait for a slot there, and it is still the best: wait for it here, where the
            // request can go to whichever instance is free first.
            return Choice::Wait;
        }
        self.last_chosen.note(best.instance);
        Choice::Take {
            index,
            score: Some(self.value(request, best)),
        }
    }
}

#[cfg(test)]
mod tests;
