//! What a caller of `Pick` wants, as a request of the scheduler.

use std::time::Instant;

use equipoise_openai::{Endpoint, ErrorResponse, PromptPart};
use equipoise_policy::{Prefix, Request, Target};
use equipoise_proto::v1;
use equipoise_proto::v1::pick_request::Prompt;
use equipoise_types::RequestId;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::headers;
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

/// The request, and how many characters its prompt has.
pub(super) fn request(state: &State, asked: v1::PickRequest) -> Result<(Request, u64), Refused> {
    let wishes = as_headers(asked.wishes)?;
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
            let (asked, request) = understand(state, endpoint, wishes, body.content.into())?;
            Ok((request, asked.head.prompt_chars))
        }
        prompt => {
            if asked.model.is_empty() {
                return Err(invalid("`model` is empty; name a model, or `auto`"));
            }
            let refuse = |error: headers::HeaderError| invalid(error.to_string());
            let mut request = Request {
                id: RequestId(0),
                target: if asked.model == AUTO {
                    Target::Auto
                } else {
                    Target::Model(asked.model)
                },
                tenant: headers::tenant(&wishes).map_err(refuse)?,
                prompt_tokens: 0,
                max_output_tokens: asked.max_output_tokens,
                streams: asked.streams,
                forecast: None,
                prefix: Prefix::default(),
                wishes: headers::wishes(&wishes, state.driver.now()).map_err(refuse)?,
            };
            match prompt {
                Some(Prompt::Tokens(tokens)) if tokens > 0 => request.prompt_tokens = tokens,
                Some(Prompt::Text(text)) if !text.is_empty() => return Ok(read(state, request, &text)),
                _ => return Err(invalid("there is no prompt; send `text`, `tokens` or `body`")),
            }
            Ok((request, 0))
        }
    }
}

/// Takes from a text what a body would have told.
fn read(state: &State, mut request: Request, text: &str) -> (Request, u64) {
    let (mut prompt, mut question) = (PromptReader::default(), Question::default());
    for part in [PromptPart::Start, PromptPart::Text(text)] {
        prompt.read(part);
        question.read(part);
    }
    let chars = text.chars().count() as u64;
    request.prompt_tokens = (chars as f64 / state.prompt_size.chars_per_token()).ceil() as u32;
    request.prefix = prompt.into_prefix();
    if state.forecaster.is_useful_to(&request)
        && let Some(text) = question.into_text()
    {
        let started = Instant::now();
        request.forecast = state.forecaster.forecast(&text);
        state.metrics.observe_forecast(started.elapsed());
    }
    (request, chars)
}
