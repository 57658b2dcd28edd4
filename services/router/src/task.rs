//! Engines that serve a model but not the task: a chat model that is asked for embeddings, say. vLLM does not even have the
//! path then. That is the client's slip or the operator's, never the instance's fault: its own answer is shown.

use std::sync::Arc;
use std::time::Duration;

use equipoise_backend::EngineBody;
use equipoise_openai::Endpoint;
use equipoise_scheduler::Failure;
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;

use crate::engines::Engine;
use crate::proxy::{Answer, Content, Sent};

/// An error is a sentence; what is longer is a page of something else.
const MAX_ERROR_BYTES: usize = 64 << 10;
const ERROR_TIMEOUT: Duration = Duration::from_secs(10);

/// Statuses that an engine answers what it does not do with.
pub(crate) fn may_be_lacking(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

/// Reads such an answer: shown to the client where the engine lacks the task, else the engine serves something else than was
/// declared and the request goes elsewhere.
pub(crate) async fn judge(engine: Arc<Engine>, endpoint: Endpoint, response: http::Response<EngineBody>) -> Sent {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(ERROR_TIMEOUT, Limited::new(body, MAX_ERROR_BYTES).collect()).await;
    let Ok(Ok(body)) = body else {
        return Sent::Elsewhere(Failure::Unreached);
    };
    let body = body.to_bytes();
    if is_lacking(endpoint, head.status, &body) {
        return Sent::Answered(Answer {
            engine,
            head,
            content: Content::Whole(body),
        });
    }
    tracing::warn!(
        instance = engine.name,
        status = %head.status,
        "the engine does not serve what was declared"
    );
    Sent::Elsewhere(Failure::Unreached)
}

/// A path that is not there is FastAPI's `{"detail": …}`; a model that is not there is an error object that names it.
fn is_lacking(endpoint: Endpoint, status: StatusCode, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Missing {
        detail: Option<serde::de::IgnoredAny>,
        error: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        param: Option<String>,
    }
    if status == StatusCode::NOT_IMPLEMENTED {
        return true;
    }
    let said = serde_json::from_slice::<Missing>(body);
    match endpoint {
        Endpoint::Chat | Endpoint::Completions => said.is_ok_and(|said| said.detail.is_some()),
        // An earlier response that is gone is not found either.
        _ => {
            let names_model = |error: Named| error.param.as_deref() == Some("model");
            !said.is_ok_and(|said| said.error.is_some_and(names_model))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_missing_is_told_from_a_model_that_is() {
        let path = br#"{"detail":"Not Found"}"#;
        let model = br#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#;
        for endpoint in [Endpoint::Chat, Endpoint::Embeddings, Endpoint::Responses] {
            assert!(is_lacking(endpoint, StatusCode::NOT_FOUND, path), "{endpoint:?}");
            assert!(!is_lacking(endpoint, StatusCode::NOT_FOUND, model), "{endpoint:?}");
        }
        assert!(!is_lacking(Endpoint::Chat, StatusCode::NOT_FOUND, b"<html>"));
        assert!(is_lacking(Endpoint::Rerank, StatusCode::METHOD_NOT_ALLOWED, b""));
        assert!(is_lacking(Endpoint::Chat, StatusCode::NOT_IMPLEMENTED, b""));
    }
}
