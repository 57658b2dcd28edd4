//! One completion request, from its body to its answer: parse, decide, send, retry while nothing was shown, relay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use equipoise_backend::{BackendError, EngineBody, Retry, full_body};
use equipoise_openai::{
    Endpoint, ErrorResponse, RequestHead, Task, Usage, asks_for_logprobs, with_logprobs, with_model, with_stream_usage,
};
use equipoise_policy::{Capability, Request, Target};
use equipoise_scheduler::{Dispatch, Event, Failure};
use equipoise_telemetry::{GateOutcome, Outcome};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::access::{Caller, Reservation};
use crate::cascade::{self, Held, Taken};
use crate::driver::Verdict;
use crate::engines::Engine;
use crate::hedge::{self, Way};
use crate::journal::{self, Door, Opening, Place};
use crate::prompt::PromptReader;
use crate::question::Question;
use crate::relay::{ClientResponse, decided, error, whole};
use crate::server::State;
use crate::stream::RelayBody;
use crate::ticket::Ticket;
use crate::{head, headers, refusal, responses, task};

/// Longest answer in one piece that is kept to be read for its usage; a longer one breaks off.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How long the rest of a refused body is still taken in.
const LINGER: Duration = Duration::from_secs(5);
/// Longest wait for the first chunk of a stream: an engine under load may let a request wait for minutes.
const FIRST_CHUNK_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest time between the head of an answer in one piece and its end.
const WHOLE_ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The model name that leaves the choice to the router.
pub(crate) const AUTO: &str = "auto";

/// What the client asked for, ready to be sent to any instance.
pub(crate) struct Asked {
    pub(crate) head: RequestHead,
    body: Bytes,
    headers: HeaderMap,
    pub(crate) tenant: Option<String>,
    pub(crate) prompt_tokens: u32,
    /// In its caller's trace, or in one of its own.
    pub(crate) place: Place,
    /// What it holds of its tenant's limits, until a ticket takes it over.
    pub(crate) reservation: Option<Reservation>,
}

impl Asked {
    /// Whether the client asked for log-probabilities: a walk through its body, for whom there is a gate.
    pub(crate) fn wants_logprobs(&self) -> bool {
        asks_for_logprobs(&self.body)
    }

    /// What is told of it, for one that came by `door`.
    pub(crate) fn opening(&self, door: Door) -> Opening {
        Opening {
            door,
            request_id: journal::request_id(&self.headers),
            place: self.place.clone(),
            path: self.head.endpoint.path(),
            model: self.head.model.clone(),
            tenant: self.tenant.clone(),
            stream: self.head.stream,
            bytes_in: self.body.len() as u64,
        }
    }
}

/// Answers one completion request.
pub(crate) async fn complete(
    state: Arc<State>,
    caller: &Caller,
    endpoint: Endpoint,
    request: http::Request<Incoming>,
) -> ClientResponse {
    let kept = state.journal.kept(request.headers());
    match ask(&state, caller, endpoint, request).await {
        // In a place of its own: as a part of every future around it, it would be copied once for each of them.
        Ok((asked, request)) => Box::pin(serve(state, asked, request)).await,
        Err(problem) => {
            state
                .journal
                .rejected(&state, Door::Proxy, kept, endpoint.path(), &problem);
            error(&problem)
        }
    }
}

/// Reads and checks the request; nothing is booked yet.
async fn ask(
    state: &State,
    caller: &Caller,
    endpoint: Endpoint,
    request: http::Request<Incoming>,
) -> Result<(Asked, Request), Box<ErrorResponse>> {
    let (parts, body) = request.into_parts();
    if let Err(problem) = head::check_content(&parts.headers) {
        linger(body);
        return Err(problem);
    }
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced
        .and_then(|length| length.to_str().ok()?.parse().ok())
        .unwrap_or(0);
    let body = read_body(body, announced, state.max_body_bytes, state.body_timeout).await?;
    understand(state, caller, endpoint, parts.headers, body)
}

/// Reads what a decision needs from a request of `caller` that has arrived in full, by whichever door.
pub(crate) fn understand(
    state: &State,
    caller: &Caller,
    endpoint: Endpoint,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<(Asked, Request), Box<ErrorResponse>> {
    if caller.came_with_key() {
        // It opens this door, and is no engine's business.
        headers.remove(header::AUTHORIZATION);
    }
    let (mut prompt, mut question) = (PromptReader::new(state.prefix), Question::default());
    let parsed = RequestHead::parse_with(endpoint, &body, &mut |part| {
        prompt.read(part);
        question.read(part);
    });
    let head = parsed.map_err(|error| Box::new(error.into()))?;
    caller.check_model(&head.model)?;
    let tenant = caller.tenant.clone();
    let now = state.driver.now();
    let mut wishes = headers::wishes(&headers, now).map_err(|error| Box::new(error.into()))?;
    wishes.needs = needs(&head);
    if let Some(pii) = &state.pii {
        pii.bind(&body, caller, &mut wishes, |detector| {
            state.metrics.count_pii(detector);
        })?;
    }
    if let Some(previous) = &head.previous_response_id {
        let place = state.responses.find(previous, tenant.as_deref());
        let place = place.ok_or_else(|| Box::new(responses::unknown(previous).with_param("previous_response_id")))?;
        wishes.only = BTreeSet::from([place.name]);
    }
    let prompt_tokens = head.prompt_tokens_estimate(state.prompt_size.chars_per_token());
    let most_tokens = u64::from(prompt_tokens) + u64::from(head.max_tokens.unwrap_or(0)) * u64::from(head.n);
    let reservation = caller.reserve(now, most_tokens)?;
    let generates = endpoint.task() == Task::Generate;
    let mut request = Request {
        // Numbered when it is handed in.
        id: equipoise_types::RequestId(0),
        target: if head.model == AUTO {
            Target::Auto
        } else {
            Target::Model(head.model.clone())
        },
        tenant: tenant.clone(),
        prompt_tokens,
        // One pass over the input takes as long as an answer of one token.
        max_output_tokens: if generates { head.max_tokens } else { Some(1) },
        streams: head.stream,
        forecast: None,
        prefix: prompt.into_prefix(head.cache_salt.as_deref()),
        wishes,
    };
    if generates
        && state.forecaster.is_useful_to(&request)
        && let Some(text) = question.into_text()
    {
        let started = Instant::now();
        request.forecast = state.forecaster.forecast(&text);
        state.metrics.observe_forecast(started.elapsed());
    }
    Ok((
        Asked {
            place: state.journal.place(&headers),
            head,
            body,
            headers,
            tenant,
            prompt_tokens,
            reservation,
        },
        request,
    ))
}

/// What an engine must be able to do for a request.
fn needs(head: &RequestHead) -> BTreeSet<Capability> {
    let all = [
        (head.has_tools, Capability::Tools),
        (head.has_images, Capability::Images),
        (head.has_audio, Capability::Audio),
        (head.is_structured, Capability::Structured),
        (head.endpoint.task() == Task::Pool, Capability::Embeddings),
    ];
    all.into_iter()
        .filter(|(needed, _)| *needed)
        .map(|(_, need)| need)
        .collect()
}

/// Reads a request body that may have so many bytes.
async fn read_body(
    mut body: Incoming,
    announced: u64,
    limit: usize,
    longest: Duration,
) -> Result<Bytes, Box<ErrorResponse>> {
    let too_large = || Box::new(ErrorResponse::too_large(limit as u64));
    if announced > limit as u64 {
        linger(body);
        return Err(too_large());
    }
    let read = async {
        // The announced length is a client's word: room for it is made as it comes.
        let mut content = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |error| {
                ErrorResponse::invalid_request(format!("The request body broke off before it was complete: {error}."))
            };
            let data = frame
                .map_err(|error| Box::new(broken(error)))?
                .into_data()
                .unwrap_or_default();
            if content.len() + data.len() > limit {
                return Ok(None);
            }
            content.extend_from_slice(&data);
        }
        Ok(Some(content.freeze()))
    };
    match tokio::time::timeout(longest, read).await {
        Ok(Ok(Some(content))) => Ok(content),
        Ok(Ok(None)) => {
            linger(body);
            Err(too_large())
        }
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(ErrorResponse::request_timeout(longest).into()),
    }
}

/// Takes the rest of a body that was refused and drops it, for a while: a connection that is closed while its client
/// still writes is reset, and the client never sees why.
fn linger(mut body: Incoming) {
    tokio::spawn(async move {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        // Who is not done by then is cut off.
        drop(tokio::time::timeout(LINGER, rest).await);
    });
}

async fn serve(state: Arc<State>, mut asked: Asked, mut request: Request) -> ClientResponse {
    let (mut id, mut verdicts) = state.driver.open_mailbox();
    request.id = id;
    let record = state.journal.open(|| asked.opening(Door::Proxy));
    let mut ticket = Ticket::new(Arc::clone(&state), id, asked.head.prompt_chars, record);
    ticket.reservation = asked.reservation.take();
    state.driver.arrive(request);
    // A first answer that was not shown, while a better one is asked for.
    let mut held: Option<Box<Held>> = None;
    loop {
        match verdicts.recv().await {
            Some(Verdict::Dispatch(mut dispatch)) => {
                if dispatch.explored {
                    state.metrics.explored.inc();
                }
                if let Some(held) = &held {
                    // Its work was done, and is paid for, whatever comes now.
                    state.close(id, held.usage(), true);
                }
                let (sent, other) = hedge::send(&state, &asked, &dispatch, &mut ticket).await;
                if let Some(other) = other {
                    Way {
                        ticket,
                        verdicts,
                        dispatch,
                    } = *other;
                    id = ticket.id;
                }
                match sent {
                    Sent::Answered(answer) if cascade::is_gated(&asked, &dispatch) => {
                        match Box::pin(cascade::hold(&asked, dispatch.clone(), answer)).await {
                            Taken::Held(answer) => {
                                let judged = answer.judged(id);
                                held = Some(answer);
                                state.driver.on_event(judged);
                            }
                            Taken::Unmeasured(answer) => {
                                state.metrics.count_gate(GateOutcome::Unmeasured);
                                return pass_on(&state, &asked, &dispatch, answer, ticket, None);
                            }
                            Taken::Broken => {
                                state.close(id, None, true);
                                let failure = Failure::Unreached;
                                state.driver.on_event(Event::Failed { request: id, failure });
                            }
                        }
                    }
                    Sent::Answered(answer) => {
                        if held.is_some() {
                            state.metrics.count_gate(GateOutcome::Escalated);
                        }
                        return pass_on(&state, &asked, &dispatch, answer, ticket, held.as_deref());
                    }
                    Sent::Failed(_) if held.is_some() => {
                        let failure = Failure::Final;
                        state.driver.on_event(Event::Failed { request: id, failure });
                        return deliver(&state, &asked, held, ticket);
                    }
                    Sent::Elsewhere(failure) => {
                        // Its work there ends here; the next try is accounted on its own.
                        state.close(id, None, true);
                        state.driver.on_event(Event::Failed { request: id, failure });
                    }
                    Sent::Failed(problem) => {
                        ticket.said(&problem);
                        ticket.fail();
                        return error(&problem);
                    }
                }
            }
            Some(Verdict::Deliver) => return deliver(&state, &asked, held, ticket),
            // Who has an answer is not refused for want of a better one.
            Some(Verdict::Refuse(_)) if held.is_some() => return deliver(&state, &asked, held, ticket),
            Some(Verdict::Refuse(reason)) => {
                state.metrics.count_refusal(reason.code());
                let failed = matches!(reason, equipoise_scheduler::Refusal::Exhausted { .. });
                let problem = refusal::response(&reason);
                ticket.said(&problem);
                ticket.refused(if failed { Outcome::Failed } else { Outcome::Refused });
                return error(&problem);
            }
            // The driver keeps the other end until the ticket ends: this cannot be reached while it lives.
            None => return error(&ErrorResponse::internal("the router lost track of the request")),
        }
    }
}

/// Shows the answer that was held back.
fn deliver(state: &Arc<State>, asked: &Asked, held: Option<Box<Held>>, mut ticket: Ticket) -> ClientResponse {
    let Some(held) = held else {
        return error(&ErrorResponse::internal("the router lost track of an answer"));
    };
    state.metrics.count_gate(held.outcome());
    ticket.model.clone_from(&held.answer.engine.model);
    let confidence = held.confidence();
    let Held { dispatch, answer, .. } = *held;
    let mut response = pass_on(state, asked, &dispatch, answer, ticket, None);
    if let Ok(confidence) = HeaderValue::from_str(&confidence) {
        response.headers_mut().insert("x-equipoise-confidence", confidence);
    }
    response
}

pub(crate) enum Sent {
    /// The engine answered with something for the client.
    Answered(Answer),
    /// It may go elsewhere.
    Elsewhere(Failure),
    /// It may not.
    Failed(Box<ErrorResponse>),
}

/// An engine's answer, far enough in that it will not go elsewhere any more.
pub(crate) struct Answer {
    pub(crate) engine: Arc<Engine>,
    pub(crate) head: http::response::Parts,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    /// In one piece.
    Whole(Bytes),
    /// In one piece, whatever it was, as the client is to see it; and what was counted.
    Complete(Bytes, Option<Usage>),
    /// A stream, with the first chunk of it.
    Stream(Bytes, Box<EngineBody>),
}

/// Headers that concern the router, not the engine.
fn engine_headers(asked: &Asked) -> HeaderMap {
    let theirs = |name: &HeaderName| {
        !name.as_str().starts_with("x-equipoise-")
            // The body may be rewritten: hyper counts it anew.
            && name != header::CONTENT_LENGTH
            && name != header::EXPECT
            // What comes back is read for its tokens.
            && name != header::ACCEPT_ENCODING
    };
    let mut headers = HeaderMap::with_capacity(asked.headers.len() + 4);
    for (name, value) in asked.headers.iter().filter(|(name, _)| theirs(name)) {
        headers.append(name.clone(), value.clone());
    }
    // It was read as JSON, whatever the client called it.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    asked.place.context.inject(&mut headers);
    headers
}

pub(crate) async fn send(state: &Arc<State>, asked: &Asked, dispatch: &Dispatch, ticket: &mut Ticket) -> Sent {
    let Some(engine) = state.engines.get(dispatch.instance) else {
        // Its endpoint is unusable: said when it was declared.
        return Sent::Elsewhere(Failure::Unreached);
    };
    ticket.dispatched(dispatch, &engine);
    state.begin(
        ticket.id,
        asked.tenant.clone(),
        asked.prompt_tokens,
        !asked.head.stream || cascade::is_gated(asked, dispatch),
        dispatch,
        &engine,
    );
    let mut body = asked.body.clone();
    if asked.head.model != engine.model {
        body = with_model(&body, &engine.model).unwrap_or(body);
    }
    if asked.head.needs_stream_usage() {
        body = with_stream_usage(&body).unwrap_or(body);
    }
    if cascade::is_gated(asked, dispatch) && !asked.wants_logprobs() {
        body = with_logprobs(&body).unwrap_or(body);
    }
    let mut request = http::Request::new(full_body(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(asked.head.endpoint.path());
    *request.headers_mut() = engine_headers(asked);
    match engine.client.send(request).await {
        Ok(response) if task::may_be_lacking(response.status()) => {
            Box::pin(task::judge(engine, asked.head.endpoint, response)).await
        }
        Ok(response) => match verdict_on(response.status()) {
            Some(failure) => {
                tracing::warn!(instance = engine.name, status = %response.status(), "the engine failed a request");
                Sent::Elsewhere(failure)
            }
            None => match receive(engine, response).await {
                Sent::Answered(answer) if asked.head.endpoint == Endpoint::Responses => responses::begun(answer).await,
                sent => sent,
            },
        },
        Err(problem) => not_sent(&engine, &problem),
    }
}

/// Whose fault a status is. What the router has parsed and addressed itself cannot be unknown, forbidden or moved by the
/// client's fault: that is an engine which serves something else than was declared.
pub(crate) fn verdict_on(status: StatusCode) -> Option<Failure> {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(Failure::Overloaded),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Some(Failure::Unreached)
        }
        status if status.is_redirection() || status.is_informational() => Some(Failure::Unreached),
        status if status.is_server_error() => Some(Failure::Errored),
        _ => None,
    }
}

/// Waits for the whole answer, or for the first chunk of a stream: until then nothing was shown to the client, and a
/// failure can go elsewhere.
async fn receive(engine: Arc<Engine>, response: http::Response<EngineBody>) -> Sent {
    let (head, mut body) = response.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let problem = if head.status.is_success() && is_stream {
        match tokio::time::timeout(FIRST_CHUNK_TIMEOUT, body.frame())
            .await
            .unwrap_or_default()
        {
            Some(Ok(frame)) => {
                let first = frame.into_data().unwrap_or_default();
                return Sent::Answered(Answer {
                    engine,
                    head,
                    content: Content::Stream(first, Box::new(body)),
                });
            }
            Some(Err(problem)) => problem.to_string(),
            None => "it is empty, or nothing came for minutes".to_owned(),
        }
    } else {
        match tokio::time::timeout(WHOLE_ANSWER_TIMEOUT, Limited::new(body, MAX_ANSWER_BYTES).collect()).await {
            Ok(Ok(content)) => {
                return Sent::Answered(Answer {
                    engine,
                    head,
                    content: Content::Whole(content.to_bytes()),
                });
            }
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "it did not end".to_owned(),
        }
    };
    tracing::warn!(
        instance = engine.name,
        "an answer broke off before it was shown: {problem}"
    );
    Sent::Elsewhere(Failure::Unreached)
}

fn not_sent(engine: &Engine, problem: &BackendError) -> Sent {
    tracing::warn!(instance = engine.name, "{problem}");
    match problem.retry() {
        Retry::Free | Retry::MayRepeatWork => Sent::Elsewhere(Failure::Unreached),
        Retry::Useless => Sent::Failed(ErrorResponse::upstream_failed("The engine could not be asked.").into()),
    }
}

/// The head of an answer, with what was decided.
fn decided_head(state: &State, dispatch: &Dispatch, answer: &mut Answer, explain: bool) -> http::response::Builder {
    let mut response = http::Response::builder().status(answer.head.status);
    if let Some(headers) = response.headers_mut() {
        *headers = std::mem::take(&mut answer.head.headers);
        equipoise_backend::strip_hop_by_hop(headers);
        headers.remove(header::CONTENT_LENGTH);
        let engine = &answer.engine;
        decided(
            headers,
            &engine.name,
            &engine.model,
            &state.decision_name(dispatch.decision),
        );
        if explain && let Some(explanation) = state.explanation_header(dispatch.decision) {
            headers.insert("x-equipoise-explanation", explanation);
        }
        if dispatch.explored {
            headers.insert("x-equipoise-explored", HeaderValue::from_static("1"));
        }
        if dispatch.waited_s > 0.0
            && let Ok(waited) = HeaderValue::from_str(&format!("{:.1}", dispatch.waited_s * 1e3))
        {
            headers.insert("x-equipoise-waited-ms", waited);
        }
    }
    response
}

fn pass_on(
    state: &Arc<State>,
    asked: &Asked,
    dispatch: &Dispatch,
    mut answer: Answer,
    mut ticket: Ticket,
    replaced: Option<&Held>,
) -> ClientResponse {
    let mut head = decided_head(state, dispatch, &mut answer, headers::wants_explanation(&asked.headers));
    ticket.answered(answer.head.status);
    if let Content::Whole(content) | Content::Complete(content, _) = &answer.content {
        ticket.passed(content.len());
    }
    if let Some(first) = replaced {
        let decision = state.decision_name(first.dispatch.decision);
        head = head
            .header("x-equipoise-first-decision-id", decision)
            .header("x-equipoise-first-confidence", first.confidence());
    }
    if asked.head.endpoint == Endpoint::Responses && answer.head.status.is_success() {
        let (instance, tenant) = (dispatch.instance, asked.tenant.as_deref());
        state
            .responses
            .note_answer(instance, &answer.engine, tenant, &answer.content);
    }
    let body = match answer.content {
        Content::Stream(first, rest) => {
            let running = state.running(ticket.id);
            let hide_usage = asked.head.needs_stream_usage();
            RelayBody::new(first, rest, ticket, running, hide_usage, state.driver.now()).boxed_unsync()
        }
        Content::Complete(content, usage) if answer.head.status.is_success() => {
            ticket.finish(usage);
            whole(content)
        }
        Content::Whole(content) | Content::Complete(content, _) => {
            if answer.head.status.is_success() && asked.head.endpoint.task() == Task::Tokens {
                ticket.finish_without_work();
            } else if answer.head.status.is_success() {
                ticket.finish(Usage::from_body(&content));
            } else {
                // The engine found fault with the request: nobody's failure, and nothing to learn from.
                let id = ticket.id;
                ticket.end(Outcome::Refused, Some(Event::Cancelled { request: id }), None);
            }
            whole(content)
        }
    };
    head.body(body).unwrap_or_else(|_| unbuildable())
}

fn unbuildable() -> ClientResponse {
    error(&ErrorResponse::internal("the answer's head could not be built"))
}
