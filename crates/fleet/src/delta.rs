//! How the fleet changes: what is registered, asked for and observed, one fact at a time.

use equipoise_types::Watts;
use serde::{Deserialize, Serialize};

use crate::InstanceSpec;

/// One change, or one observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "deltas are few and pass by one at a time; a box would only be in the way"
)]
pub enum FleetDelta {
    /// An instance is there, or its declaration changed.
    Upsert(InstanceSpec),
    /// An instance is gone: no new work; what runs there may still finish.
    Remove {
        /// Which.
        name: String,
    },
    /// An operator's wish.
    Admin {
        /// For which instance.
        name: String,
        /// No new work; what runs finishes.
        draining: bool,
        /// Relative share of traffic; 1 is normal, 0 means none.
        weight: f64,
    },
    /// An engine was sampled.
    Sample {
        /// Which instance.
        name: String,
        /// What it said.
        sample: EngineSample,
    },
    /// Other routers report what they have in flight.
    Peers {
        /// On which instance.
        name: String,
        /// How much.
        load: PeerLoad,
    },
}

/// What an engine said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSample {
    /// It answered, and answered well.
    pub healthy: bool,
    /// Requests in its running batch.
    pub running: u32,
    /// Requests waiting in it.
    pub waiting: u32,
    /// Share of KV blocks in use, [0, 1].
    pub kv_usage: f64,
    /// Mean draw of its GPUs since the sample before, where known.
    pub power: Option<Watts>,
    /// How old the sample was when it reached this process, seconds.
    pub age_s: f64,
}

/// What all other routers together have in flight on one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerLoad {
    /// Requests.
    pub in_flight: u32,
    /// Prompt tokens still to be computed.
    pub pending_prefill_tokens: u64,
    /// Answer tokens still expected.
    pub pending_decode_tokens: u64,
    /// Age of the oldest report in the sum, seconds.
    pub age_s: f64,
    /// Of the requests, how many have not produced a first token.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prefilling: u32,
    /// How much longer than predicted the most overdue of them has been without an answer, seconds.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub overdue_s: f64,
    /// Other routers that are alive, whether or not they have anything in flight there. 0: not said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub routers: u32,
    /// The instance's congestion price, see [`crate::CongestionPrice`]. 0: none, or not said.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub price: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_nothing(value: &f64) -> bool {
    *value == 0.0
}
