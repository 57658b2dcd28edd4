//! The models that are served somewhere, against those that a predictor knows: which is which, and how far what the
//! operator has measured is from what the predictor says.

use std::collections::BTreeMap;

use crate::forecast::Forecast;
use crate::name::canonical_model_name;
use crate::numeric::{logit, sigmoid};
use crate::predictor::Predictor;

/// How far means are kept from 0 and 1.
const MARGIN: f64 = 1e-3;

/// Forecasts under the names that models are served by, of these models only.
///
/// Where an operator declares a model's mean quality, its forecasts are shifted by `logit(declared) - logit(mean)`, with
/// the predictor's own mean: both then agree on the mean, and the forecast says how a prompt departs from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    /// Canonical names of the models that the predictor knows, with their places in its forecasts.
    known: BTreeMap<String, usize>,
    /// The predictor's mean quality of each, [0, 1].
    means: Vec<f64>,
    served: BTreeMap<String, Served>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Served {
    place: usize,
    /// Added to the log-odds.
    shift: f64,
}

impl Roster {
    /// For this predictor; nobody is served yet.
    #[must_use]
    pub fn new(predictor: &Predictor) -> Self {
        Self {
            known: predictor.models().iter().cloned().zip(0..).collect(),
            means: predictor.mean_quality(),
            served: BTreeMap::new(),
        }
    }

    /// A model is served under `name`. `architecture` is asked for where the name says nothing; `declared` is the
    /// operator's mean quality, [0, 1]. Gives the predictor's name for it, `None` where it does not know the model.
    pub fn declare(&mut self, name: &str, architecture: Option<&str>, declared: Option<f64>) -> Option<&str> {
        let spelled = [Some(name), architecture];
        let found = spelled
            .into_iter()
            .flatten()
            .find_map(|name| self.known.get_key_value(canonical_model_name(name).as_str()));
        let Some((canonical, &place)) = found else {
            self.served.remove(name);
            return None;
        };
        let declared = declared.filter(|quality| quality.is_finite());
        let shift = declared.map_or(0.0, |declared| {
            logit(declared, MARGIN) - logit(self.means.get(place).copied().unwrap_or(0.5), MARGIN)
        });
        self.served.insert(name.to_owned(), Served { place, shift });
        Some(canonical)
    }

    /// True where a forecast would say nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.served.is_empty()
    }

    /// The forecast of a prompt for the models that are served, in the order of their names. `predictor` must be the one
    /// this was made for.
    #[must_use]
    pub fn forecast(&self, predictor: &Predictor, text: &str) -> Forecast {
        let chosen = self.served.iter().map(|(name, served)| (served.place, name.as_str()));
        let mut forecast = predictor.forecast_of(text, chosen);
        for (model, served) in forecast.models.iter_mut().zip(self.served.values()) {
            if served.shift != 0.0 {
                let slope = |probability: f64| (probability * (1.0 - probability)).max(MARGIN);
                let shifted = sigmoid(logit(model.quality, MARGIN) + served.shift);
                // The same uncertainty of the log-odds, at another place.
                model.quality_sd = (model.quality_sd * slope(shifted) / slope(model.quality)).min(0.5);
                model.quality = shifted;
            }
        }
        forecast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EASY: &str = "Tom has 3 apples and buys 2 more. How many apples does he have?";

    fn quality(forecast: &Forecast, model: &str) -> f64 {
        forecast
            .models
            .iter()
            .find(|entry| entry.name == model)
            .expect("is forecast")
            .quality
    }

    #[test]
    fn models_are_found_by_name_then_by_architecture() {
        let predictor = Predictor::embedded().expect("is well");
        let mut roster = Roster::new(&predictor);
        assert!(roster.is_empty());
        let llama = "meta-llama/Llama-3.1-8B-Instruct";
        assert_eq!(roster.declare(llama, None, None), Some("llama-3.1-8b"));
        assert_eq!(
            roster.declare("support-bot", Some("Qwen2.5-7B"), None),
            Some("qwen2.5-7b")
        );
        assert_eq!(roster.declare("house-blend", None, Some(0.5)), None);
        let forecast = roster.forecast(&predictor, EASY);
        let names: Vec<&str> = forecast.models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, [llama, "support-bot"]);
        let whole = predictor.forecast(EASY);
        assert_eq!(quality(&forecast, llama), quality(&whole, "llama-3.1-8b"));
        assert_eq!(quality(&forecast, "support-bot"), quality(&whole, "qwen2.5-7b"));
    }

    #[test]
    fn a_declared_mean_moves_all_prompts_and_keeps_their_order() {
        let predictor = Predictor::embedded().expect("is well");
        let hard = "Let $f: \\mathbb{R} \\to \\mathbb{R}$ satisfy $f(x+y)f(x-y)=f(x)^2-f(y)^2$. Find all such $f$.";
        let at = |declared: Option<f64>| {
            let mut roster = Roster::new(&predictor);
            roster.declare("gemma-2-9b", None, declared);
            [EASY, hard].map(|text| quality(&roster.forecast(&predictor, text), "gemma-2-9b"))
        };
        let (plain, low, high) = (at(None), at(Some(0.2)), at(Some(0.9)));
        for prompt in 0..2 {
            assert!(
                low[prompt] < plain[prompt] && plain[prompt] < high[prompt],
                "{low:?} {plain:?} {high:?}"
            );
        }
        assert!(low[0] > low[1] && high[0] > high[1], "{low:?} {high:?}");
        // Where the operator says what the predictor says anyway, nothing moves.
        let place = predictor
            .models()
            .iter()
            .position(|name| name == "gemma-2-9b")
            .expect("is known");
        let same = at(Some(predictor.mean_quality()[place]));
        assert!((same[0] - plain[0]).abs() < 1e-9);
    }

    #[test]
    fn means_are_those_of_the_training_prompts() {
        let predictor = Predictor::embedded().expect("is well");
        let means: BTreeMap<&str, f64> = predictor
            .models()
            .iter()
            .map(String::as_str)
            .zip(predictor.mean_quality())
            .collect();
        assert!(means.values().all(|mean| (0.05..0.95).contains(mean)), "{means:?}");
        assert!(
            means["gemma-2-2b"] < means["gemma-2-9b"] && means["gemma-2-9b"] < means["gemma-2-27b"],
            "{means:?}"
        );
        // MMLU-Pro's published accuracies, which most of the prompts are from: 0.454 and 0.629.
        assert!((means["llama-3.1-8b"] - 0.46).abs() < 0.08, "{means:?}");
        assert!((means["llama-3.1-70b"] - 0.64).abs() < 0.08, "{means:?}");
    }
}
