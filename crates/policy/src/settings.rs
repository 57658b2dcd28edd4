//! Settings of the policies: weights, absolute references, the paper baseline's switches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{RouteBalanceSettings, Weights};

/// What the policies can be told. Absent fields keep their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Of the `equipoise` score, where a request does not bring its own.
    pub weights: Weights,
    /// Scales of the `equipoise` score.
    pub references: References,
    /// Switches of the `routebalance` baseline.
    pub routebalance: RouteBalanceSettings,
}

/// Absolute scales: what one unit of each force is. A request's own SLO takes the place of `e2e_s`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct References {
    /// End-to-end time at which latency counts two units, seconds: one for its length, one for being that long.
    pub e2e_s: f64,
    /// Marginal energy that counts one unit, joules.
    pub joules: f64,
    /// Price that does, US dollars.
    pub usd: f64,
    /// How much of the idle draw of the time by which a request keeps an engine busy is put to its account, [0, 1]. One: an
    /// idle engine could sleep, or its GPUs could serve others; energy is then what the ledger attributes to requests.
    /// Zero: boards stay powered whatever happens, and only what they draw above idle can be saved.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub idle_share: f64,
}

impl Default for References {
    /// 30 s, 1 kJ, a tenth of a cent: each a few times what a conversation answer of a mid-size model takes.
    fn default() -> Self {
        Self {
            e2e_s: 30.0,
            joules: 1000.0,
            usd: 1e-3,
            idle_share: 1.0,
        }
    }
}

/// Weights with a name, for people who do not want to tune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The best answer, almost whatever it takes.
    Best,
    /// The best answer that is still reasonable.
    Quality,
    /// The default.
    Balanced,
    /// Quick answers.
    Latency,
    /// Few joules.
    Green,
    /// Few dollars.
    Cheap,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Best,
        Self::Quality,
        Self::Balanced,
        Self::Latency,
        Self::Green,
        Self::Cheap,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Quality => "quality",
            Self::Balanced => "balanced",
            Self::Latency => "latency",
            Self::Green => "green",
            Self::Cheap => "cheap",
        }
    }

    /// The policy that scores by it.
    #[must_use]
    pub fn policy(self) -> &'static str {
        match self {
            Self::Best => "equipoise@best",
            Self::Quality => "equipoise@quality",
            Self::Balanced => "equipoise@balanced",
            Self::Latency => "equipoise@latency",
            Self::Green => "equipoise@green",
            Self::Cheap => "equipoise@cheap",
        }
    }

    /// The preset of a name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// Its weights.
    #[must_use]
    pub fn weights(self) -> Weights {
        let of = |quality, latency, energy, cost| Weights {
            quality,
            latency,
            energy,
            cost,
        };
        match self {
            Self::Best => of(0.98, 0.012, 0.006, 0.002),
            Self::Quality => of(0.94, 0.03, 0.025, 0.005),
            Self::Balanced => of(0.76, 0.16, 0.06, 0.02),
            Self::Latency => of(0.28, 0.5, 0.2, 0.02),
            Self::Green => of(0.4, 0.18, 0.4, 0.02),
            Self::Cheap => of(0.4, 0.1, 0.1, 0.4),
        }
    }
}

impl Weights {
    fn validate(self) -> Result<(), SettingsError> {
        let parts = [
            ("quality", self.quality),
            ("latency", self.latency),
            ("energy", self.energy),
            ("cost", self.cost),
        ];
        for (name, value) in parts {
            if !value.is_finite() || value < 0.0 {
                return Err(SettingsError::Weight { name, value });
            }
        }
        Ok(())
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            weights: Preset::Balanced.weights(),
            references: References::default(),
            routebalance: RouteBalanceSettings::default(),
        }
    }
}

/// Settings that make no sense, with the mend.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// Nobody has this name.
    #[error("no policy is called `{name}`; there are: {known}")]
    UnknownPolicy {
        /// As asked for.
        name: String,
        /// Comma-separated.
        known: String,
    },
    /// A setting is out of its range.
    #[error("`{name}` is {value}; it must be from {least} to {most}")]
    Range {
        /// Which.
        name: &'static str,
        /// As given.
        value: f64,
        /// The least it may be.
        least: f64,
        /// The most.
        most: f64,
    },
    /// A weight is negative or not a number.
    #[error("weight `{name}` is {value}; it must be zero or more")]
    Weight {
        /// Which.
        name: &'static str,
        /// As given.
        value: f64,
    },
    /// A reference is zero, negative or not a number.
    #[error("reference `{name}` is {value}; it must be above zero")]
    Reference {
        /// Which.
        name: &'static str,
        /// As given.
        value: f64,
    },
}

impl SettingsError {
    /// Checks that a setting is within its range; what is no number is not.
    ///
    /// # Errors
    /// [`SettingsError::Range`].
    pub fn in_range(name: &'static str, value: f64, least: f64, most: f64) -> Result<(), Self> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(Self::Range {
            name,
            value,
            least,
            most,
        })
    }
}

impl PolicySettings {
    /// Checks every figure.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.weights.validate()?;
        self.routebalance.weights.validate()?;
        let References {
            e2e_s,
            joules,
            usd,
            idle_share,
        } = self.references;
        for (name, value) in [("e2e_s", e2e_s), ("joules", joules), ("usd", usd)] {
            if !value.is_finite() || value <= 0.0 {
                return Err(SettingsError::Reference { name, value });
            }
        }
        SettingsError::in_range("idle_share", idle_share, 0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_named() {
        let mut settings = PolicySettings::default();
        assert_eq!(settings.validate(), Ok(()));
        settings.weights.energy = -1.0;
        assert_eq!(
            settings.validate(),
            Err(SettingsError::Weight {
                name: "energy",
                value: -1.0
            })
        );
        let settings = PolicySettings {
            references: References {
                usd: 0.0,
                ..References::default()
            },
            ..PolicySettings::default()
        };
        assert_eq!(
            settings.validate(),
            Err(SettingsError::Reference {
                name: "usd",
                value: 0.0
            })
        );
        assert!(crate::by_name("magic", &PolicySettings::default()).is_err());
        for name in crate::all_names() {
            assert_eq!(
                crate::by_name(name, &PolicySettings::default()).expect("known").name(),
                name
            );
        }
    }
}
