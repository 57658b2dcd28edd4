//! What goes into the scheduler and what comes out of it: closed lists, the same live and simulated.
//!
//! These types are also the event log: they are written as JSON lines by `--record` and read by `replay`.

use equipoise_estimate::Estimate;
use equipoise_fleet::FleetDelta;
use equipoise_policy::Request;
use equipoise_types::{DecisionId, InstanceId, RequestId};
use serde::{Deserialize, Serialize};

use crate::{Gate, SchedulerConfig};

/// Something that happened. The driver says when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "events pass by one at a time; a box would only be in the way"
)]
pub enum Event {
    /// Requests arrived: whatever came while the previous decision ran.
    Arrived(Vec<Request>),
    /// The first answer token of a dispatched request came.
    FirstToken {
        /// Which.
        request: RequestId,
    },
    /// More answer tokens came (after the first).
    Tokens {
        /// Of which request.
        request: RequestId,
        /// How many.
        count: u32,
    },
    /// A dispatched request was answered in full.
    Finished {
        /// Which.
        request: RequestId,
        /// What the engine counted, if it said so.
        usage: Option<TokenUsage>,
    },
    /// A request with a gate was answered in full, and the answer is held back: how sure it is of itself. The scheduler
    /// answers with `Deliver` or, where it is not sure enough, with the dispatch to a better model.
    Judged {
        /// Which.
        request: RequestId,
        /// [0, 1]: the geometric mean of its tokens' probabilities.
        confidence: f64,
        /// What the engine counted, if it said so.
        usage: Option<TokenUsage>,
    },
    /// A dispatched request is late, and nothing of it was seen: it is to go out a second time. The scheduler answers with a
    /// dispatch of the twin or its refusal; from then on they are two, and each ends by itself.
    Hedged {
        /// Which.
        request: RequestId,
        /// The id that the second one goes by.
        twin: RequestId,
    },
    /// A dispatched request failed at the instance.
    Failed {
        /// Which.
        request: RequestId,
        /// How.
        failure: Failure,
    },
    /// The client went away, queued or dispatched.
    Cancelled {
        /// Which.
        request: RequestId,
    },
    /// The fleet changed, or was observed.
    Fleet(FleetDelta),
    /// Other settings hold from now on. Checked by whoever sends them: nonsense changes nothing.
    Configured {
        /// All of them; seed and prefixes stay as they were.
        config: Box<SchedulerConfig>,
    },
    /// Somebody says how good the answer to a decision was. Once for each; what comes too late changes nothing.
    Feedback {
        /// Which decision.
        decision: DecisionId,
        /// [0, 1]: 0 bad, 1 good.
        score: f64,
    },
    /// The time of `next_wakeup` has come.
    Timer,
}

/// Token counts as the engine reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Answer tokens.
    pub output_tokens: u32,
}

/// How a dispatched request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The instance could not be reached, or broke off before any answer byte reached the client: may go elsewhere.
    Unreached,
    /// The instance answered with a server error. Its own fault or the request's: a second opinion tells. It goes
    /// elsewhere once; answered there, the first is blamed, failed there as well, the request is.
    Errored,
    /// The instance answered that it has no room (429, 503): may go elsewhere, and it is not a fault.
    Overloaded,
    /// It failed after the client had seen something, or in a way that would repeat: final.
    Final,
}

/// Something the driver must do. Already booked in the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send the request to the instance. The driver answers with exactly one of `Finished`, `Failed`, `Cancelled`.
    Dispatch(Dispatch),
    /// The request waits at the router: every suitable instance is saturated.
    Queue {
        /// Which.
        request: RequestId,
        /// How many wait before it.
        ahead: u32,
    },
    /// Show the answer that was held back: it passed its gate, or nobody better can take over now. The request has ended.
    Deliver {
        /// Which.
        request: RequestId,
    },
    /// The request will not be served.
    Refuse {
        /// Which.
        request: RequestId,
        /// Why, and what the client can do.
        reason: Refusal,
    },
}

/// One decision, carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Which request.
    pub request: RequestId,
    /// Numbered in order.
    pub decision: DecisionId,
    /// Where it goes.
    pub instance: InstanceId,
    /// 1 for the first try.
    pub attempt: u32,
    /// What was predicted.
    pub estimate: Estimate,
    /// The policy's score, where it has one: higher is better.
    pub score: Option<f64>,
    /// Seconds it waited at the router.
    pub waited_s: f64,
    /// True where it went elsewhere than the policy had chosen, to learn about a model; see
    /// [`ExplorationSettings`](crate::ExplorationSettings).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explored: bool,
    /// What the answer must pass before it is shown, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// Why a request is not served. Its text names the place and the mend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Nobody serves this model.
    #[error("the model `{model}` does not exist; served here: {served}; or ask for `auto`")]
    UnknownModel {
        /// As asked for.
        model: String,
        /// What is served, comma-separated.
        served: String,
    },
    /// No instance passes the hard constraints, and waiting will not change that.
    #[error("no instance can take this request: {reasons}")]
    Infeasible {
        /// How many instances failed which constraint.
        reasons: String,
    },
    /// No instance is registered, or none is healthy.
    #[error("no healthy instance is available for this request: {reasons}; retry in a moment")]
    Unavailable {
        /// What is wrong with those there are.
        reasons: String,
    },
    /// The queue is full.
    #[error("the router's queue is full ({limit} waiting); retry in {retry_after_s} s")]
    QueueFull {
        /// The bound.
        limit: u32,
        /// When trying again makes sense.
        retry_after_s: u32,
    },
    /// It waited too long.
    #[error("no instance became free within {waited_ms} ms; retry in {retry_after_s} s")]
    QueueTimeout {
        /// How long it waited.
        waited_ms: u64,
        /// When trying again makes sense.
        retry_after_s: u32,
    },
    /// Its SLO can no longer be met, by anybody.
    #[error(
        "the SLO cannot be met any more after {waited_ms} ms in the queue: {reasons}; retry in {retry_after_s} s, or ask for more time"
    )]
    SloMissed {
        /// How many instances failed which constraint.
        reasons: String,
        /// How long it waited.
        waited_ms: u64,
        /// When trying again makes sense.
        retry_after_s: u32,
    },
    /// The tenant has spent what it may.
    #[error("the budget of tenant `{tenant}` is spent; retry in {retry_after_s} s ({reasons})")]
    BudgetExhausted {
        /// Who.
        tenant: String,
        /// When trying again makes sense.
        retry_after_s: u32,
        /// How many instances failed which constraint.
        reasons: String,
    },
    /// Every try found the engines without room.
    #[error("the engines have no room: {attempts} refused, the last was instance {instance}; retry in a moment")]
    Overloaded {
        /// How many.
        attempts: u32,
        /// The last instance tried.
        instance: String,
    },
    /// Two instances, or the only one, answered with a server error.
    #[error(
        "{attempts} instance(s) answered this request with a server error, the last was {instance}; the request is likely at fault"
    )]
    Errored {
        /// How many.
        attempts: u32,
        /// The last instance tried.
        instance: String,
    },
    /// Every try failed.
    #[error("{attempts} attempts failed, the last at instance {instance}")]
    Exhausted {
        /// How many.
        attempts: u32,
        /// The last instance tried.
        instance: String,
    },
}

impl Refusal {
    /// A short name from a fixed set, for metrics and tables.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "unknown_model",
            Self::Infeasible { .. } => "infeasible",
            Self::Unavailable { .. } => "unavailable",
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::SloMissed { .. } => "slo_missed",
            Self::BudgetExhausted { .. } => "budget_exhausted",
            Self::Overloaded { .. } => "engines_full",
            Self::Errored { .. } => "engine_errors",
            Self::Exhausted { .. } => "attempts_exhausted",
        }
    }
}
