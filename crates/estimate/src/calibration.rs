//! How far a prediction may be off: quantiles of observed over predicted time, learned online.
//!
//! Conformal prediction beyond exchangeability (Barber et al., 2023): the quantile of past errors, weighted by age, bounds
//! the next one. What drifts faster than the weights fade is caught by quantile tracking (Gibbs and Candès, 2021;
//! Angelopoulos et al., 2023): every miss of a stated bound moves all later ones up a step, every hit down a little, so that in the
//! long run the share of misses is the one asked for, whatever the errors are like. Errors are logarithms of ratios,
//! kept apart by what the instance was busy with, because an idle engine is predicted to a few percent and a full one
//! is not. An instance with few observations borrows those of its tier; before there are any, and for requests that have not
//! answered yet, a heavy-tailed prior stands in.

use equipoise_types::{Joules, Timestamp, Watts};
use serde::{Deserialize, Serialize};

use crate::{Estimate, Observation, Prediction};

/// Errors are counted in this many bins...
const BINS: usize = 104;
/// ...of this width, natural logarithm: a bound is at most 5 % above the quantile...
const WIDTH: f64 = 0.05;
/// ...from here on; what is beyond the ends counts in the last ones.
const LEAST: f64 = -1.6;
/// Observations remembered, about: the weights are halved when there are twice as many.
const MEMORY: f64 = 200.0;
/// A tier's errors count as so many of the instance's own, at most.
const TIER_WEIGHT: f64 = 25.0;
/// The prior counts as so many observations at first, and as one, that which is still to come, at last.
const PRIOR_WEIGHT: f64 = 20.0;
/// Without observations, what was learned fades: an instance that nobody dares to ask must not stay condemned.
const FADE_S: f64 = 300.0;
/// A miss moves the bound by so many mean deviations of the errors...
const STEP: f64 = 0.3;
/// ...which are held to be within these.
const STEP_BOUNDS: (f64, f64) = (0.02, 0.5);
const SHIFT_BOUNDS: (f64, f64) = (-0.3, 1.5);

/// What a request is promised unless it says otherwise.
pub const DEFAULT_CONFIDENCE: f64 = 0.95;

/// What a request exceeds with the probability 1 − `confidence` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// In (0, 1).
    pub confidence: f64,
    /// Of the time to first token, seconds from dispatch.
    pub ttft_s: f64,
    /// Of the time to the last token, seconds from dispatch.
    pub e2e_s: f64,
    /// Of the marginal energy; zero in what was recorded before it was bounded.
    #[serde(default)]
    pub energy: Joules,
}

/// What an instance is busy with, as far as the errors of predictions depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Regime {
    /// Nothing.
    #[default]
    Idle,
    /// Answers.
    Busy,
    /// Prompts too.
    Prefilling,
    /// More than it has room for, or later than it was predicted to be.
    Strained,
}

const REGIMES: usize = 4;

/// One running distribution of log(observed / predicted). Constant memory; reads do not change it.
#[derive(Clone, Debug)]
struct Errors {
    bins: [f32; BINS],
    total: f64,
    deviation: f64,
    shift: f64,
    last: Timestamp,
    /// Sent and not answered yet.
    open: u32,
}

impl Default for Errors {
    fn default() -> Self {
        Self {
            bins: [0.0; BINS],
            total: 0.0,
            deviation: 0.0,
            shift: 0.0,
            last: Timestamp::ZERO,
            open: 0,
        }
    }
}

impl Errors {
    fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Takes a time in that was said to be `said_s`, and below a bound with some confidence, if that is not zero.
    fn learn(&mut self, now: Timestamp, observed_s: f64, said_s: f64, (bound_s, confidence): (f64, f64)) {
        self.close();
        let ratio = observed_s / said_s;
        if !(ratio.is_finite() && ratio > 0.0) {
            return;
        }
        let error = ratio.ln();
        let bin = ((error - LEAST) / WIDTH).clamp(0.0, BINS as f64 - 1.0) as usize;
        self.bins[bin] += 1.0;
        self.total += 1.0;
        if self.total > 2.0 * MEMORY {
            self.bins.iter_mut().for_each(|weight| *weight *= 0.5);
            self.total *= 0.5;
        }
        self.deviation += (error.abs() - self.deviation) / self.total.min(50.0);
        if confidence > 0.0 && confidence < 1.0 {
            let missed = observed_s > bound_s;
            let step = STEP * self.deviation.clamp(STEP_BOUNDS.0, STEP_BOUNDS.1);
            let surprise = f64::from(u8::from(missed)) - (1.0 - confidence);
            self.shift = (self.shift + step * surprise).clamp(SHIFT_BOUNDS.0, SHIFT_BOUNDS.1);
        }
        self.last = now;
    }

    /// What is left of its weight.
    fn fade(&self, now: Timestamp) -> f64 {
        (-now.secs_since(self.last) / FADE_S).exp()
    }
}

/// Upper tail of the prior beyond a log error: `½ / (1 + x/s)³`, symmetric. With `s` of 0.3 its 95 % quantile is a
/// factor of 1.41 and its 99.9 % quantile one of 8.
const fn prior_tail(error: f64, scale: f64) -> f64 {
    let wide = 1.0 + error.abs() / scale;
    let tail = 0.5 / (wide * wide * wide);
    if error < 0.0 { 1.0 - tail } else { tail }
}

/// A prior, with its tail beyond the lower edge of every bin: every decision walks through them.
#[derive(Debug)]
struct Prior {
    scale: f64,
    tails: [f64; BINS],
}

impl Prior {
    const fn new(scale: f64) -> Self {
        let mut tails = [0.0; BINS];
        let mut bin = 0;
        while bin < BINS {
            tails[bin] = prior_tail(LEAST + WIDTH * bin as f64, scale);
            bin += 1;
        }
        Self { scale, tails }
    }
}

/// What log(observed / predicted) stays below with `confidence`.
fn quantile(now: Timestamp, own: &Errors, tier: &Errors, belief: &Prior, confidence: f64) -> f64 {
    let own_fade = own.fade(now);
    let own_total = own.total * own_fade;
    let tier_total = tier.total * tier.fade(now);
    let prior = (PRIOR_WEIGHT * PRIOR_WEIGHT / (PRIOR_WEIGHT + own_total + tier_total)).max(1.0) + f64::from(own.open);
    let tier_weight = tier_total.min(TIER_WEIGHT);
    // Of a tier's requests, too, the quick ones answer first.
    let tier_open = f64::from(tier.open);
    let tier_seen = tier.total / (tier.total + tier_open).max(f64::MIN_POSITIVE);
    let prior = prior + tier_weight * (1.0 - tier_seen);
    let tier_weight = tier_weight * tier_seen;
    let tier_scale = if tier.total > 0.0 {
        tier_weight / tier.total
    } else {
        0.0
    };
    let allowed = (1.0 - confidence) * (own_total + tier_weight + prior);
    let mut above = 0.0;
    let mut edge = LEAST;
    for bin in (0..BINS).rev() {
        above += f64::from(own.bins[bin]) * own_fade + f64::from(tier.bins[bin]) * tier_scale;
        if above + prior * belief.tails[bin] > allowed {
            edge = LEAST + WIDTH * bin as f64 + WIDTH;
            break;
        }
    }
    // Beyond the last bin there is only the prior.
    let top = LEAST + WIDTH * BINS as f64;
    if edge >= top {
        let odds = (0.5 * prior / allowed.max(f64::MIN_POSITIVE)).cbrt() - 1.0;
        edge = top.max(belief.scale * odds).min(20.0);
    }
    edge
}

/// What misses have moved the bounds by.
fn shift(now: Timestamp, own: &Errors, tier: &Errors) -> f64 {
    let of = |errors: &Errors| errors.shift * errors.fade(now);
    if own.total > 0.0 { of(own) } else { of(tier) }
}

/// The time to the last token of a prediction, were its answer so long.
fn e2e_seconds(estimate: &Estimate, output_tokens: f64) -> f64 {
    estimate.ttft_s + (output_tokens - 1.0).max(0.0) * estimate.tpot_s
}

/// How far predictions of one instance, or of all instances of a tier, were off. Constant memory.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    ttft: [Errors; REGIMES],
    e2e: [Errors; REGIMES],
    /// Of draw above idle.
    draw: Errors,
}

/// Scale of the prior of errors of the time to first token: physics of an idle engine is good to a third or so.
fn ttft_prior(regime: Regime) -> &'static Prior {
    static PRIORS: [Prior; REGIMES] = [Prior::new(0.25), Prior::new(0.4), Prior::new(0.5), Prior::new(0.7)];
    &PRIORS[regime as usize]
}

/// Scale of the prior of errors of the end-to-end time once the answer's length is known: the batch that a request joins
/// is not the one that it leaves.
static E2E_PRIOR: Prior = Prior::new(0.7);
/// Of draw above idle, where nothing was metered yet: that of a busy engine's model of time.
static DRAW_PRIOR: Prior = Prior::new(0.4);

impl Calibration {
    /// Bounds of what was predicted, from an instance's own errors and its tier's. Never negative, never below a bound of
    /// less confidence.
    ///
    /// How long an answer will be and how fast it will come are told apart: lengths differ tenfold, are the same everywhere,
    /// and are known for a model long before an instance's speed is; speed is learned from short answers as well as from
    /// long ones. Their logarithms add up, each its own median, and their deviations from that as independent ones do.
    #[must_use]
    pub fn bounds(&self, tier: &Self, now: Timestamp, prediction: &Prediction, confidence: f64) -> Bounds {
        let confidence = if confidence > 0.0 && confidence < 1.0 {
            confidence
        } else {
            DEFAULT_CONFIDENCE
        };
        let Prediction {
            estimate,
            length,
            regime,
            ..
        } = prediction;
        let at = *regime as usize;
        let (own, others) = (&self.ttft[at], &tier.ttft[at]);
        let edge = quantile(now, own, others, ttft_prior(*regime), confidence);
        let ttft_s = estimate.ttft_s * (edge + shift(now, own, others)).exp();
        let (own, others) = (&self.e2e[at], &tier.e2e[at]);
        let speed = |confidence| quantile(now, own, others, &E2E_PRIOR, confidence);
        let (middle, edge) = (speed(0.5), speed(confidence));
        let (middle_s, long_s) = if length.p50 > 0.0 {
            let seconds = |share| e2e_seconds(estimate, length.quantile(share));
            (seconds(0.5), seconds(confidence))
        } else {
            (estimate.e2e_s, estimate.e2e_s)
        };
        // A ratio of nothing to nothing has no spread.
        let by_length = (long_s / middle_s.max(f64::MIN_POSITIVE)).max(f64::MIN_POSITIVE).ln();
        let beyond = (edge - middle).hypot(by_length).copysign(confidence - 0.5);
        let e2e_s = middle_s * (middle + beyond + shift(now, own, others)).exp();
        Bounds {
            confidence,
            ttft_s,
            e2e_s: e2e_s.max(ttft_s),
            energy: self.energy_bound(tier, now, prediction, confidence),
        }
    }

    /// Joules are draw times time, and all of them are taken to grow with the answer: of a long prompt's, which do not, the
    /// bound is wider than it need be. Length and draw are told apart as length and speed are.
    fn energy_bound(&self, tier: &Self, now: Timestamp, prediction: &Prediction, confidence: f64) -> Joules {
        let (own, others) = (&self.draw, &tier.draw);
        let Prediction { estimate, length, .. } = prediction;
        let (middle, by_length) = if length.p50 > 0.0 {
            let (middle, long) = (length.quantile(0.5), length.quantile(confidence));
            (middle / estimate.output_tokens.max(1.0), (long / middle).ln())
        } else {
            (1.0, 0.0)
        };
        let draw = |confidence| quantile(now, own, others, &DRAW_PRIOR, confidence);
        let (median, edge) = (draw(0.5), draw(confidence));
        let beyond = (edge - median).hypot(by_length).copysign(confidence - 0.5);
        Joules(estimate.energy.0 * middle * (median + beyond + shift(now, own, others)).exp())
    }

    /// Learns from a sample of what the instance drew above idle while `said` was predicted.
    pub fn observe_draw(&mut self, now: Timestamp, observed: Watts, said: Watts) {
        let alone = Self::default();
        let edge = quantile(now, &self.draw, &alone.draw, &DRAW_PRIOR, DEFAULT_CONFIDENCE);
        let bound = said.0 * (edge + shift(now, &self.draw, &alone.draw)).exp();
        self.draw.learn(now, observed.0, said.0, (bound, DEFAULT_CONFIDENCE));
    }

    /// A request was sent. Those that answer first are the quick ones: until the others have, the prior stands for them.
    pub fn sent(&mut self, prediction: &Prediction) {
        self.ttft[prediction.regime as usize].open += 1;
        self.e2e[prediction.regime as usize].open += 1;
    }

    /// A request that was sent will not answer any more; `first_token`: it had begun to.
    pub fn withdrawn(&mut self, prediction: &Prediction, first_token: bool) {
        if !first_token {
            self.ttft[prediction.regime as usize].close();
        }
        self.e2e[prediction.regime as usize].close();
    }

    /// Learns from a first token that came `ttft_s` after dispatch.
    pub fn observe_first_token(&mut self, now: Timestamp, prediction: &Prediction, ttft_s: f64) {
        let Estimate {
            ttft_s: said_s, bounds, ..
        } = prediction.estimate;
        self.ttft[prediction.regime as usize].learn(now, ttft_s, said_s, (bounds.ttft_s, bounds.confidence));
    }

    /// Learns from an answer that has ended.
    pub fn observe_answer(&mut self, now: Timestamp, prediction: &Prediction, observation: &Observation) {
        if observation.ttft_s.is_none() {
            self.ttft[prediction.regime as usize].close();
        }
        let Estimate { e2e_s, bounds, .. } = prediction.estimate;
        let said_s = observation
            .output_tokens
            .map_or(e2e_s, |tokens| e2e_seconds(&prediction.estimate, f64::from(tokens)));
        let bound = (bounds.e2e_s, bounds.confidence);
        self.e2e[prediction.regime as usize].learn(now, observation.e2e_s, said_s, bound);
    }
}

#[cfg(test)]
mod tests;
