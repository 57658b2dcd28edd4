//! OpenAI wire types and the SSE codec, lossless pass-through.
//!
//! Purpose: read from a request, a stream or an answer just what a decision and its accounts need, and rewrite a request
//! without touching any other byte of it. What a client or an engine sends beyond that passes through unread.
//!
//! State: only [`SseParser`] keeps any (the part of a frame that has not ended yet); its caller owns it.
//!
//! Does not belong here: sockets, servers, tasks, clocks, and any opinion on where a request should go.

mod chunk;
mod endpoint;
mod error;
mod json;
mod logprobs;
mod models;
mod prompt;
mod request;
mod rewrite;
mod skipped;
mod sse;
mod usage;

pub use chunk::{ChunkSummary, FinishReason, response_id};
pub use endpoint::{Endpoint, Task};
pub use error::{ErrorBody, ErrorCode, ErrorResponse};
pub use logprobs::{Confidence, asks_for_logprobs, with_logprobs, without_logprobs};
pub use models::{ModelCard, ModelList};
pub use prompt::PromptPart;
pub use request::{RequestError, RequestHead};
pub use rewrite::{RewriteError, with_model, with_stream_usage};
pub use sse::{DEFAULT_MAX_FRAME_BYTES, DONE, SseError, SseEvent, SseParser};
pub use usage::Usage;
