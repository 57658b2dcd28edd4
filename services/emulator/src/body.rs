//! Response bodies: known at once, or growing as the engine goes on.

use crate::answer::Answer;
use crate::engine_task::{AbortOnDrop, Progress};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::watch;
use tokio_stream::Stream as _;
use tokio_stream::wrappers::WatchStream;

/// The body of a response.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// All of it; `None` once it was handed out.
    Whole(Option<Bytes>),
    /// Frames of a stream.
    Tokens(Box<TokenStream>),
}

/// One stream. Dropped before its end, it takes the request out of the engine.
#[derive(Debug)]
pub(crate) struct TokenStream {
    answer: Answer,
    progress: WatchStream<Progress>,
    guard: AbortOnDrop,
    sent: u32,
    ended: bool,
}

impl TokenStream {
    pub(crate) fn new(answer: Answer, progress: watch::Receiver<Progress>, guard: AbortOnDrop) -> Self {
        Self {
            answer,
            progress: WatchStream::new(progress),
            guard,
            sent: 0,
            ended: false,
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut text = String::new();
        while text.is_empty() {
            let Some(progress) = ready!(Pin::new(&mut self.progress).poll_next(context)) else {
                self.ended = true;
                return Poll::Ready(Some(Err(io::Error::other(
                    "the engine stopped in the middle of the answer",
                ))));
            };
            self.answer.write_tokens(self.sent, progress.tokens, &mut text);
            self.sent = progress.tokens;
            if progress.finished {
                self.answer.write_end(&mut text);
                self.guard.finished();
                self.ended = true;
            }
        }
        Poll::Ready(Some(Ok(Bytes::from(text))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tokens(stream) => stream.poll_bytes(context).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Tokens(stream) => stream.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Tokens(_) => SizeHint::default(),
        }
    }
}
