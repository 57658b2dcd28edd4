//! What a caller of `Pick` wants, as a request of the scheduler.

use std::time::Instant;

use equipoise_openai::{Endpoint, ErrorResponse, PromptPart};
use equipoise_policy::{Prefix, Request, Target};
use equipoise_proto::v1;
use equipoise_proto::v1::pick_request::Prompt;
use equipoise_types::RequestId;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::access::Reservation;
use crate::headers;
use crate::journal::{Door, Opening, request_id};
use crate::prompt::PromptReader;
use crate::proxy::{AUTO, understand};
use crate::question::Question;
use crate::server::State;

type Refused = Box<ErrorResponse>;

fn invalid(message: impl Into<String>) -> Refused {
    Box::new(ErrorResponse::invalid_request(message))
}

/// The wishes as the headers that they are named after: one vocabulary for all doors.
fn as_headers(wishes: impl IntoIterator<Item = (String, String)>) -> Result<HeaderMap, Refused> {
    let mut headers = HeaderMap::new();
    for (name, value) in wishes {
        let header = HeaderName::try_from(format!("x-equipoise-{name}"));
        let header = header.map_err(|_| invalid(format!("the wish `{name}` is no name of a header")))?;
        let value = HeaderValue::try_from(value);
        let value = value.map_err(|_| invalid(format!("the wish `{name}` has a value that is not printable ASCII")))?;
        headers.insert(header, value);
    }
    Ok(headers)
}

/// What a caller wants.
pub(super) struct Wanted {
    pub(super) request: Request,
    pub(super) prompt_chars: u64,
    /// What it holds of its tenant's limits.
    pub(super) reservation: Option<Reservation>,
    pub(super) opening: Opening,
}

/// Reads it.
pub(super) fn request(state: &State, key: Option<HeaderValue>, asked: v1::PickRequest) -> Result<Wanted, Refused> {
    let mut wishes = as_headers(asked.wishes)?;
    state.journal.name(&mut wishes, &state.process);
    if let Some(key) = key {
        wishes.insert(header::AUTHORIZATION, key);
    }
    let caller = state.access().caller(&wishes)?;
    match asked.prompt {
        Some(Prompt::Body(body)) => {
            if !asked.model.is_empty() || asked.max_output_tokens.is_some() || asked.streams {
                return Err(invalid(
                    "`model`, `max_output_tokens` and `streams` are the body's to say; leave them out",
                ));
            }
            let endpoint =
                Endpoint::from_path(&body.path).ok_or_else(|| Box::new(ErrorResponse::not_found(&body.path)))?;
            if body.content.len() > state.max_body_bytes {
                return Err(Box::new(ErrorResponse::too_large(state.max_body_bytes as u64)));
            }
            let (mut asked, request) = understand(state, &caller, endpoint, wishes, body.content.into())?;
            Ok(Wanted {
                request,
                prompt_chars: asked.head.prompt_chars,
                reservation: asked.reservation.take(),
                opening: asked.opening(Door::Route),
            })
        }
        prompt => {
            if asked.model.is_empty() {
                return Err(invalid("`model` is empty; name a model, or `auto`"));
            }
            caller.check_model(&asked.model)?;
            let opening = Opening {
                door: Door::Route,
                request_id: request_id(&wishes),
                place: state.journal.place(&wishes),
                path: "",
                model: asked.model.clone(),
                tenant: caller.tenant.clone(),
                stream: asked.streams,
                bytes_in: 0,
            };
            let mut request = Request {
                id: RequestId(0),
                target: if asked.model == AUTO {
                    Target::Auto
                } else {
                    Target::Model(asked.model)
                },
                tenant: caller.tenant.clone(),
                prompt_tokens: 0,
                max_output_tokens: asked.max_output_tokens,
                streams: asked.streams,
                forecast: None,
                prefix: Prefix::default(),
                wishes: headers::wishes(&wishes, state.driver.now()).map_err(|error| Box::new(error.into()))?,
            };
            let prompt_chars = match prompt {
                Some(Prompt::Tokens(tokens)) if tokens > 0 => {
                    request.prompt_tokens = tokens;
                    0
                }
                Some(Prompt::Text(text)) if !text.is_empty() => {
                    if let Some(pii) = &state.pii {
                        // As it would stand in a body: what a text may not hold it may not hold by this door.
                        let body = serde_json::json!({"prompt": text}).to_string();
                        pii.bind(body.as_bytes(), &caller, &mut request.wishes, |detector| {
                            state.metrics.count_pii(detector);
                        })?;
                    }
                    read(state, &mut request, &text)
                }
                _ => return Err(invalid("there is no prompt; send `text`, `tokens` or `body`")),
            };
            let most_tokens = u64::from(request.prompt_tokens) + u64::from(request.max_output_tokens.unwrap_or(0));
            Ok(Wanted {
                reservation: caller.reserve(state.driver.now(), most_tokens)?,
                request,
                prompt_chars,
                opening,
            })
        }
    }
}

/// Takes from a text what a body would have told, and says how many characters it has.
fn read(state: &State, request: &mut Request, text: &str) -> u64 {
    let (mut prompt, mut question) = (PromptReader::new(state.prefix), Question::default());
    for part in [PromptPart::Start, PromptPart::Text(text)] {
        prompt.read(part);
        question.read(part);
    }
    let chars = text.chars().count() as u64;
    request.prompt_tokens = (chars as f64 / state.prompt_size.chars_per_token()).ceil() as u32;
    request.prefix = prompt.into_prefix(None);
    if state.forecaster.is_useful_to(request)
        && let Some(text) = question.into_text()
    {
        let started = Instant::now();
        request.forecast = state.forecaster.forecast(&text);
        state.metrics.observe_forecast(started.elapsed());
    }
    chars
}
