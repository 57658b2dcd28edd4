//! What is where: paths to what answers them, and an OpenAI error for everything else.

use std::sync::Arc;

use equipoise_openai::{Endpoint, ErrorResponse};
use http::{HeaderValue, Method, header};
use hyper::body::Incoming;

use crate::feedback::{self, FEEDBACK};
use crate::proxy;
use crate::relay::{ClientResponse, content, error};
use crate::responses::{self, RESPONSES};
use crate::server::{self, DECISIONS, MODELS, State};

/// The methods of what is read only.
const READ: &str = "GET, HEAD";

/// Answers one request of a client.
pub(crate) async fn respond(state: Arc<State>, request: http::Request<Incoming>) -> ClientResponse {
    let request_id = request.headers().get("x-request-id").cloned();
    let mut response = answer(state, request).await;
    if let Some(id) = request_id {
        response.headers_mut().entry("x-request-id").or_insert(id);
    }
    response
}

async fn answer(state: Arc<State>, request: http::Request<Incoming>) -> ClientResponse {
    let path = request.uri().path();
    let Some(allowed) = allowed(path) else {
        return error(&ErrorResponse::not_found(&shortened(path)));
    };
    let method = request.method();
    if !allowed.split(", ").any(|name| name == method.as_str()) {
        return not_allowed(method, path, allowed);
    }
    if let Some(endpoint) = Endpoint::from_path(path) {
        return proxy::complete(state, endpoint, request).await;
    }
    if path.starts_with(RESPONSES) {
        return responses::pass(&state, None, request).await;
    }
    match path {
        FEEDBACK => feedback::post(&state, request.into_body()).await,
        "/v1/models" => server::models(&state),
        "/health" | "/ping" => server::health(&state),
        "/metrics" => server::metrics(&state),
        "/version" => version(),
        _ => match (path.strip_prefix(DECISIONS), path.strip_prefix(MODELS)) {
            (Some(name), _) => server::decision(&state, name),
            (None, Some(id)) => server::model(&state, id),
            (None, None) => error(&ErrorResponse::not_found(&shortened(path))),
        },
    }
}

/// The methods that a path takes, as `Allow` has them; `None` where there is nothing.
fn allowed(path: &str) -> Option<&'static str> {
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

fn not_allowed(method: &Method, path: &str, allowed: &'static str) -> ClientResponse {
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
            assert_eq!(allowed(endpoint.path()), Some("POST"));
        }
        for page in ["/health", "/v1/models", "/v1/models/llama/8b", "/v1/decisions/router-1"] {
            assert_eq!(allowed(page), Some(READ), "{page}");
        }
        assert_eq!(allowed("/v1/responses/resp_1/cancel"), Some("POST"));
        for nothing in [
            "/",
            "/v1",
            "/v1/models/",
            "/v1/decisions/",
            "/v1/responses/",
            "/v1/responses/a/b",
            "//health",
        ] {
            assert_eq!(allowed(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        assert_eq!(shortened("/a"), "/a");
        assert_eq!(shortened(&"ä".repeat(300)).chars().count(), 201);
    }
}
