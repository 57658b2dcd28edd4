//! The router's metrics.

use crate::catalogue::{self, InstanceLabel};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The client got its whole answer.
    Answered,
    /// The router refused it.
    Refused,
    /// It was sent and failed, retries included.
    Failed,
    /// The client went away.
    Cancelled,
}

impl Outcome {
    /// Its name in metrics, logs and spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

/// What became of a piece of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedbackOutcome {
    /// It was learned from.
    Taken,
    /// Its decision is not known.
    Unknown,
    /// Its decision has feedback already.
    Duplicate,
    /// It says nothing, or something impossible.
    Invalid,
}

impl EncodeLabelValue for FeedbackOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Taken => "taken",
            Self::Unknown => "unknown",
            Self::Duplicate => "duplicate",
            Self::Invalid => "invalid",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

/// What became of a first answer with a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateOutcome {
    /// It was sure enough.
    Passed,
    /// It was not, and a better model answered.
    Escalated,
    /// It was not, but nobody better could take over.
    Kept,
    /// It said nothing of how sure it is.
    Unmeasured,
}

impl EncodeLabelValue for GateOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Passed => "passed",
            Self::Escalated => "escalated",
            Self::Kept => "kept",
            Self::Unmeasured => "unmeasured",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabel {
    outcome: GateOutcome,
}

/// Which way tokens went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Prompt tokens.
    Input,
    /// Answer tokens.
    Output,
}

impl EncodeLabelValue for Direction {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Input => "input",
            Self::Output => "output",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DetectorLabel {
    detector: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedbackLabel {
    outcome: FeedbackOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

/// A counter of fractions.
type Sum = Counter<f64, AtomicU64>;

/// Handles to the router's metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct RouterMetrics {
    requests: Family<RequestLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    refused: Family<ReasonLabel, Counter>,
    pii: Family<DetectorLabel, Counter>,
    in_flight: Family<InstanceLabel, Gauge>,
    breaker: Family<InstanceLabel, Gauge>,
    queue_wait: Histogram,
    ttft: Histogram,
    e2e: Histogram,
    decision: Histogram,
    forecast: Histogram,
    gated: Family<GateLabel, Counter>,
    feedback: Family<FeedbackLabel, Counter>,
    feedback_answers: Family<ModelLabel, Counter>,
    feedback_predicted: Family<ModelLabel, Sum>,
    feedback_realised: Family<ModelLabel, Sum>,
    cumulative_regret: Gauge<f64, AtomicU64>,
    feedback_shift: Family<ModelLabel, Gauge<f64, AtomicU64>>,
    /// Requests that explored.
    pub explored: Counter,
    /// Streams that were sent to a second instance as well.
    pub hedges: Counter,
    /// Those of them that it answered.
    pub hedges_won: Counter,
    /// Requests that wait at the router.
    pub queue_length: Gauge,
    /// How long the oldest of them has waited, seconds.
    pub queue_age: Gauge<f64, AtomicU64>,
    /// Dispatches that failed and were tried elsewhere.
    pub retries: Counter,
    /// 1 while the stream from the control plane is up.
    pub control_plane_connected: Gauge,
}

impl RouterMetrics {
    /// Registers the router's metrics.
    pub fn new(registry: &mut Registry) -> Self {
        // Five milliseconds to about three minutes; ten microseconds to about 0.3 s.
        let request_seconds = || Histogram::new(exponential_buckets(0.005, 2.0, 16));
        let computing_seconds = || Histogram::new(exponential_buckets(1e-5, 2.0, 16));
        Self {
            requests: catalogue::ROUTER_REQUESTS.register(registry, Family::default()),
            tokens: catalogue::ROUTER_TOKENS.register(registry, Family::default()),
            refused: catalogue::ROUTER_REFUSED.register(registry, Family::default()),
            pii: catalogue::ROUTER_PII.register(registry, Family::default()),
            in_flight: catalogue::ROUTER_IN_FLIGHT.register(registry, Family::default()),
            breaker: catalogue::ROUTER_BREAKER.register(registry, Family::default()),
            queue_wait: catalogue::ROUTER_QUEUE_WAIT.register(registry, request_seconds()),
            ttft: catalogue::ROUTER_TTFT.register(registry, request_seconds()),
            e2e: catalogue::ROUTER_E2E.register(registry, request_seconds()),
            decision: catalogue::ROUTER_DECISION.register(registry, computing_seconds()),
            forecast: catalogue::ROUTER_FORECAST.register(registry, computing_seconds()),
            gated: catalogue::ROUTER_GATED.register(registry, Family::default()),
            feedback: catalogue::FEEDBACK.register(registry, Family::default()),
            feedback_answers: catalogue::FEEDBACK_ANSWERS.register(registry, Family::default()),
            feedback_predicted: catalogue::FEEDBACK_PREDICTED.register(registry, Family::default()),
            feedback_realised: catalogue::FEEDBACK_REALISED.register(registry, Family::default()),
            cumulative_regret: catalogue::CUMULATIVE_REGRET.register(registry, Gauge::default()),
            feedback_shift: catalogue::FEEDBACK_SHIFT.register(registry, Family::default()),
            explored: catalogue::ROUTER_EXPLORED.register(registry, Counter::default()),
            hedges: catalogue::ROUTER_HEDGES.register(registry, Counter::default()),
            hedges_won: catalogue::ROUTER_HEDGES_WON.register(registry, Counter::default()),
            queue_age: catalogue::ROUTER_QUEUE_AGE.register(registry, Gauge::default()),
            queue_length: catalogue::ROUTER_QUEUE_LENGTH.register(registry, Gauge::default()),
            retries: catalogue::ROUTER_RETRIES.register(registry, Counter::default()),
            control_plane_connected: catalogue::ROUTER_CONTROL_PLANE_CONNECTED.register(registry, Gauge::default()),
        }
    }

    /// Counts a request that ended.
    pub fn count_request(&self, model: &str, outcome: Outcome) {
        self.requests
            .get_or_create(&RequestLabels {
                model: model.to_owned(),
                outcome,
            })
            .inc();
    }

    /// Counts tokens that passed.
    pub fn count_tokens(&self, model: &str, direction: Direction, tokens: u64) {
        self.tokens
            .get_or_create(&TokenLabels {
                model: model.to_owned(),
                direction,
            })
            .inc_by(tokens);
    }

    /// Counts a refusal; `reason` comes from a fixed set, never from a client.
    pub fn count_refusal(&self, reason: &str) {
        self.refused
            .get_or_create(&ReasonLabel {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// Takes in how long a request had waited at the router when it was sent.
    pub fn observe_queue_wait(&self, seconds: f64) {
        self.queue_wait.observe(seconds);
    }

    /// Says where the circuit breaker of an instance stands: 0 closed, 1 half-open, 2 open.
    pub fn set_breaker(&self, instance: &str, state: i64) {
        self.breaker
            .get_or_create_owned(&InstanceLabel::new(instance))
            .set(state);
    }

    /// Counts a request in which a detector found personal data; detectors are named by the program and its operator.
    pub fn count_pii(&self, detector: &str) {
        let detector = detector.to_owned();
        self.pii.get_or_create(&DetectorLabel { detector }).inc();
    }

    /// Takes in a time to first token.
    pub fn observe_ttft(&self, elapsed: Duration) {
        self.ttft.observe(elapsed.as_secs_f64());
    }

    /// Takes in a request's whole time.
    pub fn observe_e2e(&self, elapsed: Duration) {
        self.e2e.observe(elapsed.as_secs_f64());
    }

    /// Takes in the computing time of one call of the scheduler.
    pub fn observe_decision(&self, elapsed: Duration) {
        self.decision.observe(elapsed.as_secs_f64());
    }

    /// Takes in the computing time of one prompt's forecast.
    pub fn observe_forecast(&self, elapsed: Duration) {
        self.forecast.observe(elapsed.as_secs_f64());
    }

    /// Counts a first answer that had a gate.
    pub fn count_gate(&self, outcome: GateOutcome) {
        self.gated.get_or_create(&GateLabel { outcome }).inc();
    }

    /// Counts a piece of feedback.
    pub fn count_feedback(&self, outcome: FeedbackOutcome) {
        self.feedback.get_or_create(&FeedbackLabel { outcome }).inc();
    }

    /// Takes in feedback on an answer of `model`: its quality as predicted and as it turned out, both in [0, 1], and the
    /// regret of all feedback so far.
    pub fn observe_feedback(&self, model: &str, predicted: f64, score: f64, regret: f64) {
        let label = ModelLabel {
            model: model.to_owned(),
        };
        self.feedback_answers.get_or_create(&label).inc();
        self.feedback_predicted.get_or_create(&label).inc_by(predicted);
        self.feedback_realised.get_or_create(&label).inc_by(score);
        self.cumulative_regret.set(regret);
    }

    /// What feedback adds to the log-odds of a model's quality.
    pub fn set_feedback_shift(&self, model: &str, log_odds: f64) {
        let label = ModelLabel {
            model: model.to_owned(),
        };
        self.feedback_shift.get_or_create(&label).set(log_odds);
    }

    /// The in-flight gauge of an instance; keep it where the instance is kept to save the look-up.
    #[must_use]
    pub fn in_flight(&self, instance: &str) -> Gauge {
        self.in_flight.get_or_create_owned(&InstanceLabel::new(instance))
    }

    /// Stops exposing an instance that is gone.
    pub fn forget_instance(&self, instance: &str) {
        self.in_flight.remove(&InstanceLabel::new(instance));
        self.breaker.remove(&InstanceLabel::new(instance));
    }

    /// Says whether the stream from the control plane is up.
    pub fn set_control_plane_connected(&self, connected: bool) {
        self.control_plane_connected.set(i64::from(connected));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_has_the_catalogued_names_and_labels() {
        let mut registry = Registry::default();
        let metrics = RouterMetrics::new(&mut registry);
        metrics.count_request("qwen", Outcome::Answered);
        metrics.count_tokens("qwen", Direction::Output, 7);
        metrics.count_refusal("queue_full");
        metrics.in_flight("pool/a").set(3);
        metrics.in_flight("pool/b").set(1);
        metrics.forget_instance("pool/b");
        metrics.observe_ttft(Duration::from_millis(30));
        metrics.count_feedback(FeedbackOutcome::Duplicate);
        metrics.observe_feedback("qwen", 0.75, 1.0, 0.25);
        let text = crate::exposition(&registry).expect("formats");
        for line in [
            r#"equipoise_router_requests_total{model="qwen",outcome="answered"} 1"#,
            r#"equipoise_router_tokens_total{model="qwen",direction="output"} 7"#,
            r#"equipoise_router_refused_total{reason="queue_full"} 1"#,
            r#"equipoise_router_in_flight{instance="pool/a"} 3"#,
            r#"equipoise_feedback_total{outcome="duplicate"} 1"#,
            r#"equipoise_feedback_predicted_quality_total{model="qwen"} 0.75"#,
            r#"equipoise_feedback_realised_quality_total{model="qwen"} 1.0"#,
            "equipoise_cumulative_regret 0.25",
            r#"equipoise_router_ttft_seconds_bucket{le="0.04"} 1"#,
        ] {
            assert!(
                text.lines().any(|candidate| candidate == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("pool/b"));
    }
}
