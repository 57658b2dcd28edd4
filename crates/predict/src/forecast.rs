//! What travels with a request: per model, how good and how long its answer is likely to be.

use serde::{Deserialize, Serialize};

/// The forecasts of one prompt, one entry per model that the predictor knows, in the predictor's fixed order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// One entry per known model; a model that is absent is unknown, which is not the same as bad.
    pub models: Vec<ModelForecast>,
}

/// What is expected of one model's answer to one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelForecast {
    /// The model's canonical name: lower case, without organisation or `-instruct` (`llama-3.1-8b`).
    pub name: String,
    /// Calibrated probability in [0, 1] that the answer is good.
    pub quality: f64,
    /// Standard deviation of that probability itself, in [0, 0.5]: how far the true probability may be from `quality`,
    /// not the spread of a single 0-or-1 outcome.
    pub quality_sd: f64,
    /// Length of the answer.
    pub output_tokens: LengthForecast,
}

/// The distribution of an answer's length, in tokens; `p10 <= p50 <= p90`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LengthForecast {
    /// Expected value.
    pub mean: f64,
    /// One answer in ten is shorter.
    pub p10: f64,
    /// Median.
    pub p50: f64,
    /// One answer in ten is longer.
    pub p90: f64,
}

impl Forecast {
    /// The forecast of `model`, whatever way its name is written: case, organisation prefix and the usual suffixes do not
    /// matter (see [`canonical_model_name`](crate::canonical_model_name)).
    #[must_use]
    pub fn of(&self, model: &str) -> Option<&ModelForecast> {
        self.of_names(model, &crate::canonical_model_name(model))
    }

    /// That of a model whose name is known both as clients write it and as predictors do.
    #[must_use]
    pub fn of_names(&self, name: &str, canonical: &str) -> Option<&ModelForecast> {
        let named = |wanted: &str| self.models.iter().find(|forecast| forecast.name == wanted);
        named(name).or_else(|| named(canonical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_however_it_is_written() {
        let forecast = Forecast {
            models: vec![ModelForecast {
                name: "llama-3.1-8b".into(),
                quality: 0.5,
                quality_sd: 0.1,
                output_tokens: LengthForecast::default(),
            }],
        };
        for name in [
            "llama-3.1-8b",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
            "Llama-3_1-8B-Instruct",
        ] {
            assert!(forecast.of(name).is_some(), "{name}");
        }
        assert!(forecast.of("llama-3.1-70b").is_none());
    }

    #[test]
    fn a_forecast_survives_json() {
        let forecast = Forecast {
            models: vec![ModelForecast {
                name: "m".into(),
                quality: 0.25,
                quality_sd: 0.125,
                output_tokens: LengthForecast {
                    mean: 12.0,
                    p10: 3.0,
                    p50: 10.0,
                    p90: 30.0,
                },
            }],
        };
        let json = serde_json::to_string(&forecast).expect("serialises");
        assert_eq!(serde_json::from_str::<Forecast>(&json).expect("parses"), forecast);
    }
}
