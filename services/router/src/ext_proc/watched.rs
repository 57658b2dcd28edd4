//! An answer that passes by: what it says of tokens goes to the ledger.

use bytes::BytesMut;
use equipoise_openai::{ChunkSummary, SseParser, Usage};

use super::head::Head;
use crate::pick::Pick;

/// Longest answer in one piece that is kept to be read for its usage; of a longer one nothing is known but that it came.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The answer to a pick, as far as it has come.
pub(super) struct Watched {
    pick: Pick,
    form: Form,
    seen: Seen,
}

enum Form {
    Stream(SseParser),
    Whole(BytesMut),
    /// Compressed, too long, or no valid stream.
    Opaque,
}

#[derive(Default)]
struct Seen {
    ended: bool,
    error: bool,
    usage: Option<Usage>,
}

impl Watched {
    pub(super) fn new(pick: Pick, head: &Head) -> Self {
        let form = if head.headers.contains_key(http::header::CONTENT_ENCODING) {
            Form::Opaque
        } else if head.is_event_stream() {
            Form::Stream(SseParser::default())
        } else {
            Form::Whole(BytesMut::new())
        };
        Self {
            pick,
            form,
            seen: Seen::default(),
        }
    }

    pub(super) fn take(&mut self, chunk: &[u8]) {
        let readable = match &mut self.form {
            Form::Stream(parser) => {
                let (seen, mut tokens) = (&mut self.seen, 0);
                let parsed = parser.push(chunk, |event| {
                    seen.ended |= event.is_done();
                    let summary = event
                        .data
                        .as_deref()
                        .filter(|_| !event.is_done())
                        .and_then(ChunkSummary::parse);
                    if let Some(summary) = summary {
                        tokens += summary.content_choices;
                        seen.ended |= summary.finish_reason.is_some();
                        seen.error |= summary.is_error;
                        seen.usage = summary.usage.or(seen.usage);
                    }
                });
                self.pick.produced(tokens);
                parsed.is_ok()
            }
            Form::Whole(content) if content.len() + chunk.len() <= MAX_ANSWER_BYTES => {
                content.extend_from_slice(chunk);
                true
            }
            Form::Whole(_) => false,
            Form::Opaque => true,
        };
        if !readable {
            self.form = Form::Opaque;
        }
    }

    /// The response is complete, as HTTP sees it.
    pub(super) fn complete(self) {
        match self.form {
            // Broken off behind a gateway that ended the response nevertheless.
            Form::Stream(_) if self.seen.error || !self.seen.ended => self.pick.fail(),
            Form::Stream(_) | Form::Opaque => self.pick.finish(self.seen.usage),
            Form::Whole(content) => self.pick.finish(Usage::from_body(&content)),
        }
    }

    /// The gateway's stream ended before the response did. If all of the answer had passed, so much the better; else the client
    /// has gone.
    pub(super) fn cut_off(self) {
        if matches!(self.form, Form::Stream(_)) && self.seen.ended && !self.seen.error {
            self.pick.finish(self.seen.usage);
        }
    }
}
