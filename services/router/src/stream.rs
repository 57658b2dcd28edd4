//! Relaying a stream: frames pass as they come, and what they say of tokens goes to the ledger.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use equipoise_backend::{BoxError, EngineBody};
use equipoise_openai::{ChunkSummary, ErrorResponse, SseParser, Usage};
use equipoise_scheduler::Event;
use equipoise_types::Timestamp;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use crate::activity::Running;
use crate::ticket::Ticket;

/// Tokens reach the scheduler in batches: per token its lock would be the busiest thing in the process.
const TOKENS_PER_EVENT: u32 = 16;
const EVENT_INTERVAL: Duration = Duration::from_millis(100);
/// An engine that has begun to stream and sends nothing for so long has hung.
const ENGINE_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a stream ends that would have gone on.
const STOPPING: &str = "the router stops, and its time to drain is over";

/// The body of a streamed answer. Dropping it closes the engine's connection, which cancels the work there.
pub(crate) struct RelayBody {
    /// The chunk that was waited for before the head went out.
    first: Option<Bytes>,
    upstream: Box<EngineBody>,
    ticket: Ticket,
    running: Option<Arc<Running>>,
    parser: SseParser,
    /// The client did not ask for the counts that we asked for.
    hide_usage: bool,
    seen: Seen,
    unsent_tokens: u32,
    told_at: Timestamp,
    over: bool,
    /// Runs out when the engine sends nothing for too long.
    stall: Pin<Box<Sleep>>,
}

/// What the frames have said so far.
#[derive(Default)]
struct Seen {
    first_token: bool,
    done: bool,
    finish: bool,
    error: bool,
    usage: Option<Usage>,
}

impl RelayBody {
    pub(crate) fn new(
        first: Bytes,
        upstream: Box<EngineBody>,
        ticket: Ticket,
        running: Option<Arc<Running>>,
        hide_usage: bool,
        now: Timestamp,
    ) -> Self {
        Self {
            first: Some(first),
            upstream,
            ticket,
            running,
            parser: SseParser::default(),
            hide_usage,
            seen: Seen::default(),
            unsent_tokens: 0,
            told_at: now,
            over: false,
            stall: Box::pin(tokio::time::sleep(ENGINE_STALL_TIMEOUT)),
        }
    }

    /// Reads a chunk's frames and answers what goes to the client: all complete frames but hidden ones.
    fn take(&mut self, chunk: &Bytes) -> Bytes {
        self.ticket.passed(chunk.len());
        let (seen, hide_usage) = (&mut self.seen, self.hide_usage);
        let mut tokens = 0;
        let mut forwarded = BytesMut::new();
        let mut untouched = true;
        let mut until = 0;
        let parsed = self.parser.push(chunk, |event| {
            let summary = event
                .data
                .as_deref()
                .filter(|_| !event.is_done())
                .and_then(ChunkSummary::parse);
            seen.done |= event.is_done();
            let mut hidden = false;
            if let Some(summary) = summary {
                tokens += summary.content_choices;
                seen.finish |= summary.finish_reason.is_some();
                seen.error |= summary.is_error;
                seen.done |= summary.is_end;
                seen.usage = summary.usage.or(seen.usage);
                hidden = hide_usage && summary.is_usage_only();
            }
            match event
                .range
                .clone()
                .filter(|range| untouched && !hidden && range.start == until)
            {
                Some(range) => until = range.end,
                None => {
                    if std::mem::take(&mut untouched) {
                        forwarded.extend_from_slice(&chunk[..until]);
                    }
                    if !hidden {
                        forwarded.extend_from_slice(event.raw);
                    }
                }
            }
        });
        if parsed.is_err() {
            // No valid event stream: pass it on as it is, and count nothing any more.
            let mut rest = BytesMut::from(if untouched { &chunk[..until] } else { &forwarded[..] });
            rest.extend_from_slice(self.parser.rest());
            self.parser = SseParser::new(usize::MAX);
            return rest.freeze();
        }
        self.count(tokens);
        if untouched {
            chunk.slice(..until)
        } else {
            forwarded.freeze()
        }
    }

    fn count(&mut self, tokens: u32) {
        if tokens == 0 {
            return;
        }
        if let Some(running) = &self.running {
            running.produced(tokens);
        }
        let mut more = tokens;
        if !std::mem::replace(&mut self.seen.first_token, true) {
            self.ticket.first_token();
            more -= 1;
        }
        self.unsent_tokens += more;
        let now = self.ticket.state.driver.now();
        if self.unsent_tokens >= TOKENS_PER_EVENT || now.since(self.told_at) >= EVENT_INTERVAL {
            self.told_at = now;
            self.tell();
        }
    }

    fn tell(&mut self) {
        let count = std::mem::take(&mut self.unsent_tokens);
        if count > 0 {
            self.ticket.state.driver.on_event(Event::Tokens {
                request: self.ticket.id,
                count,
            });
        }
    }

    /// The engine's stream ended, well or badly; answers what is still to be said to the client.
    fn close(&mut self, problem: Option<&str>) -> Option<Bytes> {
        self.over = true;
        self.tell();
        let complete = (self.seen.done || self.seen.finish) && !self.seen.error;
        if problem.is_none() && complete {
            self.ticket.finish(self.seen.usage);
            return None;
        }
        self.ticket.fail();
        if self.seen.error {
            // The engine has said itself what is wrong.
            return None;
        }
        tracing::warn!(
            model = self.ticket.model,
            "a stream broke off: {}",
            problem.unwrap_or("it ended early")
        );
        let said = if problem == Some(STOPPING) {
            ErrorResponse::unavailable("The router is shutting down and cannot wait for the rest of the stream.")
        } else {
            ErrorResponse::upstream_failed("The engine's stream broke off.")
        };
        let body = said.body.to_json();
        Some(Bytes::from([b"data: ", body.as_slice(), b"\n\n"].concat()))
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if this.over {
                return Poll::Ready(None);
            }
            let next = match this.first.take() {
                Some(first) => Some(Ok(Frame::data(first))),
                None => match Pin::new(&mut this.upstream).poll_frame(cx) {
                    Poll::Ready(next) => {
                        this.stall.as_mut().reset(Instant::now() + ENGINE_STALL_TIMEOUT);
                        next
                    }
                    Poll::Pending => {
                        if this.running.as_ref().is_some_and(|running| running.is_cut(cx)) {
                            let last = this.close(Some(STOPPING));
                            return Poll::Ready(last.map(|bytes| Ok(Frame::data(bytes))));
                        }
                        ready!(this.stall.as_mut().poll(cx));
                        let last = this.close(Some("the engine sent nothing for two minutes"));
                        return Poll::Ready(last.map(|bytes| Ok(Frame::data(bytes))));
                    }
                },
            };
            match next {
                Some(Ok(frame)) => {
                    // Trailers say nothing to an OpenAI client.
                    let Ok(chunk) = frame.into_data() else { continue };
                    let forwarded = this.take(&chunk);
                    if !forwarded.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(forwarded))));
                    }
                }
                Some(Err(error)) => {
                    let last = this.close(Some(&error.to_string()));
                    return Poll::Ready(last.map(|bytes| Ok(Frame::data(bytes))));
                }
                None => {
                    let rest = Bytes::copy_from_slice(this.parser.rest());
                    let last = this.close(None);
                    let bytes = match last {
                        Some(last) => Bytes::from([&rest[..], &last[..]].concat()),
                        None => rest,
                    };
                    return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
                }
            }
        }
    }
}
