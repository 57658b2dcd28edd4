//! Errors as OpenAI clients expect them: an HTTP status and `{"error": {…}}`.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The object inside `{"error": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What was wrong and how to mend it, for a person.
    pub message: String,
    /// The class of the error, such as `invalid_request_error`.
    #[serde(rename = "type", default)]
    pub kind: Cow<'static, str>,
    /// The request's member that is at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// What went wrong, for a program.
    #[serde(default)]
    pub code: Option<ErrorCode>,
}

/// OpenAI's `code` is a word, vLLM's is the HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErrorCode {
    /// An HTTP status.
    Status(u16),
    /// A word such as `model_not_found`.
    Name(Cow<'static, str>),
}

impl ErrorBody {
    /// As JSON bytes, `{"error": {…}}`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: &'a ErrorBody,
        }
        crate::json::to_vec(&Envelope { error: self })
    }

    /// Reads an engine's error; `None` if the bytes are not of the form `{"error": {"message": …}}`.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope {
            error: ErrorBody,
        }
        serde_json::from_slice::<Envelope>(body)
            .ok()
            .map(|envelope| envelope.error)
    }
}

/// An error with all that an HTTP answer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// HTTP status code.
    pub status: u16,
    /// Seconds for the `Retry-After` header, where trying again can help.
    pub retry_after_s: Option<u32>,
    /// The JSON body.
    pub body: ErrorBody,
}

const INVALID_REQUEST: &str = "invalid_request_error";

impl ErrorResponse {
    fn new(status: u16, kind: &'static str, code: &'static str, message: String) -> Self {
        let code = Some(ErrorCode::Name(code.into()));
        Self {
            status,
            retry_after_s: None,
            body: ErrorBody {
                message,
                kind: kind.into(),
                param: None,
                code,
            },
        }
    }

    /// The same error, pointing at a member of the request.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }

    /// The same error with another `code`.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.body.code = Some(ErrorCode::Name(code.into()));
        self
    }

    /// The same error, saying when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 400: the request is at fault.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, INVALID_REQUEST, "invalid_request", message.into())
    }

    /// 401: no key, or an unknown one.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "authentication_error", "invalid_api_key", message.into())
    }

    /// 404: no such model. Names what is served as long as that is short.
    #[must_use]
    pub fn model_not_found<'a>(model: &str, served: impl IntoIterator<Item = &'a str>) -> Self {
        const SHORT: usize = 300;
        let served = served.into_iter().collect::<Vec<_>>().join(", ");
        let hint = match served.len() {
            0 => " No model is served at the moment.".to_owned(),
            1..=SHORT => format!(" Served: {served}."),
            _ => " GET /v1/models lists what is served.".to_owned(),
        };
        Self::new(
            404,
            INVALID_REQUEST,
            "model_not_found",
            format!("The model `{model}` does not exist.{hint}"),
        )
        .with_param("model")
    }

    /// 404: no such path.
    #[must_use]
    pub fn not_found(path: &str) -> Self {
        Self::new(
            404,
            INVALID_REQUEST,
            "not_found",
            format!("There is nothing at {path}."),
        )
    }

    /// 405: the path exists, with other methods.
    #[must_use]
    pub fn method_not_allowed(method: &str, path: &str, allowed: &str) -> Self {
        let message = format!("{method} is not allowed on {path}; use {allowed}.");
        Self::new(405, INVALID_REQUEST, "method_not_allowed", message)
    }

    /// 408: the body did not come in time.
    #[must_use]
    pub fn request_timeout(seconds: u64) -> Self {
        let message = format!("The request body did not arrive within {seconds} s.");
        Self::new(408, INVALID_REQUEST, "request_timeout", message)
    }

    /// 413: the body is longer than is accepted.
    #[must_use]
    pub fn too_large(limit_bytes: u64) -> Self {
        let message = format!("The request body is longer than {limit_bytes} bytes; send a shorter prompt.");
        Self::new(413, INVALID_REQUEST, "request_too_large", message)
    }

    /// 429: a rate, a budget or the queue is exhausted.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(429, "rate_limit_error", "rate_limit_exceeded", message.into())
    }

    /// 500: a fault of ours.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "server_error", "internal_error", message.into())
    }

    /// 502: the engine answered nonsense or broke the connection.
    #[must_use]
    pub fn upstream_failed(message: impl Into<String>) -> Self {
        Self::new(502, "server_error", "upstream_failed", message.into())
    }

    /// 503: nothing can take the request at the moment.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "server_error", "unavailable", message.into())
    }

    /// 504: an answer took too long.
    #[must_use]
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "server_error", "timeout", message.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_openai_s() {
        let error = ErrorResponse::model_not_found("x", ["a", "b"]);
        assert_eq!(error.status, 404);
        assert_eq!(
            String::from_utf8(error.body.to_json()).expect("UTF-8"),
            r#"{"error":{"message":"The model `x` does not exist. Served: a, b.","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
        );
        assert_eq!(ErrorBody::from_json(&error.body.to_json()), Some(error.body));
    }

    #[test]
    fn a_long_list_of_models_is_not_spelled_out() {
        let names: Vec<String> = (0..100).map(|index| format!("model-{index}")).collect();
        let error = ErrorResponse::model_not_found("x", names.iter().map(String::as_str));
        assert_eq!(
            error.body.message,
            "The model `x` does not exist. GET /v1/models lists what is served."
        );
    }

    #[test]
    fn vllm_s_errors_are_understood() {
        let body = br#"{"error":{"message":"m","type":"NotFoundError","param":"model","code":404}}"#;
        assert_eq!(
            ErrorBody::from_json(body).and_then(|error| error.code),
            Some(ErrorCode::Status(404))
        );
        assert_eq!(ErrorBody::from_json(br#"{"detail":"Not Found"}"#), None);
    }
}
