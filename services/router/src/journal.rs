//! What is told of each request when it has ended: a line of the access log, and spans where its trace is recorded. Never what
//! was asked or answered.

use std::sync::atomic::{AtomicU64, Ordering};

use equipoise_openai::{ErrorCode, ErrorResponse};
use equipoise_scheduler::{Dispatch, TokenUsage};
use equipoise_telemetry::{Outcome, TraceContext};
use equipoise_types::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::access_log::{AccessLog, Line};
use crate::engines::Engine;
use crate::server::State;
use crate::span_export::SpanQueue;
use crate::spans;

/// The header that names a request, from the client to the engine and back.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// A longer one is replaced: it would be in every log line.
const LONGEST_REQUEST_ID: usize = 128;
/// What a client wrote is cut to so many characters.
const LONGEST_MODEL: usize = 128;
/// Nginx's status for a client that closed the connection before there was an answer.
const CLIENT_CLOSED: u16 = 499;

/// By which door a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// It is proxied.
    Proxy,
    /// The gRPC route service.
    Route,
    /// A gateway's external processing.
    ExtProc,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Route => "route",
            Self::ExtProc => "ext_proc",
        }
    }
}

/// Where a request stands in a trace.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The request's own span.
    pub(crate) context: TraceContext,
    /// The caller's, if it has one.
    pub(crate) caller: Option<[u8; 8]>,
}

/// What is known of a request when it has been understood.
pub(crate) struct Opening {
    pub(crate) door: Door,
    pub(crate) request_id: String,
    pub(crate) place: Place,
    /// The API's path, from a fixed set.
    pub(crate) path: &'static str,
    pub(crate) model: String,
    pub(crate) tenant: Option<String>,
    pub(crate) stream: bool,
    pub(crate) bytes_in: u64,
}

/// A request on its way to its line.
pub(crate) struct Record {
    pub(crate) opening: Opening,
    pub(crate) decided: Option<Decided>,
    pub(crate) ttft_s: Option<f64>,
    pub(crate) bytes_out: u64,
    status: Option<u16>,
    pub(crate) code: Option<String>,
}

/// The last decision on a request.
pub(crate) struct Decided {
    pub(crate) at: Timestamp,
    pub(crate) decision: String,
    pub(crate) instance: String,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    pub(crate) attempts: u32,
    pub(crate) waited_s: f64,
    pub(crate) joules: f64,
    pub(crate) considered: Option<spans::Considered>,
}

/// How a request ended.
pub(crate) struct Closing {
    pub(crate) arrived_at: Timestamp,
    pub(crate) outcome: Outcome,
    pub(crate) usage: Option<TokenUsage>,
}

/// Where it is told.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    log: Option<AccessLog>,
    spans: Option<SpanQueue>,
    next: AtomicU64,
}

impl Journal {
    pub(crate) fn new(log: Option<AccessLog>, spans: Option<SpanQueue>) -> Self {
        Self {
            log,
            spans,
            next: AtomicU64::new(0),
        }
    }

    fn is_kept(&self) -> bool {
        self.log.is_some() || self.spans.is_some()
    }

    /// Makes sure that a request has a usable id, the client's or a new one: the engine gets it with the other headers.
    pub(crate) fn name(&self, headers: &mut HeaderMap, process: &str) -> HeaderValue {
        let usable = |value: &&HeaderValue| {
            let bytes = value.as_bytes();
            (1..=LONGEST_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        };
        if let Some(id) = headers.get(REQUEST_ID).filter(usable) {
            return id.clone();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = HeaderValue::try_from(format!("{process}-{number:x}"));
        let id = id.unwrap_or_else(|_| HeaderValue::from_static("unnamed"));
        headers.insert(REQUEST_ID, id.clone());
        id
    }

    /// The request's place in its caller's trace, or in a new one.
    pub(crate) fn place(&self, headers: &HeaderMap) -> Place {
        let ratio = self.spans.as_ref().map_or(0.0, |spans| spans.sample_ratio);
        let (context, caller) = TraceContext::accept(headers, ratio);
        Place { context, caller }
    }

    /// Begins a record, where one is kept.
    pub(crate) fn open(&self, opening: impl FnOnce() -> Opening) -> Option<Box<Record>> {
        self.is_kept().then(|| Box::new(Record::new(opening())))
    }

    /// Tells of a request that was turned away before it was understood.
    pub(crate) fn rejected(
        &self,
        state: &State,
        door: Door,
        headers: Option<HeaderMap>,
        path: &'static str,
        problem: &ErrorResponse,
    ) {
        let (Some(headers), true) = (headers, self.is_kept()) else {
            return;
        };
        let opening = Opening {
            door,
            request_id: request_id(&headers),
            place: self.place(&headers),
            path,
            model: String::new(),
            tenant: None,
            stream: false,
            bytes_in: 0,
        };
        let mut record = Box::new(Record::new(opening));
        record.said(problem);
        let closing = Closing {
            arrived_at: state.driver.now(),
            outcome: Outcome::Refused,
            usage: None,
        };
        self.close(state, record, &closing);
    }

    /// What a later rejection needs of a request's headers, where it is told at all.
    pub(crate) fn kept(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.is_kept().then(|| {
            let wanted = [REQUEST_ID, "traceparent", "tracestate"].map(HeaderName::from_static);
            let found = wanted.into_iter().filter_map(|name| {
                let value = headers.get(&name)?.clone();
                Some((name, value))
            });
            found.collect()
        })
    }

    /// Looks up what a decision considered, where its trace is recorded.
    fn considered(&self, state: &State, place: &Place, dispatch: &Dispatch) -> Option<spans::Considered> {
        if self.spans.is_none() || !place.context.is_sampled() {
            return None;
        }
        state
            .driver
            .with_scheduler(|scheduler| Some(spans::considered(scheduler, scheduler.explanation(dispatch.decision)?)))
    }

    /// Tells of a request that has ended.
    pub(crate) fn close(&self, state: &State, record: Box<Record>, closing: &Closing) {
        let now = state.driver.now();
        if let Some(queue) = &self.spans
            && record.opening.place.context.is_sampled()
        {
            for span in spans::of(state, &record, closing, now) {
                if !queue.put(span) {
                    let dropped = equipoise_telemetry::SpanOutcome::Dropped;
                    state.observing.count_spans(dropped, 1);
                }
            }
        }
        if let Some(log) = &self.log
            && !log.put(line(state, *record, closing, now))
        {
            state.observing.access_log_dropped.inc();
        }
    }
}

/// As text: it was made sure that there is one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    id.unwrap_or_default().chars().take(LONGEST_REQUEST_ID).collect()
}

impl Record {
    fn new(opening: Opening) -> Self {
        Self {
            opening,
            decided: None,
            ttft_s: None,
            bytes_out: 0,
            status: None,
            code: None,
        }
    }

    pub(crate) fn dispatched(&mut self, state: &State, dispatch: &Dispatch, engine: &Engine) {
        self.decided = Some(Decided {
            at: state.driver.now(),
            decision: state.decision_name(dispatch.decision),
            instance: engine.name.clone(),
            endpoint: engine.client.endpoint().to_owned(),
            model: engine.model.clone(),
            attempts: dispatch.attempt,
            waited_s: dispatch.waited_s,
            joules: dispatch.estimate.energy.0,
            considered: state.journal.considered(state, &self.opening.place, dispatch),
        });
    }

    /// The router answered by itself.
    pub(crate) fn said(&mut self, problem: &ErrorResponse) {
        self.status = Some(problem.status);
        self.code = match &problem.body.code {
            Some(ErrorCode::Name(name)) => Some(name.to_string()),
            Some(ErrorCode::Status(status)) => Some(status.to_string()),
            None => None,
        };
    }

    /// The engine answered.
    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// The status that the client saw, as far as the router knows it.
    pub(crate) fn status(&self, outcome: Outcome) -> u16 {
        self.status.unwrap_or(match outcome {
            Outcome::Answered => 200,
            Outcome::Cancelled => CLIENT_CLOSED,
            Outcome::Refused | Outcome::Failed => 502,
        })
    }

    /// What went wrong, for programs; nothing for an answer.
    pub(crate) fn error_code(&self, outcome: Outcome) -> Option<String> {
        let word = match outcome {
            Outcome::Answered => return None,
            Outcome::Cancelled => "cancelled",
            Outcome::Failed => "upstream_failed",
            Outcome::Refused => "refused_by_engine",
        };
        Some(self.code.clone().unwrap_or_else(|| word.to_owned()))
    }
}

fn line(state: &State, record: Record, closing: &Closing, now: Timestamp) -> Line {
    let ms = |seconds: f64| (seconds * 1e6).round() / 1e3;
    let (status, code) = (record.status(closing.outcome), record.error_code(closing.outcome));
    let Record {
        opening,
        decided,
        ttft_s,
        bytes_out,
        ..
    } = record;
    let of = |read: fn(&Decided) -> &String| decided.as_ref().map(|decided| read(decided).clone());
    Line {
        time: state.driver.unix_ns(now),
        trace_id: opening
            .place
            .context
            .is_sampled()
            .then(|| opening.place.context.trace_id()),
        request_id: opening.request_id,
        door: opening.door.name(),
        path: opening.path,
        outcome: closing.outcome.name(),
        status,
        code,
        tenant: opening.tenant,
        requested_model: opening.model.chars().take(LONGEST_MODEL).collect(),
        model: of(|decided| &decided.model),
        instance: of(|decided| &decided.instance),
        decision: of(|decided| &decided.decision),
        stream: opening.stream,
        bytes_in: opening.bytes_in,
        bytes_out,
        prompt_tokens: closing.usage.map(|usage| usage.prompt_tokens),
        output_tokens: closing.usage.map(|usage| usage.output_tokens),
        ttft_ms: ttft_s.map(ms),
        e2e_ms: ms(now.secs_since(closing.arrived_at)),
        queue_ms: decided.as_ref().map(|decided| ms(decided.waited_s)),
        joules: decided.as_ref().map(|decided| ms(decided.joules)),
        retries: decided.as_ref().map_or(0, |decided| decided.attempts.saturating_sub(1)),
    }
}
