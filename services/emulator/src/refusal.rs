//! Errors in vLLM's words and shape.

use crate::body::AnswerBody;
use crate::engine_task::Refused;
use bytes::Bytes;
use equipoise_openai::{ErrorBody, ErrorCode, RequestError};
use http::{HeaderValue, Response, StatusCode, header};

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
    with_type(status, HeaderValue::from_static("application/json"), body)
}

/// An answer of any type.
pub(crate) fn with_type(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn error(status: StatusCode, kind: &'static str, param: Option<&str>, message: String) -> Response<AnswerBody> {
    let code = Some(ErrorCode::Status(status.as_u16()));
    let body = ErrorBody {
        message,
        kind: kind.into(),
        param: param.map(str::to_owned),
        code,
    };
    json(status, body.to_json())
}

pub(crate) fn bad_request(param: Option<&str>, message: impl Into<String>) -> Response<AnswerBody> {
    error(StatusCode::BAD_REQUEST, "BadRequestError", param, message.into())
}

/// vLLM's validation errors, with this workspace's own text.
pub(crate) fn invalid(fault: &RequestError) -> Response<AnswerBody> {
    error(StatusCode::BAD_REQUEST, "Bad Request", fault.param(), fault.to_string())
}

pub(crate) fn unknown_model(asked: &str, served: &str) -> Response<AnswerBody> {
    let message = format!("The model `{asked}` does not exist. Valid aliases: {served}.");
    error(StatusCode::NOT_FOUND, "NotFoundError", Some("model"), message)
}

pub(crate) fn unknown_response(id: &str) -> Response<AnswerBody> {
    let message = format!("Response with id '{id}' not found.");
    error(
        StatusCode::NOT_FOUND,
        "invalid_request_error",
        Some("response_id"),
        message,
    )
}

pub(crate) fn too_large(limit: usize) -> Response<AnswerBody> {
    let message = format!("The request body is longer than {limit} bytes.");
    error(
        StatusCode::PAYLOAD_TOO_LARGE,
        "RequestEntityTooLargeError",
        None,
        message,
    )
}

pub(crate) fn refused(refused: &Refused) -> Response<AnswerBody> {
    match refused {
        Refused::Engine(fault) => bad_request(None, fault.to_string()),
        Refused::Full { .. } | Refused::Stopped => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableError",
            None,
            refused.to_string(),
        ),
    }
}

pub(crate) fn engine_stopped() -> Response<AnswerBody> {
    let message = "The engine stopped before the answer was complete.".to_owned();
    error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", None, message)
}

pub(crate) fn not_found() -> Response<AnswerBody> {
    json(StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#)
}

pub(crate) fn method_not_allowed(allowed: &'static str) -> Response<AnswerBody> {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, r#"{"detail":"Method Not Allowed"}"#);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
