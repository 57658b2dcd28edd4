//! Workloads and event logs: what was asked of a fleet, and what its scheduler did.
//!
//! A *workload* is a list of requests with arrival times and sizes, read from a published trace or generated. An *event
//! log* is every event that a scheduler was given with every action that it answered, so that a run can be replayed.
//! A *graded set* is prompts with what several models made of them, for predictors to learn from. Readers of traces
//! and logs take one line at a time and keep no more than that in memory; every reader names file and line in its errors.
//! State: nobody's, these are files. Does not belong here: what a simulator makes of a workload, Parquet ledgers.

mod error;
mod event_log;
mod generate;
mod labels;
mod lines;
mod workload;

pub use error::TraceError;
pub use event_log::{EventLogHeader, EventLogReader, EventLogWriter, LoggedEvent};
pub use generate::{GeneratorError, Lengths, WorkloadGenerator};
pub use labels::{GradedFormat, GradedPrompt, GradedSet};
pub use workload::{
    MOONCAKE_BLOCK_TOKENS, Malformed, ReadOptions, Workload, WorkloadFormat, WorkloadReader, WorkloadRecord,
    write_workload,
};
