//! One request of a workload.

use equipoise_types::Timestamp;

/// Prompt tokens that one of Mooncake's `hash_ids` stands for.
pub const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// One request of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadRecord {
    /// When it arrives, from the start of the workload.
    pub arrival: Timestamp,
    /// Prompt length, tokens; at least 1.
    pub prompt_tokens: u32,
    /// Answer length, tokens; at least 1. True of the trace, unknown to a scheduler.
    pub output_tokens: u32,
    /// Ids of the prompt's leading blocks, where known: equal ids are equal text with an equal text before it.
    pub prefix_blocks: Option<Vec<u64>>,
    /// Who asks, where known.
    pub tenant: Option<String>,
    /// Which prompt of a set of prompts it carries, where one was assigned.
    pub prompt_id: Option<String>,
}
