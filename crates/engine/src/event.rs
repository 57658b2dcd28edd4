//! What goes into an engine and what comes out.

use crate::step::{StepCost, StepWork};
use equipoise_types::RequestId;
use serde::{Deserialize, Serialize};

/// A request as the engine sees it. Its output length is known: the engine model plays the answer's role too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineRequest {
    /// Its id, unique among the requests in the engine.
    pub id: RequestId,
    /// Prompt length, at least 1.
    pub prompt_tokens: u32,
    /// Output length, at least 1.
    pub output_tokens: u32,
    /// Prompt tokens whose keys and values are cached already; at least the last prompt token is computed anyway. They
    /// still take blocks: the ledger does not know which requests share them.
    pub cached_tokens: u32,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// There is nothing to compute.
    #[error("request {id} has {prompt_tokens} prompt and {output_tokens} output tokens: both must be at least 1")]
    Empty {
        /// The request.
        id: RequestId,
        /// Its prompt length.
        prompt_tokens: u32,
        /// Its output length.
        output_tokens: u32,
    },
    /// The request is in the engine already.
    #[error("request {id} is in the engine already: ids must be unique among unfinished requests")]
    Duplicate {
        /// The request.
        id: RequestId,
    },
    /// Longer than the model's context.
    #[error(
        "request {id} needs {tokens} tokens, the model's context holds {context_tokens}: shorten the prompt or the output"
    )]
    TooLongForContext {
        /// The request.
        id: RequestId,
        /// Prompt and output together.
        tokens: u64,
        /// The model's context.
        context_tokens: u32,
    },
    /// Longer than the whole KV cache.
    #[error(
        "request {id} needs {tokens} tokens of KV cache, the instance holds {capacity}: use an instance with more memory"
    )]
    TooLongForKv {
        /// The request.
        id: RequestId,
        /// Tokens that must be held at its end.
        tokens: u64,
        /// Tokens that the instance holds.
        capacity: u64,
    },
}

/// What happened to a request in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// Prefill is complete and the first token is out.
    FirstToken {
        /// The request.
        id: RequestId,
    },
    /// One more token is out.
    Token {
        /// The request.
        id: RequestId,
    },
    /// The last token was out in this step.
    Finished {
        /// The request.
        id: RequestId,
    },
    /// Its KV blocks were taken away when the step was formed; it waits at the front and will be computed again.
    Preempted {
        /// The request.
        id: RequestId,
    },
}

impl EngineEvent {
    /// Whose event it is.
    #[must_use]
    pub fn id(&self) -> RequestId {
        match *self {
            Self::FirstToken { id } | Self::Token { id } | Self::Finished { id } | Self::Preempted { id } => id,
        }
    }
}

/// A step that has begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What it does.
    pub work: StepWork,
    /// What that costs.
    pub cost: StepCost,
}

/// One request's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPart {
    /// The request.
    pub id: RequestId,
    /// Prompt tokens computed for it (recomputed ones after a preemption too).
    pub prefill_tokens: u32,
    /// Tokens decoded for it.
    pub decode_tokens: u32,
    /// Tokens of context that were read for it.
    pub kv_tokens: u32,
}

/// The state of an engine in numbers, as its metrics page would tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStats {
    /// Requests in the running batch.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// KV blocks in use.
    pub kv_used_blocks: u32,
    /// KV blocks in all.
    pub kv_blocks: u32,
    /// Share of KV blocks in use, [0, 1].
    pub kv_usage: f64,
    /// Preemptions since the start.
    pub preemptions_total: u64,
    /// Prompt tokens of requests whose prefill is complete, since the start (cached ones too).
    pub prompt_tokens_total: u64,
    /// Tokens put out since the start.
    pub generation_tokens_total: u64,
    /// Prompt tokens that are still to be computed, running and waiting.
    pub pending_prefill_tokens: u64,
    /// Tokens that are still to be put out, running and waiting.
    pub pending_decode_tokens: u64,
}
