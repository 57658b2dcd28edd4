//! The state machine: admission, queueing, dispatch, retry, drain.
//!
//! [`Scheduler::on_event`] takes what happened and when, and answers with what to do; [`Scheduler::next_wakeup`] says
//! when it wants to be called again. It owns the fleet's state, holds no clock, no lock and no task, and draws from one
//! seeded stream: the same events give the same actions, live, replayed and simulated. Does not belong here: carrying
//! actions out, and scores.

mod cascade;
mod config;
mod event;
mod explanation;
mod exploration;
mod hedge;
mod improvement;
mod key_hash;
mod outcome;
mod placement;
mod prefix;
mod prospect;
mod queue;
mod retry;
mod roster;
mod scheduler;
mod standing;
mod tenants;

pub use cascade::{CascadeSettings, Gate};
pub use config::SchedulerConfig;
pub use equipoise_policy::{Prefix, Request, Target, Weights, Wishes};
pub use event::{Action, Dispatch, Event, Failure, Refusal, TokenUsage};
pub use explanation::Explanation;
pub use exploration::ExplorationSettings;
pub use hedge::HedgeSettings;
pub use key_hash::{KeyHash, KeyHashError};
pub use outcome::{FeedbackError, Judgement};
pub use prefix::PrefixSettings;
pub use retry::RetrySettings;
pub use scheduler::{Scheduler, Sight};
pub use tenants::TenantSettings;
