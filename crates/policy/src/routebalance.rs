//! RouteBalance, the baseline of arXiv 2606.17949, bit-exact in its decision: relative normalisation, greedy in order
//! of length, a private batch snapshot.
//!
//! `score = wq·qual + wc·(1 − C/max C) + wl·(1 − T/max T)`, maxima over this request's candidates, and
//! `T = L·tpot` where a slot is open and nobody waits, else `(D/max(R,1) + L)·tpot`. Ties go to the shorter queue, then to
//! whoever was assigned longest ago. After a choice its snapshot alone gets one waiting request and the longest
//! predicted length. The balance term of the code has weight zero in the paper's runs and is left out. `tpot` is this
//! house's estimate for the instance in place of the learned head, which the authors' own ablation found no better
//! than a constant per tier.
//!
//! The four arms of that ablation and the other switches of the paper have names of their own, see `variant.rs`.

mod variant;

use std::collections::BTreeMap;

use equipoise_estimate::InstanceLoad;
use equipoise_types::{InstanceId, RandomStream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Batching, Candidate, Choice, Policy, Request, Weights};

const EPSILON: f64 = 1e-8;

/// How quality enters the score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QualityNorm {
    /// As predicted: the code's default.
    Raw,
    /// Stretched over the candidates to [0, 1]: what every shipped experiment ran with.
    #[default]
    MinMax,
}

/// What breaks a tie of scores; afterwards, whoever was assigned longest ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TieBreak {
    /// The shorter queue, running and waiting.
    #[default]
    Queue,
    /// The shorter predicted latency: arm 3 of the isolation study.
    Latency,
}

/// The order within a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BatchOrder {
    /// Longest first, by the longest expected answer over the models.
    #[default]
    LongestMax,
    /// Longest first, by the shortest expected answer over the models.
    LongestMin,
    /// Longest first, by the mean over the models.
    LongestMean,
    /// As they arrived.
    Arrival,
}

/// How the latency of a request on an instance is predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyTerm {
    /// Length times the estimated time per token, behind what waits there.
    #[default]
    Estimated,
    /// Length times a constant of the tier, whatever it has to do: arm 4 of the isolation study. The constant is the time
    /// per token of a request that is alone on the instance.
    StaticPrior,
}

/// Switches of the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteBalanceSettings {
    /// Quality, latency and cost; energy has no part in it.
    pub weights: Weights,
    /// Raw or stretched.
    pub quality_norm: QualityNorm,
    /// The paper's batch windows (4, 16 or 32 requests; 50, 100 or 200 ms), by the share of instances where requests
    /// wait. Off: every arrival is decided at once.
    pub adaptive_batching: bool,
    /// What breaks ties.
    pub tie_break: TieBreak,
    /// The order within a batch.
    pub order: BatchOrder,
    /// How latency is predicted.
    pub latency: LatencyTerm,
}

impl Default for RouteBalanceSettings {
    /// The Balance preset with min-max quality.
    fn default() -> Self {
        Self {
            weights: Weights {
                quality: 0.33,
                latency: 0.33,
                energy: 0.0,
                cost: 0.33,
            },
            quality_norm: QualityNorm::MinMax,
            adaptive_batching: true,
            tie_break: TieBreak::default(),
            order: BatchOrder::default(),
            latency: LatencyTerm::default(),
        }
    }
}

/// What the baseline believes of one instance for the length of a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Snapshot {
    running: u32,
    waiting: u32,
    pending_decode: u64,
    slots: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct RouteBalance {
    name: &'static str,
    settings: RouteBalanceSettings,
    snapshots: BTreeMap<InstanceId, Snapshot>,
    last_assigned: BTreeMap<InstanceId, u64>,
    assignments: u64,
    batching: Batching,
}

impl RouteBalance {
    /// With its switches.
    #[must_use]
    pub fn new(settings: RouteBalanceSettings) -> Self {
        Self::named("routebalance", settings)
    }

    fn named(name: &'static str, settings: RouteBalanceSettings) -> Self {
        // The shipped configuration's first batch; afterwards the table below decides.
        let batching = if settings.adaptive_batching {
            Batching {
                max_requests: 8,
                window_s: 0.1,
            }
        } else {
            Batching::AT_ONCE
        };
        Self {
            name,
            settings,
            snapshots: BTreeMap::new(),
            last_assigned: BTreeMap::new(),
            assignments: 0,
            batching,
        }
    }

    /// Predicted seconds to the last token, by the paper's formula.
    fn latency_s(snapshot: &Snapshot, output_tokens: f64, tpot_s: f64) -> f64 {
        let own = output_tokens.floor().max(1.0);
        if snapshot.running < snapshot.slots && snapshot.waiting == 0 {
            own * tpot_s
        } else {
            (snapshot.pending_decode as f64 / f64::from(snapshot.running.max(1)) + own) * tpot_s
        }
    }
}

impl Policy for RouteBalance {
    fn name(&self) -> &str {
        self.name
    }

    fn batching(&self) -> Batching {
        self.batching
    }

    fn begin_batch(&mut self, instances: &mut dyn Iterator<Item = (InstanceId, InstanceLoad, u32)>) {
        self.snapshots.clear();
        let mut with_waiting = 0_usize;
        for (id, load, slots) in instances {
            let running = load.in_flight.min(slots);
            let waiting = load.in_flight - running;
            with_waiting += usize::from(waiting > 0);
            self.snapshots.insert(
                id,
                Snapshot {
                    running,
                    waiting,
                    pending_decode: load.pending_decode_tokens,
                    slots,
                },
            );
        }
        if self.settings.adaptive_batching && !self.snapshots.is_empty() {
            let share = with_waiting as f64 / self.snapshots.len() as f64;
            let (max_requests, window_s) = match share {
                share if share < 0.3 => (4, 0.05),
                share if share < 0.7 => (16, 0.1),
                _ => (32, 0.2),
            };
            self.batching = Batching { max_requests, window_s };
        }
    }

    fn order_key(&self, lengths: &[f64]) -> f64 {
        match self.settings.order {
            BatchOrder::LongestMax => lengths.iter().copied().fold(0.0, f64::max),
            BatchOrder::LongestMin => lengths.iter().copied().reduce(f64::min).unwrap_or(0.0),
            BatchOrder::LongestMean => lengths.iter().sum::<f64>() / lengths.len().max(1) as f64,
            BatchOrder::Arrival => 0.0,
        }
    }

    fn choose(&mut self, _request: &Request, candidates: &[Candidate], _random: &mut RandomStream) -> Choice {
        let snapshot = |candidate: &Candidate| {
            let unknown = Snapshot {
                slots: candidate.slots,
                ..Snapshot::default()
            };
            self.snapshots.get(&candidate.instance).copied().unwrap_or(unknown)
        };
        let latency = |candidate: &Candidate| {
            let estimate = candidate.estimate();
            match self.settings.latency {
                LatencyTerm::Estimated => {
                    Self::latency_s(&snapshot(candidate), estimate.output_tokens, estimate.tpot_s)
                }
                LatencyTerm::StaticPrior => estimate.output_tokens.floor().max(1.0) * candidate.alone_tpot_s,
            }
        };
        let (mut max_cost, mut max_latency, mut longest) = (0.0_f64, 0.0_f64, 0.0_f64);
        let (mut min_quality, mut max_quality) = (f64::INFINITY, f64::NEG_INFINITY);
        for candidate in candidates {
            let estimate = candidate.estimate();
            max_cost = max_cost.max(estimate.cost_usd);
            max_latency = max_latency.max(latency(candidate));
            longest = longest.max(estimate.output_tokens);
            min_quality = min_quality.min(estimate.quality);
            max_quality = max_quality.max(estimate.quality);
        }
        let weights = self.settings.weights;
        let score = |candidate: &Candidate| {
            let estimate = candidate.estimate();
            let quality = match self.settings.quality_norm {
                QualityNorm::Raw => estimate.quality,
                QualityNorm::MinMax => (estimate.quality - min_quality) / (max_quality - min_quality + EPSILON),
            };
            weights.quality * quality
                + weights.cost * (1.0 - estimate.cost_usd / (max_cost + EPSILON))
                + weights.latency * (1.0 - latency(candidate) / (max_latency + EPSILON))
        };
        let order = |candidate: &Candidate| {
            let snapshot = snapshot(candidate);
            let last_assigned = self.last_assigned.get(&candidate.instance).copied().unwrap_or(0);
            let tie = match self.settings.tie_break {
                TieBreak::Queue => f64::from(snapshot.running + snapshot.waiting),
                TieBreak::Latency => latency(candidate),
            };
            (score(candidate), tie, last_assigned)
        };
        let mut best = 0;
        let mut best_order = order(&candidates[0]);
        for (index, candidate) in candidates.iter().enumerate().skip(1) {
            let this = order(candidate);
            let better = this
                .0
                .total_cmp(&best_order.0)
                .reverse()
                .then(this.1.total_cmp(&best_order.1))
                .then(this.2.cmp(&best_order.2));
            if better.is_lt() {
                (best, best_order) = (index, this);
            }
        }
        let chosen = candidates[best].instance;
        let entry = self.snapshots.entry(chosen).or_insert(Snapshot {
            slots: candidates[best].slots,
            ..Snapshot::default()
        });
        entry.waiting += 1;
        entry.pending_decode += longest.floor() as u64;
        self.assignments += 1;
        self.last_assigned.insert(chosen, self.assignments);
        Choice::Take {
            index: best,
            score: Some(best_order.0),
        }
    }
}

#[cfg(test)]
mod tests;
