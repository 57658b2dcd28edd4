//! The settings of the paper by name: `routebalance/NAME`.
//!
//! The isolation study asks what the latency term is worth. Arm 1 is `routebalance` as it is; arm 2 leaves latency out of
//! the score (weights .5/0/.5) and lets the queue break ties; arm 3 is arm 2 with the predicted latency breaking ties;
//! arm 4 is arm 1 with a constant per tier for the time per token, no telemetry in the score, and ties to the shorter queue.

use super::{BatchOrder, LatencyTerm, QualityNorm, RouteBalance, RouteBalanceSettings, TieBreak};
use crate::Weights;

const NAMES: [&str; 13] = [
    "routebalance",
    "routebalance/raw",
    "routebalance/minmax",
    "routebalance/latency-blind",
    "routebalance/latency-tiebreak",
    "routebalance/static-prior",
    "routebalance/quality",
    "routebalance/latency",
    "routebalance/cost",
    "routebalance/fifo",
    "routebalance/lpt-min",
    "routebalance/lpt-mean",
    "routebalance/at-once",
];

fn weights(quality: f64, latency: f64, cost: f64) -> Weights {
    Weights {
        quality,
        latency,
        energy: 0.0,
        cost,
    }
}

impl RouteBalance {
    /// All names of this family: the baseline as set up, and its variants.
    #[must_use]
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// The variant of a name, if it is one of this family: `settings` with what the name changes.
    #[must_use]
    pub fn by_name(name: &str, settings: RouteBalanceSettings) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        let mut settings = settings;
        match name.strip_prefix("routebalance/").unwrap_or_default() {
            "raw" => settings.quality_norm = QualityNorm::Raw,
            "minmax" => settings.quality_norm = QualityNorm::MinMax,
            "latency-blind" => settings.weights = weights(0.5, 0.0, 0.5),
            "latency-tiebreak" => {
                settings.weights = weights(0.5, 0.0, 0.5);
                settings.tie_break = TieBreak::Latency;
            }
            "static-prior" => settings.latency = LatencyTerm::StaticPrior,
            "quality" => settings.weights = weights(0.8, 0.1, 0.1),
            "latency" => settings.weights = weights(0.1, 0.8, 0.1),
            "cost" => settings.weights = weights(0.1, 0.1, 0.8),
            "fifo" => settings.order = BatchOrder::Arrival,
            "lpt-min" => settings.order = BatchOrder::LongestMin,
            "lpt-mean" => settings.order = BatchOrder::LongestMean,
            "at-once" => settings.adaptive_batching = false,
            _ => {}
        }
        Some(Self::named(name, settings))
    }
}
