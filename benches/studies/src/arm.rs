//! One policy with its settings, as a study runs it.

use equipoise_policy::{Decoupled, PolicySettings, Preset, QualityNorm, References, RouteBalanceSettings, Weights};
use equipoise_scheduler::SchedulerConfig;

/// Weights of latency and energy in the sweep, from quality alone to hardly any.
const SWEEP: [(f64, f64); 18] = [
    (0.001, 0.001),
    (0.006, 0.003),
    (0.01, 0.01),
    (0.01, 0.1),
    (0.03, 0.01),
    (0.03, 0.03),
    (0.1, 0.03),
    (0.1, 0.1),
    (0.1, 0.5),
    (0.3, 0.03),
    (0.3, 0.1),
    (0.3, 0.3),
    (0.3, 1.0),
    (1.0, 0.03),
    (1.0, 0.3),
    (1.0, 1.5),
    (3.0, 0.5),
    (3.0, 5.0),
];

/// Whose an arm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// A preset of ours.
    Preset,
    /// A point of our sweep between presets.
    Sweep,
    /// RouteBalance, the paper's settings.
    RouteBalance,
    /// A model router in front of a load balancer.
    Decoupled,
    /// A load balancer alone.
    Balancer,
}

/// One policy with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Unique in a study.
    pub name: String,
    /// Whose it is.
    pub family: Family,
    /// The policy's name.
    pub policy: String,
    /// Its settings.
    pub settings: PolicySettings,
}

impl Arm {
    /// A policy as it comes.
    #[must_use]
    pub fn named(policy: &str, family: Family) -> Self {
        Self {
            name: policy.to_owned(),
            family,
            policy: policy.to_owned(),
            settings: PolicySettings::default(),
        }
    }

    /// A preset of ours.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        Self {
            name: format!("equipoise {}", preset.name()),
            ..Self::ours(Family::Preset, preset.weights(), References::default())
        }
    }

    /// Ours with any weights.
    #[must_use]
    pub fn ours(family: Family, weights: Weights, references: References) -> Self {
        let settings = PolicySettings {
            weights,
            references,
            ..PolicySettings::default()
        };
        Self {
            name: "equipoise".to_owned(),
            family,
            policy: "equipoise".to_owned(),
            settings,
        }
    }

    /// RouteBalance with weights of quality, latency and cost.
    #[must_use]
    pub fn routebalance(title: &str, [quality, latency, cost]: [f64; 3], quality_norm: QualityNorm) -> Self {
        let weights = Weights {
            quality,
            latency,
            energy: 0.0,
            cost,
        };
        let settings = PolicySettings {
            routebalance: RouteBalanceSettings {
                weights,
                quality_norm,
                ..RouteBalanceSettings::default()
            },
            ..PolicySettings::default()
        };
        let norm = match quality_norm {
            QualityNorm::Raw => "raw",
            QualityNorm::MinMax => "minmax",
        };
        Self {
            name: format!("routebalance {title} {norm}"),
            family: Family::RouteBalance,
            policy: "routebalance".to_owned(),
            settings,
        }
    }

    /// Every arm that ours are held against.
    #[must_use]
    pub fn baselines() -> Vec<Self> {
        let mut arms = Vec::new();
        let emphases = [
            ("balance", [1.0 / 3.0; 3]),
            ("quality", [0.8, 0.1, 0.1]),
            ("latency", [0.1, 0.8, 0.1]),
            ("cost", [0.1, 0.1, 0.8]),
        ];
        for (title, weights) in emphases {
            for norm in [QualityNorm::MinMax, QualityNorm::Raw] {
                arms.push(Self::routebalance(title, weights, norm));
            }
        }
        for arm in ["latency-blind", "latency-tiebreak", "static-prior"] {
            arms.push(Self::named(&format!("routebalance/{arm}"), Family::RouteBalance));
        }
        arms.extend(
            Decoupled::names()
                .iter()
                .map(|name| Self::named(name, Family::Decoupled)),
        );
        let balancers = equipoise_policy::names().iter();
        let balancers = balancers.filter(|name| !["routebalance", "equipoise"].contains(name));
        arms.extend(balancers.map(|name| Self::named(name, Family::Balancer)));
        arms
    }

    /// Ours: the presets, and other weights of latency and energy beside a weight of 1 for quality, on the default scales.
    #[must_use]
    pub fn all_of_ours() -> Vec<Self> {
        let mut arms: Vec<Self> = Preset::ALL.into_iter().map(Self::preset).collect();
        for (latency, energy) in SWEEP {
            let weights = Weights {
                quality: 1.0,
                latency,
                energy,
                cost: 0.0,
            };
            arms.push(Self {
                name: format!("equipoise 1/{latency}/{energy}"),
                ..Self::ours(Family::Sweep, weights, References::default())
            });
        }
        arms
    }

    /// The scheduler of a run. Nobody gives up in line, so that an overload shows in the latency of whoever caused it and
    /// never in a refusal.
    #[must_use]
    pub fn scheduler(&self, fleet: &SchedulerConfig) -> SchedulerConfig {
        SchedulerConfig {
            policy: self.policy.clone(),
            settings: self.settings,
            queue_limit: 1_000_000,
            queue_timeout_s: 86_400.0,
            ..fleet.clone()
        }
    }
}
