//! Answer quality: the forecast from the prompt where the request brings one, else the model's mean as declared.

use equipoise_predict::ModelForecast;
use serde::{Deserialize, Serialize};

/// Quality of a model nobody has declared: neither good nor bad, and said to be unknown.
const UNKNOWN_QUALITY: f64 = 0.5;
/// Spread of a probability of which nothing is known: that of the uniform distribution.
const UNKNOWN_SD: f64 = 0.289;
/// Spread of single prompts around a model's mean: on ZeroEval, calibrated predictions spread by about this much.
const PROFILE_SD: f64 = 0.25;

/// A predicted probability of a good answer, and whether anything is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityEstimate {
    /// [0, 1].
    pub mean: f64,
    /// How far off the mean may be: one standard deviation.
    pub sd: f64,
    /// False where the model has no declared profile and the figure is a placeholder.
    pub known: bool,
}

/// Predicts the quality of one model's answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityPredictor {
    declared: Option<f64>,
}

impl QualityPredictor {
    /// From the declared mean, [0, 1], if there is one.
    #[must_use]
    pub fn new(declared: Option<f64>) -> Self {
        Self {
            declared: declared
                .filter(|quality| quality.is_finite())
                .map(|quality| quality.clamp(0.0, 1.0)),
        }
    }

    /// From the prompt.
    #[must_use]
    pub fn predict_from(&self, forecast: &ModelForecast) -> QualityEstimate {
        QualityEstimate {
            mean: forecast.quality.clamp(0.0, 1.0),
            sd: forecast.quality_sd.max(0.0),
            known: true,
        }
    }

    /// The same for every prompt.
    #[must_use]
    pub fn predict(&self) -> QualityEstimate {
        match self.declared {
            Some(mean) => QualityEstimate {
                mean,
                sd: PROFILE_SD,
                known: true,
            },
            None => QualityEstimate {
                mean: UNKNOWN_QUALITY,
                sd: UNKNOWN_SD,
                known: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undeclared_model_says_so() {
        let unknown = QualityPredictor::new(None).predict();
        assert_eq!((unknown.mean, unknown.known), (0.5, false));
        let declared = QualityPredictor::new(Some(1.7)).predict();
        assert_eq!((declared.mean, declared.known), (1.0, true));
        assert!(declared.sd < unknown.sd);
        assert!(!QualityPredictor::new(Some(f64::NAN)).predict().known);
    }
}
