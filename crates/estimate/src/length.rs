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
/// Of its logarithm, natural.
const PRIOR_SIGMA: f64 = 0.8;

/// Expected answer length of a request, tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LengthEstimate {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// What the client allows, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The standard normal distribution's 90 % quantile.
const Z90: f64 = 1.281_551_6;

/// The standard normal distribution's quantile of `share` in (0, 1): Abramowitz and Stegun, 26.2.23, good to 4.5e-4.
fn normal_quantile(share: f64) -> f64 {
    let tail = share.min(1.0 - share).max(f64::MIN_POSITIVE);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - above / below).copysign(share - 0.5)
}

impl LengthEstimate {
    /// What a `share` of answers does not exceed, tokens: of the log-normal through the median and the 90th percentile
    /// (the Azure trace's answers fit one), and never above the limit. At least one token.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let median = self.p50.max(1.0);
        let spread = (self.p90 / median).max(1.0).ln() / Z90;
        let tokens = median * (spread * normal_quantile(share)).exp();
        let limit = self.limit.map_or(f64::MAX, |limit| f64::from(limit.max(1)));
        tokens.clamp(1.0, limit)
    }

    /// At least one token, at most what the client allows.
    fn limited(self, max_output_tokens: Option<u32>) -> Self {
        let limit = max_output_tokens.map_or(f64::INFINITY, |max| f64::from(max.max(1)));
        let clamp = |tokens: f64| tokens.clamp(1.0, limit);
        Self {
            mean: clamp(self.mean),
            p50: clamp(self.p50),
            p90: clamp(self.p90),
            limit: max_output_tokens,
        }
    }
}

/// Predicts one model's answer lengths from those it gave, and from forecasts where requests bring one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LengthPredictor {
    lengths: LogHistogram,
    // What `predict` answers is wanted for every candidate of every decision, and changes only when an answer ends.
    current: LengthEstimate,
    // Before anything was seen.
    prior: LengthEstimate,
    // Seen, up to what is remembered, and sent but not answered yet.
    seen: f64,
    open: u32,
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
        // Eight points know no tail: the distribution that they stand for does.
        let median = mean * (-0.5 * PRIOR_SIGMA * PRIOR_SIGMA).exp();
        let current = LengthEstimate {
            mean: lengths.mean().unwrap_or(mean),
            p50: median,
            p90: median * (PRIOR_SIGMA * Z90).exp(),
            limit: None,
        };
        Self {
            lengths,
            current,
            prior: current,
            seen: 0.0,
            open: 0,
            forecast: Residual::default(),
        }
    }

    fn read(lengths: &LogHistogram, fallback: f64) -> LengthEstimate {
        let mean = lengths.mean().unwrap_or(fallback);
        LengthEstimate {
            mean,
            p50: lengths.quantile(0.5).unwrap_or(mean),
            p90: lengths.quantile(0.9).unwrap_or(mean),
            limit: None,
        }
    }

    /// A request was sent to the model.
    pub fn sent(&mut self) {
        self.open += 1;
    }

    /// A request that was sent has ended, one way or the other.
    pub fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Short answers end first: for as long as few have ended, they do not speak for those that still run.
    fn with_those_open(&self) -> LengthEstimate {
        let open = f64::from(self.open);
        let prior = (2.0 * open / (open + self.seen).max(1.0)).min(1.0);
        let blend = |seen: f64, prior_tokens: f64| seen * (prior_tokens / seen).max(1.0).powf(prior);
        LengthEstimate {
            p50: blend(self.current.p50, self.prior.p50),
            p90: blend(self.current.p90, self.prior.p90),
            ..self.current
        }
    }

    /// Learns from an answer that ended by itself or at its limit.
    pub fn observe(&mut self, output_tokens: u32) {
        self.lengths.observe(f64::from(output_tokens.max(1)));
        self.seen = (self.seen + 1.0).min(MEMORY);
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
            limit: None,
        };
        estimate.limited(max_output_tokens)
    }

    /// The expected length of an answer that may have `max_output_tokens` at most; at least one token.
    #[must_use]
    pub fn predict(&self, max_output_tokens: Option<u32>) -> LengthEstimate {
        self.with_those_open().limited(max_output_tokens)
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
    fn quantiles_are_those_of_a_log_normal() {
        let length = LengthEstimate {
            mean: 130.0,
            p50: 100.0,
            p90: 100.0 * (0.8 * Z90).exp(),
            limit: None,
        };
        for (share, z) in [
            (0.05, -1.644_854),
            (0.5, 0.0),
            (0.9, Z90),
            (0.95, 1.644_854),
            (0.99, 2.326_348),
        ] {
            let expected = 100.0 * (0.8 * z).exp();
            let got = length.quantile(share);
            assert!((got / expected - 1.0).abs() < 1e-3, "{share}: {got}, not {expected}");
        }
        let limited = LengthEstimate {
            limit: Some(120),
            ..length
        };
        assert_eq!(limited.quantile(0.95), 120.0);
    }

    #[test]
    fn short_answers_do_not_speak_for_those_that_still_run() {
        let (mut all, mut some) = (LengthPredictor::new(None), LengthPredictor::new(None));
        for _ in 0..100 {
            some.sent();
            some.sent();
            all.sent();
        }
        for _ in 0..100 {
            for predictor in [&mut all, &mut some] {
                predictor.closed();
                predictor.observe(20);
            }
        }
        let (all_p90, some_p90) = (all.predict(None).p90, some.predict(None).p90);
        assert!(some_p90 > 2.0 * all_p90, "{some_p90} {all_p90}");
        (0..100).for_each(|_| some.closed());
        assert_eq!(some.predict(None), all.predict(None));
    }

    #[test]
    fn a_limit_is_kept() {
        let predictor = LengthPredictor::new(None);
        assert_eq!(predictor.predict(Some(16)).p90, 16.0);
        assert_eq!(predictor.predict(Some(0)).mean, 1.0);
    }
}
