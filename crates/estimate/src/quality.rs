//! Answer quality: the forecast from the prompt where the request brings one, else the model's mean as declared.

use equipoise_predict::{ModelForecast, Shift};
use equipoise_types::Timestamp;
use serde::{Deserialize, Serialize};

/// Quality of a model nobody has declared: neither good nor bad, and said to be unknown.
const UNKNOWN_QUALITY: f64 = 0.5;
/// Spread of a probability of which nothing is known: that of the uniform distribution.
const UNKNOWN_SD: f64 = 0.289;
/// Spread of single prompts around a model's mean: on ZeroEval, calibrated predictions spread by about this much.
const PROFILE_SD: f64 = 0.25;
/// Without outcomes half of what they taught is forgotten in this time, seconds: a model that was found bad, and gets no
/// traffic for it, is tried again the same day.
const HALF_LIFE_S: f64 = 6.0 * 3600.0;

/// What a predicted quality rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QualitySource {
    /// The prompt was read.
    Forecast,
    /// The model's declared mean, the same for every prompt.
    Declared,
    /// Nothing: the figure is a placeholder.
    #[default]
    Unknown,
}

impl QualitySource {
    /// A short name, for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::Declared => "declared",
            Self::Unknown => "unknown",
        }
    }
}

/// A predicted probability of a good answer, and what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityEstimate {
    /// [0, 1].
    pub mean: f64,
    /// How far off the mean may be: one standard deviation.
    pub sd: f64,
    /// What it rests on.
    pub source: QualitySource,
    /// The mean before outcomes corrected it, [0, 1]; the same where none were seen.
    pub base: f64,
}

impl Default for QualityEstimate {
    /// Of a model of which nothing is known.
    fn default() -> Self {
        Self::of(UNKNOWN_QUALITY, UNKNOWN_SD, QualitySource::Unknown)
    }
}

impl QualityEstimate {
    fn of(mean: f64, sd: f64, source: QualitySource) -> Self {
        Self {
            mean,
            sd,
            source,
            base: mean,
        }
    }

    /// The same after what outcomes have taught.
    #[must_use]
    pub fn corrected(self, shift: &Shift) -> Self {
        Self {
            mean: shift.correct(self.base),
            sd: shift.correct_sd(self.base, self.sd),
            ..self
        }
    }
}

/// Predicts the quality of one model's answers, and learns from outcomes how far it is off. Bounded memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityPredictor {
    declared: Option<f64>,
    learned: Shift,
    /// When the last outcome came.
    learned_at: Timestamp,
}

impl QualityPredictor {
    /// From the declared mean, [0, 1], if there is one.
    #[must_use]
    pub fn new(declared: Option<f64>) -> Self {
        Self {
            declared: declared
                .filter(|quality| quality.is_finite())
                .map(|quality| quality.clamp(0.0, 1.0)),
            learned: Shift::default(),
            learned_at: Timestamp::ZERO,
        }
    }

    /// Takes a declaration over. Another mean than before is a new measurement: what outcomes had taught about the old
    /// one is forgotten.
    pub fn redeclare(&mut self, declared: Option<f64>) {
        let fresh = Self::new(declared);
        if fresh.declared != self.declared {
            *self = fresh;
        }
    }

    /// From the prompt.
    #[must_use]
    pub fn predict_from(&self, now: Timestamp, forecast: &ModelForecast) -> QualityEstimate {
        let mean = forecast.quality.clamp(0.0, 1.0);
        QualityEstimate::of(mean, forecast.quality_sd.max(0.0), QualitySource::Forecast).corrected(&self.shift(now))
    }

    /// The same for every prompt.
    #[must_use]
    pub fn predict(&self, now: Timestamp) -> QualityEstimate {
        let plain = match self.declared {
            Some(mean) => QualityEstimate::of(mean, PROFILE_SD, QualitySource::Declared),
            None => QualityEstimate::default(),
        };
        plain.corrected(&self.shift(now))
    }

    /// What outcomes have taught, as far as it is still believed.
    #[must_use]
    pub fn shift(&self, now: Timestamp) -> Shift {
        if self.learned.outcomes == 0 {
            return self.learned;
        }
        self.learned
            .faded((-now.secs_since(self.learned_at) / HALF_LIFE_S).exp2())
    }

    /// Takes in an outcome: what was predicted before any correction ([`QualityEstimate::base`]) and the score, both in
    /// [0, 1]. About `memory` outcomes are remembered. False if a number is out of range; nothing changes then.
    pub fn observe(&mut self, now: Timestamp, memory: f64, base: f64, score: f64) -> bool {
        let mut learned = self.shift(now);
        let taken = learned.observe(memory, base, score);
        if taken {
            (self.learned, self.learned_at) = (learned, now);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undeclared_model_says_so() {
        let unknown = QualityPredictor::new(None).predict(Timestamp::ZERO);
        assert_eq!((unknown.mean, unknown.source), (0.5, QualitySource::Unknown));
        let declared = QualityPredictor::new(Some(1.7)).predict(Timestamp::ZERO);
        assert_eq!((declared.mean, declared.source), (1.0, QualitySource::Declared));
        assert!(declared.sd < unknown.sd);
        let nonsense = QualityPredictor::new(Some(f64::NAN)).predict(Timestamp::ZERO);
        assert_eq!(nonsense.source, QualitySource::Unknown);
    }

    #[test]
    fn outcomes_correct_the_mean_and_leave_the_base() {
        let mut predictor = QualityPredictor::new(Some(0.8));
        let at = |seconds: f64| Timestamp::from_secs_f64(seconds);
        assert_eq!(predictor.predict(at(9.0)).mean, 0.8);
        for _ in 0..100 {
            assert!(predictor.observe(at(9.0), 100.0, 0.8, 0.0));
        }
        let corrected = predictor.predict(at(9.0));
        assert!(corrected.mean < 0.3 && corrected.base == 0.8, "{corrected:?}");
        assert!(!predictor.observe(at(9.0), 100.0, 0.8, 1.1) && predictor.predict(at(9.0)) == corrected);
        // Nobody is condemned for ever.
        let later = predictor.predict(at(9.0 + 2.0 * HALF_LIFE_S));
        assert!(later.mean > 0.6 && later.mean < 0.8, "{later:?}");
        // The same declaration again changes nothing, another one begins anew.
        predictor.redeclare(Some(0.8));
        assert_eq!(predictor.predict(at(9.0)), corrected);
        predictor.redeclare(Some(0.7));
        assert_eq!(predictor.predict(at(9.0)).mean, 0.7);
    }
}
