//! First answers that are held back until it is known whether they may be shown: the whole answer is taken in, read for
//! how sure it is of itself, and kept.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use equipoise_openai::{ChunkSummary, Confidence, Endpoint, SseParser, Usage, without_logprobs};
use equipoise_scheduler::{Dispatch, Event, TokenUsage};
use equipoise_telemetry::GateOutcome;
use equipoise_types::RequestId;
use http_body_util::{BodyExt as _, Limited};

use crate::proxy::{Answer, Asked, Content, MAX_ANSWER_BYTES};

/// Longest that a held answer may take: nobody sees it growing.
const HELD_ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// An answer that is complete and was not shown.
pub(crate) struct Held {
    pub(crate) dispatch: Box<Dispatch>,
    pub(crate) answer: Answer,
    confidence: f64,
    usage: Option<Usage>,
}

/// What became of an answer with a gate.
pub(crate) enum Taken {
    /// It is held back.
    Held(Box<Held>),
    /// It says nothing of how sure it is (an error of the client's, an engine without log-probabilities): to be shown.
    Unmeasured(Answer),
    /// It broke off. Nobody has seen anything of it.
    Broken,
}

/// Whether the answer to a dispatch is held back. Only chats have log-probabilities in one form that all engines share.
pub(crate) fn is_gated(asked: &Asked, dispatch: &Dispatch) -> bool {
    dispatch.gate.is_some() && asked.head.endpoint == Endpoint::Chat
}

/// Takes the whole answer in.
pub(crate) async fn hold(asked: &Asked, dispatch: Box<Dispatch>, answer: Answer) -> Taken {
    let Answer { engine, head, content } = answer;
    let mut confidence = Confidence::default();
    let (content, usage) = match content {
        Content::Whole(body) => {
            confidence.take(&body);
            let usage = Usage::from_body(&body);
            let shown = if asked.wants_logprobs() {
                body
            } else {
                without_logprobs(&body)
            };
            (shown, usage)
        }
        Content::Stream(first, rest) => {
            let rest = tokio::time::timeout(HELD_ANSWER_TIMEOUT, Limited::new(rest, MAX_ANSWER_BYTES).collect());
            let Ok(Ok(rest)) = rest.await else {
                tracing::warn!(instance = engine.name, "a stream that was held back broke off");
                return Taken::Broken;
            };
            let chunks = [first, rest.to_bytes()];
            match read_stream(&chunks, &mut confidence, asked) {
                Some(read) => read,
                None => {
                    tracing::warn!(instance = engine.name, "a stream that was held back has no end");
                    return Taken::Broken;
                }
            }
        }
        Content::Complete(content, usage) => (content, usage),
    };
    let measured = confidence.geometric_mean().filter(|_| head.status.is_success());
    let answer = Answer {
        engine,
        head,
        content: Content::Complete(content, usage),
    };
    match measured {
        Some(confidence) => Taken::Held(Box::new(Held {
            dispatch,
            answer,
            confidence,
            usage,
        })),
        None => Taken::Unmeasured(answer),
    }
}

/// The frames of a whole stream as the client is to see them, and its counts; `None` if it did not come to its end.
fn read_stream(chunks: &[Bytes], confidence: &mut Confidence, asked: &Asked) -> Option<(Bytes, Option<Usage>)> {
    let mut parser = SseParser::default();
    let (mut shown, mut usage, mut ended, mut failed) = (BytesMut::new(), None, false, false);
    let wants_logprobs = asked.wants_logprobs();
    for chunk in chunks {
        let parsed = parser.push(chunk, |event| {
            ended |= event.is_done();
            let data = event.data.as_deref().filter(|_| !event.is_done());
            let summary = data.and_then(ChunkSummary::parse);
            if let (Some(data), Some(summary)) = (data, summary) {
                confidence.take(data);
                usage = summary.usage.or(usage);
                failed |= summary.is_error;
                if asked.head.needs_stream_usage() && summary.is_usage_only() {
                    return;
                }
                if !wants_logprobs {
                    shown.extend_from_slice(b"data: ");
                    shown.extend_from_slice(&without_logprobs(&Bytes::copy_from_slice(data)));
                    shown.extend_from_slice(b"\n\n");
                    return;
                }
            }
            shown.extend_from_slice(event.raw);
        });
        parsed.ok()?;
    }
    (ended && !failed).then(|| (shown.freeze(), usage))
}

impl Held {
    /// What the engine counted.
    pub(crate) fn usage(&self) -> Option<TokenUsage> {
        self.usage.map(|usage| TokenUsage {
            prompt_tokens: usage.prompt_tokens,
            output_tokens: usage.completion_tokens,
        })
    }

    /// Says how sure it is.
    pub(crate) fn judged(&self, request: RequestId) -> Event {
        Event::Judged {
            request,
            confidence: self.confidence,
            usage: self.usage(),
        }
    }

    /// How it comes to be shown.
    pub(crate) fn outcome(&self) -> GateOutcome {
        let passed = self.dispatch.gate.is_none_or(|gate| self.confidence >= gate.threshold);
        if passed { GateOutcome::Passed } else { GateOutcome::Kept }
    }

    /// For the answer's head.
    pub(crate) fn confidence(&self) -> String {
        format!("{:.4}", self.confidence)
    }
}
