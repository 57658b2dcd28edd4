//! Learning from outcomes while serving: per model, how far its forecasts are off.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::forecast::Forecast;
use crate::numeric::{logit, sigmoid};

/// Models that are kept track of at most; more names than this are a mistake or an attack.
const MAX_MODELS: usize = 4096;
/// Information that no drift is worth: half a dozen outcomes at even odds. Keeps the first outcomes from swinging the shift.
const PRIOR_INFORMATION: f64 = 1.5;
/// Largest shift, in log-odds: 3 turns a probability of one half into 0.95.
const MAX_SHIFT: f64 = 3.0;
/// How far predictions are kept from 0 and 1.
const MARGIN: f64 = 1e-3;

/// Per model a shift of the log-odds of its forecasts, learned from outcomes.
///
/// Each outcome is one Newton step of a logistic regression with the intercept as its only unknown, with exponential
/// forgetting; state is two numbers and a count per model, however many outcomes there were. What a predictor has wrong
/// about all prompts of a model (another checkpoint, another judge, a quantised copy) is what this mends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnlineCalibration {
    /// Outcomes that are remembered, about; older ones fade.
    memory: f64,
    models: BTreeMap<String, Shift>,
}

/// What is known of one model's shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shift {
    /// Added to the log-odds of its forecasts.
    pub log_odds: f64,
    /// Fisher information about it, with forgetting: one over its variance.
    pub information: f64,
    /// Outcomes seen in all.
    pub outcomes: u64,
}

impl Shift {
    /// Takes in an outcome, remembering about `memory` of them (10 at least): the probability that was predicted before
    /// any correction and the score, both in [0, 1]. False if a number is out of range; nothing changes then.
    pub fn observe(&mut self, memory: f64, predicted: f64, score: f64) -> bool {
        if !(0.0..=1.0).contains(&predicted) || !(0.0..=1.0).contains(&score) {
            return false;
        }
        let memory = if memory.is_finite() { memory.max(10.0) } else { 10.0 };
        let probability = self.correct(predicted);
        let kept = self.information * (1.0 - 1.0 / memory);
        self.information = kept + probability * (1.0 - probability);
        // The prior pulls back to no shift as forgetting goes on.
        let step =
            (score - probability - PRIOR_INFORMATION / memory * self.log_odds) / (self.information + PRIOR_INFORMATION);
        self.log_odds = (self.log_odds + step).clamp(-MAX_SHIFT, MAX_SHIFT);
        self.outcomes = self.outcomes.saturating_add(1);
        true
    }

    /// A predicted probability, corrected; unchanged before any outcome.
    #[must_use]
    pub fn correct(&self, predicted: f64) -> f64 {
        if self.outcomes == 0 {
            return predicted;
        }
        sigmoid(logit(predicted, MARGIN) + self.log_odds)
    }

    /// The standard deviation of the corrected probability: the uncertainty of the shift joins that of the prediction.
    #[must_use]
    pub fn correct_sd(&self, predicted: f64, sd: f64) -> f64 {
        if self.outcomes == 0 {
            return sd;
        }
        let slope = |probability: f64| (probability * (1.0 - probability)).max(MARGIN);
        let own = sd / slope(predicted);
        let variance = own * own + 1.0 / (self.information + PRIOR_INFORMATION);
        (slope(self.correct(predicted)) * variance.sqrt()).min(0.5)
    }

    /// What is left of it when only a share `kept` of what was learned is still believed.
    #[must_use]
    pub fn faded(self, kept: f64) -> Self {
        Self {
            log_odds: self.log_odds * kept,
            information: self.information * kept,
            outcomes: self.outcomes,
        }
    }
}

impl OnlineCalibration {
    /// Remembers about `memory` outcomes per model, 10 at least.
    #[must_use]
    pub fn new(memory: f64) -> Self {
        Self {
            memory: if memory.is_finite() { memory.max(10.0) } else { 10.0 },
            models: BTreeMap::new(),
        }
    }

    /// Takes in an outcome: the probability that the predictor gave (before any correction) and the score in [0, 1]. False
    /// if a number is out of range or there is no room for another model; nothing changes then.
    pub fn observe(&mut self, model: &str, predicted: f64, score: f64) -> bool {
        let in_range = (0.0..=1.0).contains(&predicted) && (0.0..=1.0).contains(&score);
        if !in_range {
            return false;
        }
        if !self.models.contains_key(model) && self.models.len() >= MAX_MODELS {
            return false;
        }
        let shift = self.models.entry(model.to_owned()).or_default();
        shift.observe(self.memory, predicted, score)
    }

    /// A probability of `model`, corrected.
    #[must_use]
    pub fn correct(&self, model: &str, predicted: f64) -> f64 {
        match self.models.get(model) {
            Some(shift) => shift.correct(predicted),
            None => predicted,
        }
    }

    /// Corrects every model of a forecast whose outcomes have been seen. The uncertainty of the shift joins that of the
    /// probability.
    pub fn apply(&self, forecast: &mut Forecast) {
        for model in &mut forecast.models {
            let Some(shift) = self.models.get(&model.name) else {
                continue;
            };
            model.quality_sd = shift.correct_sd(model.quality, model.quality_sd);
            model.quality = shift.correct(model.quality);
        }
    }

    /// What is known of a model's shift, if any of its outcomes was seen.
    #[must_use]
    pub fn shift(&self, model: &str) -> Option<Shift> {
        self.models.get(model).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::{LengthForecast, ModelForecast};
    use equipoise_types::RandomStream;
    use proptest::prelude::{any, prop_assert, proptest};

    /// Outcomes of a model whose true log-odds are `off` away from the forecast.
    fn feed(calibration: &mut OnlineCalibration, random: &mut RandomStream, outcomes: usize, off: f64) {
        for _ in 0..outcomes {
            let predicted = 0.1 + 0.8 * random.uniform();
            let truth = sigmoid(logit(predicted, MARGIN) + off);
            let score = f64::from(u8::from(random.uniform() < truth));
            assert!(calibration.observe("m", predicted, score));
        }
    }

    #[test]
    fn a_bias_is_found_and_a_change_is_followed() {
        let mut calibration = OnlineCalibration::new(300.0);
        let mut random = RandomStream::new(1);
        feed(&mut calibration, &mut random, 1000, -1.0);
        let found = calibration.shift("m").expect("seen").log_odds;
        assert!((found + 1.0).abs() < 0.35, "{found}");
        feed(&mut calibration, &mut random, 1500, 0.8);
        let found = calibration.shift("m").expect("seen").log_odds;
        assert!((found - 0.8).abs() < 0.35, "{found}");
        assert!(calibration.correct("m", 0.5) > 0.6);
        assert!((calibration.correct("other", 0.5) - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let mut calibration = OnlineCalibration::new(500.0);
        feed(&mut calibration, &mut RandomStream::new(2), 3000, 0.0);
        let shift = calibration.shift("m").expect("seen");
        assert!(shift.log_odds.abs() < 0.3, "{shift:?}");
        // Memory is bounded: information cannot grow beyond that of the outcomes remembered.
        assert!(shift.information < 500.0 * 0.25 + 1.0);
    }

    #[test]
    fn a_forecast_is_corrected_where_outcomes_were_seen() {
        let model = |name: &str| ModelForecast {
            name: name.into(),
            quality: 0.5,
            quality_sd: 0.05,
            output_tokens: LengthForecast::default(),
        };
        let mut forecast = Forecast {
            models: vec![model("m"), model("unseen")],
        };
        let mut calibration = OnlineCalibration::new(100.0);
        feed(&mut calibration, &mut RandomStream::new(3), 200, 1.5);
        calibration.apply(&mut forecast);
        assert!(forecast.models[0].quality > 0.65);
        assert_eq!(forecast.models[1], model("unseen"));
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut calibration = OnlineCalibration::new(100.0);
        for (predicted, score) in [(f64::NAN, 1.0), (0.5, f64::INFINITY), (-0.1, 0.0), (0.5, 1.5)] {
            assert!(!calibration.observe("m", predicted, score));
        }
        assert_eq!(calibration, OnlineCalibration::new(100.0));
        for index in 0..MAX_MODELS {
            assert!(calibration.observe(&index.to_string(), 0.5, 1.0));
        }
        assert!(!calibration.observe("one too many", 0.5, 1.0));
        assert!(calibration.observe("7", 0.5, 1.0));
    }

    proptest! {
        #[test]
        fn corrections_stay_in_bounds(outcomes in proptest::collection::vec((0.0..=1.0_f64, any::<bool>()), 0..200)) {
            let mut calibration = OnlineCalibration::new(50.0);
            for (predicted, good) in outcomes {
                calibration.observe("m", predicted, f64::from(u8::from(good)));
                let corrected = calibration.correct("m", predicted);
                prop_assert!((0.0..=1.0).contains(&corrected));
                // A shift keeps the order of forecasts.
                prop_assert!(calibration.correct("m", 0.3) < calibration.correct("m", 0.6));
            }
        }
    }
}
