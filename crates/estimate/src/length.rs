//! Answer length: the running distribution of one model's answers.

use equipoise_predict::LengthForecast;
use equipoise_types::{LogHistogram, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Residual;

/// Answers remembered: enough for a stable 90th percentile, few enough to follow a workload that changes.
const MEMORY: f64 = 2000.0;
/// Before anything was seen the declared mean counts as this many answers.
const PRIOR_WEIGHT: f64 = 8.0;
/// Mean answer of the Azure conversation trace of 2023 (211 tokens), for a model without a declared one.
const DEFAULT_MEAN_TOKENS: f64 = 211.0;
/// Spread of the prior: quantiles at these multiples of the mean, those of a log-normal with sigma 0.8
/// (the Azure trace's answers fit 0.78).
const PRIOR_MULTIPLES: [f64; 8] = [0.21, 0.36, 0.50, 0.65, 0.82, 1.08, 1.48, 2.48];

/// Expected answer length of a request, tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthEstimate {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
}

impl LengthEstimate {
    /// At least one token, at most what the client allows.
    fn limited(self, max_output_tokens: Option<u32>) -> Self {
        let limit = max_output_tokens.map_or(f64::INFINITY, |max| f64::from(max.max(1)));
        let clamp = |tokens: f64| tokens.clamp(1.0, limit);
        Self {
            mean: clamp(self.mean),
            p50: clamp(self.p50),
            p90: clamp(self.p90),
        }
    }
}

/// Predicts one model's answer lengths from those it gave, and from forecasts where requests bring one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthPredictor {
    lengths: LogHistogram,
    // What `predict` answers is wanted for every candidate of every decision, and changes only when an answer ends.
    current: LengthEstimate,
    // Forecasts were learned on other workloads: their order carries over, their level is corrected.
    forecast: Residual,
}

impl LengthPredictor {
    /// Starts from a declared mean, tokens.
    #[must_use]
    pub fn new(declared_mean_tokens: Option<f64>) -> Self {
        let mean = declared_mean_tokens
            .filter(|mean| mean.is_finite() && *mean >= 1.0)
            .unwrap_or(DEFAULT_MEAN_TOKENS);
        let mut lengths = LogHistogram::new(MEMORY);
        let scale = PRIOR_MULTIPLES.iter().sum::<f64>() / PRIOR_MULTIPLES.len() as f64;
        for multiple in PRIOR_MULTIPLES {
            lengths.observe_weighted(mean * multiple / scale, PRIOR_WEIGHT / PRIOR_MULTIPLES.len() as f64);
        }
        let current = Self::read(&lengths, mean);
        Self {
            lengths,
            current,
            forecast: Residual::default(),
        }
    }

    fn read(lengths: &LogHistogram, fallback: f64) -> LengthEstimate {
        let mean = lengths.mean().unwrap_or(fallback);
        LengthEstimate {
            mean,
            p50: lengths.quantile(0.5).unwrap_or(mean),
            p90: lengths.quantile(0.9).unwrap_or(mean),
        }
    }

    /// Learns from an answer that ended by itself or at its limit.
    pub fn observe(&mut self, output_tokens: u32) {
        self.lengths.observe(f64::from(output_tokens.max(1)));
        self.current = Self::read(&self.lengths, self.current.mean);
    }

    /// Learns how long an answer was against its forecast, tokens.
    pub fn observe_forecast(&mut self, now: Timestamp, output_tokens: u32, forecast_tokens: f64) {
        self.forecast
            .observe(now, f64::from(output_tokens.max(1)), forecast_tokens);
    }

    /// The expected length of an answer with a forecast.
    #[must_use]
    pub fn predict_from(
        &self,
        now: Timestamp,
        forecast: &LengthForecast,
        max_output_tokens: Option<u32>,
    ) -> LengthEstimate {
        let factor = self.forecast.factor(now);
        let estimate = LengthEstimate {
            mean: forecast.mean * factor,
            p50: forecast.p50 * factor,
            p90: forecast.p90 * factor,
        };
        estimate.limited(max_output_tokens)
    }

    /// The expected length of an answer that may have `max_output_tokens` at most; at least one token.
    #[must_use]
    pub fn predict(&self, max_output_tokens: Option<u32>) -> LengthEstimate {
        self.current.limited(max_output_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_the_declared_mean_and_follows_what_is_seen() {
        let mut predictor = LengthPredictor::new(Some(400.0));
        assert!((predictor.predict(None).mean - 400.0).abs() < 1e-6);
        for _ in 0..3000 {
            predictor.observe(50);
        }
        let estimate = predictor.predict(None);
        assert!((estimate.mean - 50.0).abs() < 3.0, "{estimate:?}");
        assert!((estimate.p90 / 50.0 - 1.0).abs() < 0.2, "{estimate:?}");
    }

    #[test]
    fn a_forecast_keeps_its_order_and_learns_its_level() {
        let forecast = |mean: f64| LengthForecast {
            mean,
            p10: mean / 3.0,
            p50: mean,
            p90: mean * 2.0,
        };
        let mut predictor = LengthPredictor::new(None);
        for _ in 0..50 {
            predictor.observe_forecast(Timestamp::ZERO, 50, 100.0);
        }
        let long = predictor.predict_from(Timestamp::ZERO, &forecast(400.0), None);
        let short = predictor.predict_from(Timestamp::ZERO, &forecast(40.0), None);
        assert!(
            (long.mean - 200.0).abs() < 1e-6 && (short.p90 - 40.0).abs() < 1e-6,
            "{long:?} {short:?}"
        );
    }

    #[test]
    fn a_limit_is_kept() {
        let predictor = LengthPredictor::new(None);
        assert_eq!(predictor.predict(Some(16)).p90, 16.0);
        assert_eq!(predictor.predict(Some(0)).mean, 1.0);
    }
}
