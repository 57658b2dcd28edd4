//! What is where: paths to what answers them, and an OpenAI error for everything else.

use std::sync::Arc;

use equipoise_openai::{Endpoint, ErrorResponse};
use http::{HeaderValue, Method, header};
use hyper::body::Incoming;

use crate::access::Caller;
use crate::feedback::{self, FEEDBACK};
use crate::journal::REQUEST_ID;
use crate::relay::{ClientResponse, content, error};
use crate::responses::{self, RESPONSES};
use crate::server::{self, DECISIONS, MODELS, State};
use crate::{head, proxy};

/// The methods of what is read only.
pub(crate) const READ: &str = "GET, HEAD";

/// Answers one request of a client.
pub(crate) async fn respond(state: Arc<State>, mut request: http::Request<Incoming>) -> ClientResponse {
    let request_id = state.journal.name(request.headers_mut(), &state.process);
    let mut response = answer(state, request).await;
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

async fn answer(state: Arc<State>, request: http::Request<Incoming>) -> ClientResponse {
    if let Err(problem) = head::check(request.headers()) {
        return refuse(&state, &problem, "invalid_head");
    }
    let path = request.uri().path();
    let Some(allowed) = allowed(&state, path) else {
        return error(&ErrorResponse::not_found(&shortened(path)));
    };
    let method = request.method();
    if !allowed.split(", ").any(|name| name == method.as_str()) {
        return not_allowed(method, path, allowed);
    }
    match path {
        "/health" | "/ping" => return server::health(&state),
        "/metrics" => return server::metrics(&state),
        _ => {}
    }
    let caller = match state.access().caller(request.headers()) {
        Ok(caller) => caller,
        Err(problem) => return refuse(&state, &problem, "unauthorized"),
    };
    let driver = Arc::clone(&state);
    let mut response = answer_to(state, &caller, request).await;
    caller.describe(driver.driver.now(), response.headers_mut());
    response
}

/// Answers who is known.
async fn answer_to(state: Arc<State>, caller: &Caller, request: http::Request<Incoming>) -> ClientResponse {
    let path = request.uri().path();
    if let Some(endpoint) = Endpoint::from_path(path) {
        return proxy::complete(state, caller, endpoint, request).await;
    }
    if path.starts_with(RESPONSES) {
        return Box::pin(responses::pass(&state, caller, request)).await;
    }
    match path {
        FEEDBACK => Box::pin(feedback::post(&state, request.into_body())).await,
        "/v1/models" => server::models(&state, caller),
        "/version" => version(),
        _ => match (path.strip_prefix(DECISIONS), path.strip_prefix(MODELS)) {
            (Some(name), _) => server::decision(&state, name),
            (None, Some(id)) => server::model(&state, caller, id),
            (None, None) => error(&ErrorResponse::not_found(&shortened(path))),
        },
    }
}

/// Counts a refusal that no decision came to.
fn refuse(state: &State, problem: &ErrorResponse, reason: &'static str) -> ClientResponse {
    state.metrics.count_refusal(reason);
    error(problem)
}

/// The methods that a path takes, as `Allow` has them; `None` where there is nothing.
fn allowed(state: &State, path: &str) -> Option<&'static str> {
    let hidden = match path {
        // Operators read them on a listener of their own.
        "/metrics" => !state.public_metrics,
        // A decision tells of all tenants' work.
        _ => path.starts_with(DECISIONS) && state.access().asks_for_keys(),
    };
    if hidden { None } else { methods(path) }
}

fn methods(path: &str) -> Option<&'static str> {
    if Endpoint::from_path(path).is_some() || path == FEEDBACK {
        return Some("POST");
    }
    if let Some(rest) = path.strip_prefix(RESPONSES) {
        return responses::allowed(rest);
    }
    let below = |prefix: &str| path.len() > prefix.len() && path.starts_with(prefix);
    let is_page = matches!(path, "/v1/models" | "/health" | "/ping" | "/metrics" | "/version");
    (is_page || below(MODELS) || below(DECISIONS)).then_some(READ)
}

/// What is said back of a path: enough to recognise it.
fn shortened(path: &str) -> String {
    const LONGEST: usize = 200;
    match path.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}

fn version() -> ClientResponse {
    content(
        "application/json",
        concat!("{\"version\":\"equipoise ", env!("CARGO_PKG_VERSION"), "\"}"),
    )
}

pub(crate) fn not_allowed(method: &Method, path: &str, allowed: &'static str) -> ClientResponse {
    let method: String = method.as_str().chars().take(32).collect();
    let mut response = error(&ErrorResponse::method_not_allowed(&method, &shortened(path), allowed));
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_says_what_it_takes() {
        for endpoint in Endpoint::ALL {
            assert_eq!(methods(endpoint.path()), Some("POST"));
        }
        for page in ["/health", "/v1/models", "/v1/models/llama/8b", "/v1/decisions/router-1"] {
            assert_eq!(methods(page), Some(READ), "{page}");
        }
        assert_eq!(methods("/v1/responses/resp_1/cancel"), Some("POST"));
        for nothing in [
            "/",
            "/v1",
            "/v1/models/",
            "/v1/decisions/",
            "/v1/responses/",
            "/v1/responses/a/b",
            "//health",
        ] {
            assert_eq!(methods(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        assert_eq!(shortened("/a"), "/a");
        assert_eq!(shortened(&"ä".repeat(300)).chars().count(), 201);
    }
}
