//! HTTP headers as they come through Envoy.

use equipoise_proto::ext_proc;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The head of a request or a response.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Without its query.
    pub(super) path: String,
    pub(super) status: Option<StatusCode>,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// Reads it. What is no header to us (a name or a value that HTTP does not allow) is nobody's wish, and left out.
    pub(super) fn read(message: ext_proc::HttpHeaders) -> Self {
        let mut head = Self::default();
        for header in message.headers.unwrap_or_default().headers {
            let value = if header.raw_value.is_empty() {
                header.value.into_bytes()
            } else {
                header.raw_value
            };
            match header.key.as_str() {
                ":path" => {
                    let path = String::from_utf8_lossy(&value);
                    head.path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
                }
                ":status" => head.status = StatusCode::from_bytes(&value).ok(),
                name => {
                    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                        head.headers.append(name, value);
                    }
                }
            }
        }
        head
    }

    pub(super) fn is_event_stream(&self) -> bool {
        let kind = self.headers.get(http::header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }
}
