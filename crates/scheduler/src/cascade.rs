//! Cascades: a first answer that is not sure of itself is not shown, and a better model is asked.

use std::collections::BTreeMap;

use equipoise_estimate::ConformalThreshold;
use equipoise_policy::{Candidate, Request, SettingsError, Target};
use equipoise_types::ModelId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How sure a first answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CascadeSettings {
    /// Least confidence of an answer that is shown, [0, 1]; outcomes raise it where the risk demands.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// Most expected badness of an answer that passes, (0, 1): with scores of 0 and 1 the share of bad ones.
    #[schemars(range(min = 0.001, max = 0.999))]
    pub risk: f64,
    /// Outcomes per model that count.
    pub memory: usize,
}

/// Who picks the first model of a cascade, and the better one, unless its name says so: the cheapest that there is.
const CASCADED: &str = "equipoise@cheap";

impl Default for CascadeSettings {
    fn default() -> Self {
        Self {
            threshold: 0.7,
            risk: 0.2,
            memory: 500,
        }
    }
}

impl CascadeSettings {
    /// The policy under a cascade's name, and the cascade: `cascade[@THRESHOLD][+POLICY]`. Any other name is a policy's own.
    /// What the name does not say is as declared.
    ///
    /// # Errors
    /// For a threshold that is no number.
    pub(crate) fn of_name(name: &str, declared: Option<Self>) -> Result<(&str, Option<Self>), SettingsError> {
        let (front, policy) = name.split_once('+').unwrap_or((name, CASCADED));
        let (word, threshold) = match front.split_once('@') {
            Some((word, threshold)) => (word, Some(threshold)),
            None => (front, None),
        };
        if word != "cascade" {
            return Ok((name, declared));
        }
        let mut settings = declared.unwrap_or_default();
        if let Some(threshold) = threshold {
            settings.threshold = threshold.parse().unwrap_or(f64::NAN);
        }
        settings.validate()?;
        Ok((policy, Some(settings)))
    }

    pub(crate) fn validate(self) -> Result<(), SettingsError> {
        SettingsError::in_range("threshold", self.threshold, 0.0, 1.0)?;
        SettingsError::in_range("risk", self.risk, 0.001, 0.999)?;
        SettingsError::in_range("memory", self.memory as f64, 10.0, 100_000.0)
    }
}

/// What a dispatched request's answer must pass before it is shown. The driver says how sure the answer is with
/// [`Event::Judged`](crate::Event::Judged), or, where it cannot tell, ends the request as if there were no gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Least confidence that passes; [0, 1], or above where nothing passes.
    pub threshold: f64,
}

/// One threshold per model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cascade {
    settings: Option<CascadeSettings>,
    thresholds: BTreeMap<ModelId, ConformalThreshold>,
}

impl Cascade {
    pub(crate) fn new(settings: Option<CascadeSettings>) -> Self {
        Self {
            settings,
            thresholds: BTreeMap::new(),
        }
    }

    /// Whether every answer is shown as it comes.
    pub(crate) fn is_off(&self) -> bool {
        self.settings.is_none()
    }

    /// The gate for a first answer of `chosen`: there is one where the choice of a model is open and a better one could
    /// take over.
    pub(crate) fn gate(&self, request: &Request, chosen: &Candidate, candidates: &[Candidate]) -> Option<Gate> {
        let settings = self.settings?;
        let quality = chosen.estimate().quality;
        let better = |candidate: &Candidate| candidate.model != chosen.model && candidate.estimate().quality > quality;
        if request.target != Target::Auto || !candidates.iter().any(better) {
            return None;
        }
        let known = self.thresholds.get(&chosen.model);
        Some(Gate {
            // JSON, which the event log is, has no infinity.
            threshold: known.map_or(settings.threshold, ConformalThreshold::current).min(2.0),
        })
    }

    /// An answer that had passed was good or not.
    pub(crate) fn observe(&mut self, model: ModelId, confidence: f64, score: f64) {
        let Some(settings) = self.settings else { return };
        let fresh = || ConformalThreshold::new(settings.threshold, settings.risk, settings.memory);
        self.thresholds
            .entry(model)
            .or_insert_with(fresh)
            .observe(confidence, score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_hold_a_cascade() {
        let declared = CascadeSettings {
            risk: 0.1,
            ..CascadeSettings::default()
        };
        let of_name = |name| CascadeSettings::of_name(name, Some(declared));
        assert_eq!(of_name("cascade"), Ok((CASCADED, Some(declared))));
        let sharper = CascadeSettings {
            threshold: 0.9,
            ..declared
        };
        assert_eq!(
            of_name("cascade@0.9+least-requests"),
            Ok(("least-requests", Some(sharper)))
        );
        assert_eq!(
            CascadeSettings::of_name("routellm@0.5+round-robin", None),
            Ok(("routellm@0.5+round-robin", None))
        );
        for wrong in ["cascade@", "cascade@much", "cascade@1.5+equipoise"] {
            let error = of_name(wrong).expect_err("nonsense");
            assert!(error.to_string().contains("threshold"), "{wrong}: {error}");
        }
    }
}
