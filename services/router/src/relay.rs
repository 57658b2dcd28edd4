//! Answers to clients: whole bodies, errors in OpenAI's shape, and the headers that say what was decided.

use bytes::Bytes;
use equipoise_backend::{BoxBody, full_body};
use equipoise_openai::ErrorResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

/// What a client gets.
pub(crate) type ClientResponse = Response<BoxBody>;

/// A body that is known in full.
pub(crate) fn whole(content: impl Into<Bytes>) -> BoxBody {
    full_body(content)
}

/// A whole answer of a given kind.
pub(crate) fn content(kind: &'static str, content: impl Into<Bytes>) -> ClientResponse {
    let mut response = Response::new(whole(content));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An error in OpenAI's shape.
pub(crate) fn error(problem: &ErrorResponse) -> ClientResponse {
    let mut response = content("application/json", problem.body.to_json());
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = problem.retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Says what was decided.
pub(crate) fn decided(headers: &mut HeaderMap, instance: &str, model: &str, decision: &str) {
    let parts = [
        ("x-equipoise-instance", instance),
        ("x-equipoise-model", model),
        ("x-equipoise-decision-id", decision),
    ];
    for (name, value) in parts {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}
