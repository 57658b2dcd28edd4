//! Predictors of quality, output length, latency and energy, calibrated online.
//!
//! Physics first, then residuals: every prediction starts from the engine model (or, for an opaque instance, from a
//! nominal one) and is multiplied by a factor that was learned from what was observed. State here belongs to whoever
//! holds it (the fleet, one estimator per instance and one predictor per model). Does not belong here: which instance
//! to take, and anything that knows more than one instance.

mod alone;
mod calibration;
mod company;
mod conformal;
mod instance;
mod length;
mod load;
mod moment;
mod quality;
mod residual;
mod slope;
mod split;

pub use alone::AloneMemo;
pub use calibration::{Bounds, Calibration, DEFAULT_CONFIDENCE, Regime};
pub use company::Company;
pub use conformal::ConformalThreshold;
pub use instance::{InstanceEstimator, Observation, Prediction, PriceOfTokens};
pub use length::{LengthEstimate, LengthPredictor};
pub use load::InstanceLoad;
pub use moment::Moment;
pub use quality::{QualityEstimate, QualityPredictor, QualitySource};
pub use residual::Residual;

use equipoise_types::Joules;
use serde::{Deserialize, Serialize};

/// What is predicted for one request on one instance, before it is sent there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Probability that the answer is good, [0, 1].
    pub quality: f64,
    /// How far off that probability itself may be: one standard deviation.
    pub quality_sd: f64,
    /// Expected answer length, tokens.
    pub output_tokens: f64,
    /// Wait for a free slot in the engine, seconds; part of `ttft_s`.
    pub queue_s: f64,
    /// Time to first token, seconds.
    pub ttft_s: f64,
    /// Time per output token after the first, seconds.
    pub tpot_s: f64,
    /// Time to the last token, seconds.
    pub e2e_s: f64,
    /// Marginal energy: what the instance's draw and busy time grow by, idle draw excluded.
    pub energy: Joules,
    /// The idle draw of the time by which it keeps the instance's engine busy for longer: what could be saved if the
    /// instance slept instead.
    #[serde(default)]
    pub idle_energy: Joules,
    /// By how much those who are there already finish later because of it, seconds, summed over them.
    #[serde(default)]
    pub others_s: f64,
    /// US dollars; zero where the model has no price.
    pub cost_usd: f64,
    /// What the times stay below with some confidence; what an SLO is held against.
    #[serde(default)]
    pub bounds: Bounds,
}
