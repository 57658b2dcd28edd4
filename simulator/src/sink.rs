//! What a run tells of each request as it ends.

use equipoise_types::{MilliJoules, RequestId, Timestamp};
use serde::Serialize;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestEnding {
    /// Answered in full.
    Finished,
    /// Not served; the reason's short name, as in [`PolicyResult::refusals`](crate::PolicyResult::refusals).
    Refused(&'static str),
    /// Open when the run ended.
    Unfinished,
}

impl RequestEnding {
    /// A short name from a fixed set.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Refused(reason) => reason,
            Self::Unfinished => "unfinished",
        }
    }
}

/// One request that has ended. Times are as a client behind the router sees them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RequestRecord<'a> {
    /// Its number in the workload, from 0.
    pub id: RequestId,
    /// When it came to the router, from the start of the workload.
    pub arrival: Timestamp,
    /// The model that answered, or was asked last; `None` where it never left the router.
    pub model: Option<&'a str>,
    /// The instance that it was sent to last.
    pub instance: Option<&'a str>,
    /// Who asked, where known.
    pub tenant: Option<&'a str>,
    /// Prompt length, tokens.
    pub prompt_tokens: u32,
    /// Prompt tokens that the engine's cache held already.
    pub cached_tokens: u32,
    /// Answer length, tokens.
    pub output_tokens: u32,
    /// Time to first token, seconds; `None` where none came.
    pub ttft_s: Option<f64>,
    /// Time to last token, seconds; `None` where it was not answered in full.
    pub e2e_s: Option<f64>,
    /// Its share of the engines' steps, those of an answer that was replaced included.
    pub energy: MilliJoules,
    /// How it ended.
    pub ending: RequestEnding,
    /// How good the answer is, [0, 1], where that is known.
    pub quality: Option<f64>,
    /// It waited at the router.
    pub queued: bool,
    /// Its answer was cut at the end of the model's context.
    pub truncated: bool,
    /// Its first answer was replaced by a better model's.
    pub escalated: bool,
}

/// Takes requests in, each once, in the order in which they end (those that end together: in a fixed order). It keeps its own
/// errors until the run is over.
pub trait RequestSink {
    /// One request has ended.
    fn request(&mut self, record: &RequestRecord<'_>);
}

/// Keeps nothing.
impl RequestSink for () {
    fn request(&mut self, _record: &RequestRecord<'_>) {}
}

impl<F: FnMut(&RequestRecord<'_>)> RequestSink for F {
    fn request(&mut self, record: &RequestRecord<'_>) {
        self(record);
    }
}
