//! Every metric that Equipoise exposes: name, kind, unit, labels and what it says.
//!
//! The handles register through these entries, so a metric cannot exist without one; a test holds that none is left
//! over either.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::{Metric, Registry};

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises; its exposed name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets; exposed as `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// One entry of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name as scraped (a histogram's without its suffixes).
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: &'static str,
    /// Its label names, in order.
    pub labels: &'static [&'static str],
    /// What it says, as a phrase without a full stop.
    pub help: &'static str,
}

impl Entry {
    /// Registers a metric under this entry and gives the handle back.
    pub(crate) fn register<M: Metric + Clone>(&self, registry: &mut Registry, metric: M) -> M {
        // The encoder appends `_total` to counters itself.
        let name = if self.kind == Kind::Counter {
            self.name.trim_end_matches("_total")
        } else {
            self.name
        };
        registry.register(name, self.help, metric.clone());
        metric
    }
}

/// The label of a metric that is kept per instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InstanceLabel {
    /// The instance's name.
    pub instance: String,
}

impl InstanceLabel {
    /// The label of the instance `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            instance: name.to_owned(),
        }
    }
}

macro_rules! entries {
    ($($constant:ident, $name:literal, $kind:ident, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $constant: Entry =
                Entry { name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help };
        )*
        /// The whole catalogue.
        pub const ALL: &[Entry] = &[$($constant),*];
    };
}

entries! {
    ROUTER_REQUESTS, "equipoise_router_requests_total", Counter, "requests", ["model", "outcome"],
        "Requests that ended, by the model that served them (or was asked for) and how they ended";
    ROUTER_TTFT, "equipoise_router_ttft_seconds", Histogram, "seconds", [],
        "Time from a request's arrival to its first answer token";
    ROUTER_E2E, "equipoise_router_e2e_seconds", Histogram, "seconds", [],
        "Time from a request's arrival to the end of its answer";
    ROUTER_DECISION, "equipoise_router_decision_seconds", Histogram, "seconds", [],
        "Computing time of one call of the scheduler";
    ROUTER_FORECAST, "equipoise_router_forecast_seconds", Histogram, "seconds", [],
        "Computing time of the forecast of one prompt, outside the scheduler's lock";
    ROUTER_QUEUE_LENGTH, "equipoise_router_queue_length", Gauge, "requests", [],
        "Requests that wait at the router for an instance";
    ROUTER_QUEUE_AGE, "equipoise_router_queue_age_seconds", Gauge, "seconds", [],
        "How long the one that waits longest has waited; 0 where nobody waits";
    ROUTER_QUEUE_WAIT, "equipoise_router_queue_wait_seconds", Histogram, "seconds", [],
        "How long requests had waited at the router when they were sent, of those that had to wait";
    ROUTER_BREAKER, "equipoise_router_breaker", Gauge, "state", ["instance"],
        "The circuit breaker of an instance: 0 closed, 1 half-open, 2 open";
    ROUTER_IN_FLIGHT, "equipoise_router_in_flight", Gauge, "requests", ["instance"],
        "Requests that this router has in flight on an instance";
    ROUTER_REFUSED, "equipoise_router_refused_total", Counter, "requests", ["reason"],
        "Requests refused, by reason";
    ROUTER_PII, "equipoise_router_pii_total", Counter, "requests", ["detector"],
        "Requests in which a detector of the gate for personal data found something; unread: too long to be looked through";
    ROUTER_TOKENS, "equipoise_router_tokens_total", Counter, "tokens", ["model", "direction"],
        "Tokens of prompts (input) and answers (output) that passed";
    ROUTER_RETRIES, "equipoise_router_retries_total", Counter, "requests", [],
        "Dispatches that failed before their first token and were tried on another instance";
    ROUTER_CONTROL_PLANE_CONNECTED, "equipoise_router_control_plane_connected", Gauge, "boolean", [],
        "1 while the stream from the control plane is up, 0 while the router serves on last-known-good state";
    ROUTER_CONFIG_RELOADS, "equipoise_router_config_reloads_total", Counter, "reloads", ["outcome"],
        "Times that a configuration file had changed: applied, or refused and the old settings kept";
    ROUTER_ACCESS_LOG_DROPPED, "equipoise_router_access_log_dropped_total", Counter, "lines", [],
        "Lines of the access log that were not written because its writer could not keep up";
    ROUTER_SPANS, "equipoise_router_spans_total", Counter, "spans", ["outcome"],
        "Spans of sampled traces: exported, dropped because the queue was full, or failed at the collector";
    FEEDBACK, "equipoise_feedback_total", Counter, "judgements", ["outcome"],
        "Feedback on answers that reached this router: taken, of an unknown decision, a duplicate, or invalid";
    FEEDBACK_ANSWERS, "equipoise_feedback_answers_total", Counter, "answers", ["model"],
        "Answers of a model that got feedback";
    FEEDBACK_PREDICTED, "equipoise_feedback_predicted_quality_total", Counter, "answers", ["model"],
        "Quality that was predicted of them when they were sent, summed; over the answers it is the mean";
    FEEDBACK_REALISED, "equipoise_feedback_realised_quality_total", Counter, "answers", ["model"],
        "Quality that they turned out to have, summed; the predicted mean less this one is the calibration error";
    CUMULATIVE_REGRET, "equipoise_cumulative_regret", Gauge, "score", [],
        "What the best choice would have been worth more, summed over answers with feedback; see docs/feedback.md";
    FEEDBACK_SHIFT, "equipoise_feedback_shift", Gauge, "log-odds", ["model"],
        "What feedback adds to the log-odds of a model's predicted quality";
    ROUTER_GATED, "equipoise_router_gated_total", Counter, "answers", ["outcome"],
        "First answers of a cascade that were held back: passed, escalated to a better model, kept for want of one, unmeasured";
    ROUTER_EXPLORED, "equipoise_router_explored_total", Counter, "requests", [],
        "Requests that were sent elsewhere than the policy had chosen, to learn about a model";
    ROUTER_HEDGES, "equipoise_router_hedges_total", Counter, "requests", [],
        "Streams that were late and were sent to a second instance as well";
    ROUTER_HEDGES_WON, "equipoise_router_hedges_won_total", Counter, "requests", [],
        "Of those, the ones that the second instance answered";
    ROUTE_OPEN_PICKS, "equipoise_route_open_picks", Gauge, "picks", [],
        "Picks of the gRPC route service that have not been reported to have ended";
    ROUTE_EXPIRED_PICKS, "equipoise_route_expired_picks_total", Counter, "picks", [],
        "Picks that were released because nobody reported on them in time";
    EXT_PROC_STREAMS, "equipoise_ext_proc_streams", Gauge, "streams", [],
        "Open streams of gateways, one a request of theirs";
    EXT_PROC_REQUESTS, "equipoise_ext_proc_requests_total", Counter, "requests", ["outcome"],
        "Requests that gateways asked about: an instance picked, picked for a request without a body, refused, or malformed";
    CONTROL_INSTANCES, "equipoise_control_instances", Gauge, "instances", [],
        "Instances in the registry";
    CONTROL_HEALTHY_INSTANCES, "equipoise_control_healthy_instances", Gauge, "instances", [],
        "Instances whose latest sample is healthy";
    CONTROL_LEASES, "equipoise_control_leases", Gauge, "leases", [],
        "Node leases that this control plane renews";
    CONTROL_ROUTERS, "equipoise_control_routers", Gauge, "routers", [],
        "Routers that report a ledger";
    CONTROL_WATCHERS, "equipoise_control_watchers", Gauge, "streams", [],
        "Open watch streams of routers";
    CONTROL_WATCH_OVERFLOWS, "equipoise_control_watch_overflows_total", Counter, "streams", [],
        "Times a router fell behind and was given a fresh snapshot";
    CONTROL_TELEMETRY_BATCHES, "equipoise_control_telemetry_batches_total", Counter, "batches", [],
        "Telemetry batches taken from agents";
    CONTROL_STORE_ERRORS, "equipoise_control_store_errors_total", Counter, "errors", [],
        "Operations on the cluster store that failed";
    CONTROL_ENERGY, "equipoise_control_energy_millijoules_total", Counter, "millijoules", ["instance", "cause"],
        "Measured energy by where it went; the causes of an instance sum to what was measured";
    CONTROL_REJECTED_ENERGY, "equipoise_control_rejected_energy_samples_total", Counter, "samples", [],
        "Energy samples that were not accounted: impossible, sent twice, or of an instance that the node does not have";
    CONTROL_DROPPED_ACTIVITY, "equipoise_control_dropped_activity_total", Counter, "slices", [],
        "Activity slices given up because no energy interval came for them in time or too many waited";
    AGENT_CONNECTED, "equipoise_agent_control_plane_connected", Gauge, "boolean", [],
        "1 while the telemetry stream to the control plane is up";
    AGENT_BATCHES, "equipoise_agent_batches_total", Counter, "batches", [],
        "Telemetry batches that the control plane acknowledged";
    AGENT_REGISTRATIONS, "equipoise_agent_registrations_total", Counter, "registrations", [],
        "Times the node registered; more than one means that a lease or the control plane was lost";
    AGENT_ENGINE_HEALTHY, "equipoise_agent_engine_healthy", Gauge, "boolean", ["instance"],
        "1 while the engine answers its probe healthy";
    AGENT_PROBE, "equipoise_agent_probe_seconds", Histogram, "seconds", [],
        "Time one probe of an engine's health and metrics took";
    AGENT_GPU_POWER, "equipoise_agent_gpu_power_milliwatts", Gauge, "milliwatts", ["gpu"],
        "Board draw of a GPU";
    AGENT_ENERGY, "equipoise_agent_energy_millijoules_total", Counter, "millijoules", ["instance"],
        "Energy measured for an instance's GPUs";
    AGENT_ENERGY_FLAWS, "equipoise_agent_energy_flaws_total", Counter, "intervals", [],
        "Energy intervals with a flaw in their measurement";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AgentMetrics, ControlMetrics, Direction, EnergyCause, ExtProcOutcome, FeedbackOutcome, GateOutcome,
        GatewayMetrics, ObservingMetrics, Outcome, ReloadOutcome, RouterMetrics, SpanOutcome, exposition,
    };

    #[test]
    fn every_entry_is_registered_and_every_registered_metric_is_an_entry() {
        let mut registry = Registry::default();
        // A family without a member is not exposed: give each one.
        let router = RouterMetrics::new(&mut registry);
        router.count_request("m", Outcome::Answered);
        router.count_tokens("m", Direction::Input, 1);
        router.count_refusal("queue_full");
        router.in_flight("i").inc();
        router.set_breaker("i", 0);
        router.count_gate(GateOutcome::Passed);
        router.count_pii("email");
        router.count_feedback(FeedbackOutcome::Taken);
        router.observe_feedback("m", 0.5, 1.0, 0.0);
        router.set_feedback_shift("m", 0.0);
        GatewayMetrics::new(&mut registry).count_ext_proc(ExtProcOutcome::Picked);
        let observing = ObservingMetrics::new(&mut registry);
        observing.count_reload(ReloadOutcome::Applied);
        observing.count_spans(SpanOutcome::Exported, 1);
        ControlMetrics::new(&mut registry).add_energy("i", EnergyCause::Idle, 1);
        let agent = AgentMetrics::new(&mut registry);
        agent.set_engine_healthy("i", true);
        agent.set_gpu_power("g", 1);
        agent.add_energy("i", 1);
        let text = exposition(&registry).expect("formats");
        let mut registered: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let mut known: Vec<_> = ALL
            .iter()
            .map(|entry| match entry.kind {
                Kind::Counter => entry.name.trim_end_matches("_total"),
                Kind::Gauge | Kind::Histogram => entry.name,
            })
            .collect();
        registered.sort_unstable();
        known.sort_unstable();
        assert_eq!(registered, known);
    }

    #[test]
    fn names_follow_the_convention() {
        for entry in ALL {
            assert_eq!(
                entry.kind == Kind::Counter,
                entry.name.ends_with("_total"),
                "{}",
                entry.name
            );
            // How long something took is a histogram; a gauge may say how long something has lasted.
            assert_eq!(
                entry.kind == Kind::Histogram || (entry.kind == Kind::Gauge && entry.unit == "seconds"),
                entry.name.ends_with("_seconds"),
                "{}",
                entry.name
            );
            assert!(
                !entry.help.ends_with('.'),
                "the encoder adds the full stop: {}",
                entry.name
            );
        }
    }
}
