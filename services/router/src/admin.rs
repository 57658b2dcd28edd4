//! What operators see, on a listener of its own: health, metrics, and what the router knows. Nothing here needs a key, so it
//! listens on the loopback interface unless it is told otherwise.

use equipoise_openai::ErrorResponse;
use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::relay::{ClientResponse, content, error};
use crate::routes::{READ, not_allowed};
use crate::server::{self, DECISIONS, State};

/// Answers one request of an operator.
pub(crate) fn respond(state: &State, request: &http::Request<Incoming>) -> ClientResponse {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed(request.method(), path, READ);
    }
    match path {
        "/metrics" => server::metrics(state),
        "/health" | "/health/ready" => server::health(state),
        "/health/live" => content("application/json", "{\"status\":\"ok\"}"),
        "/debug" => content("application/json", json!({"pages": PAGES}).to_string()),
        "/debug/state" => content("application/json", known(state).to_string()),
        _ => match path.strip_prefix(DECISIONS) {
            Some(name) => server::decision(state, name),
            None => error(&ErrorResponse::not_found(path)),
        },
    }
}

const PAGES: [&str; 6] = [
    "/metrics",
    "/health",
    "/health/live",
    "/health/ready",
    "/debug/state",
    "/v1/decisions/{id}",
];

/// What the router knows: no prompt, no key, no tenant's name.
fn known(state: &State) -> Value {
    let now = state.driver.now();
    state.driver.with_scheduler(|scheduler| {
        let fleet = scheduler.fleet();
        let instances: Vec<Value> = fleet
            .iter()
            .filter(|instance| instance.present)
            .map(|instance| {
                let load = fleet.ledger().load(now, instance.id);
                json!({
                    "instance": instance.spec.name,
                    "model": instance.spec.model.name,
                    "endpoint": instance.spec.endpoint,
                    "labels": instance.spec.labels,
                    "available": instance.is_available(now),
                    "draining": instance.draining,
                    "weight": instance.weight,
                    "in_flight": load.in_flight,
                })
            })
            .collect();
        json!({
            "router": state.name,
            "version": env!("CARGO_PKG_VERSION"),
            "policy": scheduler.config().policy,
            "connected": state.is_connected(),
            "uptime_s": now.as_secs_f64().round(),
            "queued": scheduler.queued(),
            "in_flight": scheduler.in_flight(),
            "keys": state.access().asks_for_keys(),
            "pii_gate": state.pii.is_some(),
            "instances": instances,
        })
    })
}
