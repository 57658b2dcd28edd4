//! Response objects, which live on one engine each: who made which is remembered for a while, so that what refers to one
//! goes where it is. A router knows its own only, and none from before a restart.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use equipoise_backend::{BoxBody, full_body};
use equipoise_openai::{ErrorResponse, SseParser, response_id};
use equipoise_scheduler::Failure;
use equipoise_types::InstanceId;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::access::Caller;
use crate::engines::Engine;
use crate::proxy::{Answer, Content, Sent};
use crate::relay::{ClientResponse, error};
use crate::server::State;

/// Where they are.
pub(crate) const RESPONSES: &str = "/v1/responses/";
/// Responses that are remembered; the oldest are forgotten first. About 200 bytes each.
const MOST: usize = 16_384;
/// An id that is longer than any engine's is not kept.
const LONGEST_ID: usize = 128;
/// A first event that is longer, or slower once it has begun, is passed on unread.
const LONGEST_FIRST_EVENT: usize = 256 << 10;
const FIRST_EVENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Nothing that is sent to a response has a body of any size.
const MAX_BODY_BYTES: usize = 64 << 10;
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Who made a response, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) instance: InstanceId,
    pub(crate) name: String,
    tenant: Option<String>,
}

/// The responses that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Responses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: BTreeMap<Arc<str>, Place>,
    oldest_first: VecDeque<Arc<str>>,
}

impl Responses {
    fn note(&self, id: String, place: Place) {
        if id.len() > LONGEST_ID {
            return;
        }
        let id: Arc<str> = id.into();
        let mut known = self.0.lock();
        if known.places.insert(Arc::clone(&id), place).is_some() {
            return;
        }
        known.oldest_first.push_back(id);
        if known.oldest_first.len() > MOST
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.places.remove(&oldest);
        }
    }

    /// Where a response is, for the tenant that it was made for.
    pub(crate) fn find(&self, id: &str, tenant: Option<&str>) -> Option<Place> {
        let known = self.0.lock();
        let place = known.places.get(id)?;
        (place.tenant.as_deref() == tenant).then(|| place.clone())
    }

    /// Remembers who answered, from the answer itself.
    pub(crate) fn note_answer(&self, instance: InstanceId, engine: &Engine, tenant: Option<&str>, content: &Content) {
        let id = match content {
            Content::Whole(body) | Content::Complete(body, _) => response_id(body),
            // The first event has it.
            Content::Stream(first, _) => {
                let mut id = None;
                let mut parser = SseParser::default();
                let read = parser.push(first, |event| {
                    if let (None, Some(data)) = (&id, event.data.as_deref()) {
                        id = response_id(data);
                    }
                });
                read.ok().and(id)
            }
        };
        if let Some(id) = id {
            let place = Place {
                instance,
                name: engine.name.clone(),
                tenant: tenant.map(str::to_owned),
            };
            self.note(id, place);
        }
    }
}

/// Takes in so much of a stream that its first event, which names the response, is there in full. Nothing has been shown
/// yet: a stream that breaks off in it goes elsewhere.
pub(crate) async fn begun(answer: Answer) -> Sent {
    let Content::Stream(first, mut rest) = answer.content else {
        return Sent::Answered(answer);
    };
    let mut begin = BytesMut::from(first);
    while !has_event(&begin) && begin.len() < LONGEST_FIRST_EVENT {
        match tokio::time::timeout(FIRST_EVENT_TIMEOUT, rest.frame()).await {
            Ok(Some(Ok(frame))) => begin.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => {
                tracing::warn!(instance = answer.engine.name, "a response broke off in its first event");
                return Sent::Elsewhere(Failure::Unreached);
            }
        }
    }
    Sent::Answered(Answer {
        content: Content::Stream(begin.freeze(), rest),
        ..answer
    })
}

/// Whether the blank line after an event is there.
fn has_event(bytes: &[u8]) -> bool {
    let ends = |end: &[u8]| bytes.windows(end.len()).any(|window| window == end);
    ends(b"\n\n") || ends(b"\r\n\r\n")
}

/// What to say of a response that is not known here.
pub(crate) fn unknown(id: &str) -> ErrorResponse {
    let shown: String = id.chars().take(LONGEST_ID).collect();
    let mut problem = ErrorResponse::invalid_request(format!(
        "The response `{shown}` is not known here: it was made by another router, before a restart, too long ago, or not for you."
    ))
    .with_code("response_not_found");
    problem.status = 404;
    problem
}

/// Methods that a path under [`RESPONSES`] takes; `None` where there is no such path.
pub(crate) fn allowed(rest: &str) -> Option<&'static str> {
    match rest.split_once('/') {
        None if !rest.is_empty() => Some("GET, HEAD, DELETE"),
        Some((id, "cancel")) if !id.is_empty() => Some("POST"),
        Some((id, "input_items")) if !id.is_empty() => Some("GET, HEAD"),
        _ => None,
    }
}

/// Passes a request about one response on to the engine that made it.
pub(crate) async fn pass(state: &State, caller: &Caller, request: http::Request<Incoming>) -> ClientResponse {
    let path = request.uri().path();
    let rest = path.strip_prefix(RESPONSES).unwrap_or_default();
    let id = rest.split('/').next().unwrap_or_default();
    let place = state.responses.find(id, caller.tenant.as_deref());
    let Some((place, engine)) = place.and_then(|place| Some((place.clone(), state.engines.get(place.instance)?)))
    else {
        return error(&unknown(id).with_param("response_id"));
    };
    let (parts, body) = request.into_parts();
    let body = match small(body).await {
        Ok(body) => body,
        Err(problem) => return error(&problem),
    };
    let mut onward = http::Request::new(full_body(body));
    *onward.method_mut() = if parts.method == Method::HEAD {
        Method::GET
    } else {
        parts.method
    };
    *onward.uri_mut() = parts.uri;
    *onward.headers_mut() = forwarded(&parts.headers, caller);
    match engine.client.send(onward).await {
        Ok(answer) => {
            let (mut head, body) = answer.into_parts();
            equipoise_backend::strip_hop_by_hop(&mut head.headers);
            if let Ok(name) = http::HeaderValue::from_str(&place.name) {
                head.headers.insert("x-equipoise-instance", name);
            }
            let body: BoxBody = body.map_err(Into::into).boxed_unsync();
            http::Response::from_parts(head, body)
        }
        Err(problem) => {
            tracing::warn!(instance = place.name, "{problem}");
            error(&ErrorResponse::upstream_failed(
                "The engine that made this response could not be asked.",
            ))
        }
    }
}

/// What of a client's headers an engine sees: nothing of ours, and no length that may not be true any more.
fn forwarded(headers: &HeaderMap, caller: &Caller) -> HeaderMap {
    let passes = |name: &str| !name.starts_with("x-equipoise-");
    let kept = headers.iter().filter(|(name, _)| passes(name.as_str()));
    let mut kept: HeaderMap = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    kept.remove(header::CONTENT_LENGTH);
    kept.remove(header::EXPECT);
    if caller.came_with_key() {
        kept.remove(header::AUTHORIZATION);
    }
    kept
}

async fn small(body: Incoming) -> Result<Bytes, ErrorResponse> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(ErrorResponse::too_large(MAX_BODY_BYTES as u64)),
        Err(_) => Err(ErrorResponse::request_timeout(BODY_TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(instance: u32, tenant: Option<&str>) -> Place {
        Place {
            instance: InstanceId(instance),
            name: format!("i-{instance}"),
            tenant: tenant.map(str::to_owned),
        }
    }

    #[test]
    fn the_oldest_are_forgotten_and_tenants_see_their_own() {
        let responses = Responses::default();
        for number in 0..MOST as u32 + 2 {
            responses.note(format!("resp_{number}"), place(number, Some("acme")));
        }
        responses.note("r".repeat(LONGEST_ID + 1), place(1, None));
        assert_eq!(responses.0.lock().places.len(), MOST);
        assert_eq!(responses.find("resp_1", Some("acme")), None);
        assert_eq!(responses.find("resp_2", Some("acme")), Some(place(2, Some("acme"))));
        assert_eq!(responses.find("resp_2", None), None);
        assert_eq!(responses.find("resp_2", Some("other")), None);
    }

    #[test]
    fn an_event_ends_with_a_blank_line() {
        assert!(!has_event(b"data: {\"a\":1}\n"));
        assert!(has_event(b"data: 1\n\nda") && has_event(b"data: 1\r\n\r\n"));
    }

    #[test]
    fn paths_say_what_they_take() {
        assert_eq!(allowed("resp_1"), Some("GET, HEAD, DELETE"));
        assert_eq!(allowed("resp_1/cancel"), Some("POST"));
        assert_eq!((allowed(""), allowed("a/b"), allowed("a/cancel/b")), (None, None, None));
    }
}
