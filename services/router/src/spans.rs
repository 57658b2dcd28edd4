//! A request as spans, by OpenTelemetry's conventions for generative AI
//! (<https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>): one for the request, and one inside for the decision.

use equipoise_scheduler::{Explanation, Scheduler};
use equipoise_telemetry::{Attributes, Outcome, Span, SpanEvent, SpanKind};
use equipoise_types::Timestamp;

use crate::journal::{Closing, Decided, Record};
use crate::server::State;

/// Candidates of a decision that its span has, the best first; how many there were is an attribute.
const MOST_CANDIDATES: usize = 16;

/// What a decision looked at.
pub(crate) struct Considered {
    policy: String,
    at: Timestamp,
    candidates: u32,
    ruled_out: u32,
    best: Vec<Attributes>,
}

/// Copies what a span needs out of an explanation.
pub(crate) fn considered(scheduler: &Scheduler, explanation: &Explanation) -> Considered {
    let fleet = scheduler.fleet();
    let mut scored: Vec<_> = explanation.scored().collect();
    let candidates = u32::try_from(scored.len()).unwrap_or(u32::MAX);
    scored.sort_by(|(_, one), (_, other)| {
        let value = |score: &Option<f64>| score.unwrap_or(f64::NEG_INFINITY);
        value(other).total_cmp(&value(one))
    });
    let best = scored.into_iter().take(MOST_CANDIDATES).map(|(candidate, score)| {
        let estimate = candidate.estimate();
        let instance = fleet
            .instance(candidate.instance)
            .map(|instance| instance.spec.name.as_str());
        let mut attributes: Attributes = vec![
            ("equipoise.instance", instance.unwrap_or_default().into()),
            ("equipoise.chosen", (candidate.instance == explanation.chosen).into()),
            ("equipoise.quality", estimate.quality.into()),
            ("equipoise.ttft_s", estimate.ttft_s.into()),
            ("equipoise.e2e_s", estimate.e2e_s.into()),
            ("equipoise.joules", estimate.energy.0.into()),
            ("equipoise.in_flight", candidate.load.in_flight.into()),
        ];
        if let Some(model) = fleet.model(candidate.model) {
            attributes.push(("gen_ai.response.model", model.name.as_str().into()));
        }
        attributes.extend(score.map(|score| ("equipoise.score", score.into())));
        attributes
    });
    Considered {
        policy: scheduler.config().policy.clone(),
        at: explanation.at,
        candidates,
        ruled_out: u32::try_from(explanation.ruled_out.len()).unwrap_or(u32::MAX),
        best: best.collect(),
    }
}

/// The operation of an API, in the conventions' words.
fn operation(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" | "/v1/responses" => "chat",
        "/v1/completions" => "text_completion",
        "/v1/embeddings" => "embeddings",
        _ => "inference",
    }
}

/// The spans of a request that has ended at `now`.
pub(crate) fn of(state: &State, record: &Record, closing: &Closing, now: Timestamp) -> Vec<Span> {
    let opening = &record.opening;
    let (trace_id, span_id) = opening.place.context.ids();
    let trace_state = opening.place.context.trace_state();
    let operation = operation(opening.path);
    let error = record.error_code(closing.outcome);
    let request = Span {
        trace_id,
        span_id,
        parent: opening.place.caller,
        trace_state: trace_state.clone(),
        name: format!("{operation} {}", requested(record)),
        kind: SpanKind::Server,
        start_unix_ns: state.driver.unix_ns(closing.arrived_at),
        end_unix_ns: state.driver.unix_ns(now),
        attributes: attributes(record, closing, operation),
        events: Vec::new(),
        // A client that leaves or asks for what cannot be is no failure of the service.
        error: error.filter(|_| closing.outcome == Outcome::Failed || record.status(closing.outcome) >= 500),
    };
    let decision = record.decided.as_ref().and_then(|decided| {
        let considered = decided.considered.as_ref()?;
        Some(Span {
            span_id: opening.place.context.child().ids().1,
            parent: Some(span_id),
            name: "decision".to_owned(),
            kind: SpanKind::Internal,
            end_unix_ns: state.driver.unix_ns(decided.at),
            attributes: decision_attributes(decided, considered),
            events: events(state, considered),
            error: None,
            trace_state,
            ..request.clone()
        })
    });
    std::iter::once(request).chain(decision).collect()
}

/// A client may write anything, at any length.
fn requested(record: &Record) -> String {
    record.opening.model.chars().take(128).collect()
}

fn attributes(record: &Record, closing: &Closing, operation: &'static str) -> Attributes {
    let opening = &record.opening;
    let mut attributes: Attributes = vec![
        ("gen_ai.operation.name", operation.into()),
        ("gen_ai.provider.name", "equipoise".into()),
        ("gen_ai.request.model", requested(record).into()),
        ("http.request.method", "POST".into()),
        ("url.path", opening.path.into()),
        (
            "http.response.status_code",
            u32::from(record.status(closing.outcome)).into(),
        ),
        ("equipoise.request_id", opening.request_id.as_str().into()),
        ("equipoise.outcome", closing.outcome.name().into()),
    ];
    if let Some(tenant) = &opening.tenant {
        attributes.push(("equipoise.tenant", tenant.as_str().into()));
    }
    if let Some(code) = record.error_code(closing.outcome) {
        attributes.push(("error.type", code.into()));
    }
    if let Some(usage) = closing.usage {
        attributes.push(("gen_ai.usage.input_tokens", usage.prompt_tokens.into()));
        attributes.push(("gen_ai.usage.output_tokens", usage.output_tokens.into()));
    }
    if let Some(ttft_s) = record.ttft_s {
        attributes.push(("equipoise.ttft_s", ttft_s.into()));
    }
    if let Some(decided) = &record.decided {
        attributes.extend([
            ("gen_ai.response.model", decided.model.as_str().into()),
            ("equipoise.instance", decided.instance.as_str().into()),
            ("equipoise.decision", decided.decision.as_str().into()),
            ("equipoise.attempts", decided.attempts.into()),
        ]);
        let uri: Option<http::Uri> = decided.endpoint.parse().ok();
        if let Some(uri) = uri {
            attributes.extend(uri.host().map(|host| ("server.address", host.into())));
            let port = uri.port_u16().unwrap_or(80);
            attributes.push(("server.port", u32::from(port).into()));
        }
    }
    attributes
}

fn decision_attributes(decided: &Decided, considered: &Considered) -> Attributes {
    vec![
        ("equipoise.policy", considered.policy.as_str().into()),
        ("equipoise.instance", decided.instance.as_str().into()),
        ("equipoise.decision", decided.decision.as_str().into()),
        ("equipoise.candidates", considered.candidates.into()),
        ("equipoise.ruled_out", considered.ruled_out.into()),
        ("equipoise.queue_s", decided.waited_s.into()),
        ("equipoise.joules", decided.joules.into()),
    ]
}

fn events(state: &State, considered: &Considered) -> Vec<SpanEvent> {
    let unix_ns = state.driver.unix_ns(considered.at);
    let event = |attributes: &Attributes| SpanEvent {
        unix_ns,
        name: "candidate",
        attributes: attributes.clone(),
    };
    considered.best.iter().map(event).collect()
}
