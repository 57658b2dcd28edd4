//! Workloads and event logs: what was asked of a fleet, and what its scheduler did.
//!
//! A *workload* is a list of requests with arrival times and sizes, read from a published trace or generated. An *event
//! log* is every event that a scheduler was given with every action that it answered, so that a run can be replayed.
//! A *graded set* is prompts with what several models made of them, for predictors to learn from. Readers and writers of
//! workloads and logs hold a bounded part of them in memory, however long they are; every reader names file and line in
//! its errors. State: nobody's, these are files. Does not belong here: what a simulator makes of a workload.

mod distribution;
mod error;
mod event_log;
mod format;
#[cfg(test)]
mod fuzz;
mod generate;
mod input;
mod labels;
mod lines;
mod order;
mod parquet;
mod reader;
mod record;
mod scale;
mod serve_gen;
mod statistics;
mod synthesis;
mod table;
mod workload;
mod writer;

pub use error::TraceError;
pub use event_log::{EventLogHeader, EventLogReader, EventLogWriter, LoggedEvent};
pub use format::{UnknownFormatName, WorkloadFormat};
pub use generate::{GeneratorError, Lengths, WorkloadGenerator};
pub use labels::{GradedFormat, GradedPrompt, GradedSet};
pub use reader::{Malformed, ReadOptions, WorkloadReader};
pub use record::{MOONCAKE_BLOCK_TOKENS, WorkloadRecord};
pub use scale::{Scaled, Scaling};
pub use serve_gen::{ServeGenClients, ServeGenOptions, ServeGenRequests};
pub use statistics::{CountSummary, PrefixSummary, TokenSummary, WorkloadStatistics, WorkloadSummary};
pub use synthesis::{Arrivals, LengthSource, Synthesis, SyntheticRequests, sample_lengths};
pub use table::{TableKind, TableValue, TableWriter, read_table};
pub use workload::Workload;
pub use writer::{WorkloadWriter, write_workload};
