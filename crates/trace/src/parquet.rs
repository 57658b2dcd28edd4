//! Workloads as Parquet: our own columns, in row groups, read and written a batch at a time.
//!
//! | column | type | what it is |
//! | --- | --- | --- |
//! | `arrival_ns` | required uint64 | arrival, nanoseconds from the start |
//! | `prompt_tokens` | required uint32 | prompt length |
//! | `output_tokens` | required uint32 | answer length |
//! | `tenant` | optional string | who asks |
//! | `prefix_blocks` | optional list of required uint64 | ids of the prompt's leading blocks |
//! | `prompt_id` | optional string | which prompt of a set it carries |
//!
//! The last three may be missing from a file, and other columns are ignored. Signed integers, and 64 bits for 32, are
//! taken as well: other writers have no unsigned ones.

mod read;
mod write;

pub(crate) use read::ParquetSource;
pub(crate) use write::ParquetSink;

/// A batch that is decoded or encoded at once, requests.
const BATCH_REQUESTS: usize = 8192;
/// Requests of one row group that is written.
const ROW_GROUP_REQUESTS: usize = 8 * BATCH_REQUESTS;

const SCHEMA: &str = "message workload {
    required int64 arrival_ns (INTEGER(64, false));
    required int32 prompt_tokens (INTEGER(32, false));
    required int32 output_tokens (INTEGER(32, false));
    optional binary tenant (STRING);
    optional group prefix_blocks (LIST) {
        repeated group list {
            required int64 element (INTEGER(64, false));
        }
    }
    optional binary prompt_id (STRING);
}";

#[cfg(test)]
mod tests;
