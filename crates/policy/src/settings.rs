//! Settings of the policies: weights, absolute references, the paper baseline's switches.

use serde::{Deserialize, Serialize};

use crate::{RouteBalanceSettings, Weights};

/// What the policies can be told. Absent fields keep their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct References {
    /// End-to-end time that costs as much as a whole unit of quality, seconds.
    pub e2e_s: f64,
    /// Marginal energy that does, joules.
    pub joules: f64,
    /// Price that does, US dollars.
    pub usd: f64,
}

impl Default for References {
    /// 30 s, 10 kJ, half a cent: about ten times what a conversation answer of a mid-size model takes. Chosen so that on
    /// the 13-instance fleet of `deploy/fleets/routebalance-13.toml` under the Azure conversation trace the default
    /// weights reach RouteBalance's mean quality.
    fn default() -> Self {
        Self {
            e2e_s: 30.0,
            joules: 10_000.0,
            usd: 5e-3,
        }
    }
}

/// Weights with a name, for people who do not want to tune.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
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
    pub const ALL: [Self; 5] = [Self::Quality, Self::Balanced, Self::Latency, Self::Green, Self::Cheap];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Balanced => "balanced",
            Self::Latency => "latency",
            Self::Green => "green",
            Self::Cheap => "cheap",
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
            Self::Quality => of(0.85, 0.08, 0.04, 0.03),
            Self::Balanced => of(0.4, 0.3, 0.2, 0.1),
            Self::Latency => of(0.2, 0.7, 0.05, 0.05),
            Self::Green => of(0.3, 0.1, 0.55, 0.05),
            Self::Cheap => of(0.3, 0.1, 0.05, 0.55),
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

impl PolicySettings {
    /// Checks every figure.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.weights.validate()?;
        self.routebalance.weights.validate()?;
        let References { e2e_s, joules, usd } = self.references;
        for (name, value) in [("e2e_s", e2e_s), ("joules", joules), ("usd", usd)] {
            if !value.is_finite() || value <= 0.0 {
                return Err(SettingsError::Reference { name, value });
            }
        }
        Ok(())
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
