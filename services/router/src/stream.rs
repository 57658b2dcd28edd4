//! Relaying a stream: frames pass as they come, and what they say of tokens goes to the ledger. Those that are there at the same
//! time go on together: a write for each would cost more than all else that is done for them.

use std::pin::{Pin, pin};
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
/// Where a chunk follows the one before so soon, others get their turn once before it goes on: by then there may be more of it.
/// No stream of single tokens is so fast.
const BURST: Duration = Duration::from_millis(1);
/// What has come goes on when it is so long.
const MOST_HELD: usize = 16 << 10;

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
    held: Held,
    /// When the engine last sent something.
    heard_at: Timestamp,
    /// The last chunk came right after the one before.
    hurries: bool,
    /// Others had their turn since something went to the client.
    gave_way: bool,
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

/// What goes to the client next. One piece is not copied.
#[derive(Default)]
struct Held {
    first: Bytes,
    joined: BytesMut,
}

impl Held {
    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn push(&mut self, bytes: Bytes) {
        if self.len() == 0 {
            self.first = bytes;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&bytes);
    }

    fn take(&mut self) -> Option<Bytes> {
        let bytes = if self.joined.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            self.joined.split().freeze()
        };
        (!bytes.is_empty()).then_some(bytes)
    }
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
            held: Held::default(),
            heard_at: now,
            hurries: false,
            // The first token waits for nobody.
            gave_way: true,
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
        if self.unsent_tokens >= TOKENS_PER_EVENT || self.heard_at.since(self.told_at) >= EVENT_INTERVAL {
            self.told_at = self.heard_at;
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
        let complete = (self.seen.done || self.seen.finish) && !self.seen.error;
        let complete = complete && problem.is_none();
        // The engine's own count at the end says more than the last few tokens would.
        if !complete || self.seen.usage.is_none() {
            self.tell();
        }
        if complete {
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

impl RelayBody {
    /// What the engine sends next; the chunk that was waited for before the head went out is the first.
    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        Pin::new(&mut self.upstream).poll_frame(cx)
    }

    /// Takes in what the engine has sent, its end included.
    fn receive(&mut self, next: Option<Result<Frame<Bytes>, hyper::Error>>) {
        let now = self.ticket.state.driver.now();
        self.hurries = now.since(self.heard_at) < BURST;
        self.heard_at = now;
        match next {
            Some(Ok(frame)) => {
                // Trailers say nothing to an OpenAI client.
                if let Ok(chunk) = frame.into_data() {
                    let forwarded = self.take(&chunk);
                    self.held.push(forwarded);
                }
            }
            Some(Err(error)) => self.end(Some(&error.to_string())),
            None => {
                self.held.push(Bytes::copy_from_slice(self.parser.rest()));
                self.end(None);
            }
        }
    }

    fn end(&mut self, problem: Option<&str>) {
        if let Some(last) = self.close(problem) {
            self.held.push(last);
        }
    }

    /// Whether what is held waits for others to have their turn, after which this is asked again.
    fn gives_way(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.hurries || std::mem::replace(&mut self.gave_way, true) {
            return false;
        }
        // Woken again when what else is ready has run and sockets were looked at.
        pin!(tokio::task::yield_now()).poll(cx).is_pending()
    }

    /// Ready when the engine has sent nothing for too long. The timer is not set anew with every chunk: it looks how long ago the
    /// last one came when it runs out.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.stall.as_mut().poll(cx));
            let silent = self.ticket.state.driver.now().since(self.heard_at);
            let Some(rest) = ENGINE_STALL_TIMEOUT.checked_sub(silent).filter(|rest| !rest.is_zero()) else {
                return Poll::Ready(());
            };
            self.stall.as_mut().reset(Instant::now() + rest);
        }
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        while !this.over && this.held.len() < MOST_HELD {
            match this.poll_engine(cx) {
                Poll::Ready(next) => this.receive(next),
                Poll::Pending if this.held.len() == 0 => {
                    if this.running.as_ref().is_some_and(|running| running.is_cut(cx)) {
                        this.end(Some(STOPPING));
                        continue;
                    }
                    ready!(this.poll_stall(cx));
                    this.end(Some("the engine sent nothing for two minutes"));
                }
                Poll::Pending if this.gives_way(cx) => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        this.gave_way = false;
        Poll::Ready(this.held.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_keeps_its_order_and_one_piece_is_not_copied() {
        let mut held = Held::default();
        assert_eq!((held.len(), held.take()), (0, None));
        let one = Bytes::from_static(b"data: 1\n\n");
        held.push(one.clone());
        let taken = held.take().expect("one piece");
        assert_eq!(taken.as_ptr(), one.as_ptr());
        for part in ["a", "", "bc", "d"] {
            held.push(Bytes::from_static(part.as_bytes()));
        }
        assert_eq!((held.len(), held.take()), (4, Some(Bytes::from_static(b"abcd"))));
        assert_eq!((held.len(), held.take()), (0, None));
        held.push(one.clone());
        assert_eq!(held.take(), Some(one));
    }
}
