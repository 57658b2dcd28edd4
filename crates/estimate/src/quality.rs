//! Answer quality: for now each model's mean, as declared. A predictor from the prompt takes this place later.

use serde::{Deserialize, Serialize};

/// Quality of a model nobody has declared: neither good nor bad, and said to be unknown.
const UNKNOWN_QUALITY: f64 = 0.5;

/// A predicted probability of a good answer, and whether anything is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityEstimate {
    /// [0, 1].
    pub mean: f64,
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

    /// The same for every prompt.
    #[must_use]
    pub fn predict(&self) -> QualityEstimate {
        QualityEstimate {
            mean: self.declared.unwrap_or(UNKNOWN_QUALITY),
            known: self.declared.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undeclared_model_says_so() {
        assert_eq!(
            QualityPredictor::new(None).predict(),
            QualityEstimate {
                mean: 0.5,
                known: false
            }
        );
        assert_eq!(
            QualityPredictor::new(Some(1.7)).predict(),
            QualityEstimate { mean: 1.0, known: true }
        );
        assert!(!QualityPredictor::new(Some(f64::NAN)).predict().known);
    }
}
