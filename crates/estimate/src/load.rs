//! What an instance is busy with, as far as an estimate needs it.

use serde::{Deserialize, Serialize};

/// Work on one instance: everybody's, as well as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceLoad {
    /// Requests sent there and not finished.
    pub in_flight: u32,
    /// Of these, how many have not produced a first token.
    pub prefilling: u32,
    /// Prompt tokens still to be computed.
    pub pending_prefill_tokens: u64,
    /// Answer tokens still expected.
    pub pending_decode_tokens: u64,
    /// Tokens held in the KV cache.
    pub kv_tokens: u64,
    /// How much longer than predicted the most overdue request has been without an answer, seconds.
    pub overdue_s: f64,
    /// Mean batch that requests of its model joined lately, wherever they were sent; 1 or less: nobody else is expected.
    #[serde(default)]
    pub company: f64,
    /// How long it has had no work, seconds, where it may have gone to sleep over that; else zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub idle_s: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl InstanceLoad {
    /// Requests that are producing tokens.
    #[must_use]
    pub fn decoding(&self) -> u32 {
        self.in_flight.saturating_sub(self.prefilling)
    }

    /// Mean answer tokens still expected per request; zero when nothing is in flight.
    #[must_use]
    pub fn mean_remaining_tokens(&self) -> f64 {
        if self.in_flight == 0 {
            0.0
        } else {
            self.pending_decode_tokens as f64 / f64::from(self.in_flight)
        }
    }
}
