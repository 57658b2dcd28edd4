//! What an operator declares about one instance.

use std::collections::BTreeMap;

use equipoise_engine::{EngineLimits, Serving};
use serde::{Deserialize, Serialize};

/// One servable engine replica, as declared: the static part of its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Unique in the cluster, stable across restarts.
    pub name: String,
    /// The pool it belongs to.
    pub pool: String,
    /// What it serves.
    pub model: ModelProfile,
    /// GPU type in the engine catalogue (`A100-80G`); `None`: unknown, nothing is assumed.
    pub gpu: Option<String>,
    /// How many GPUs serve it together; at least 1.
    pub tensor_parallel: u32,
    /// Base URL of its OpenAI-compatible server; `None` in a simulation.
    pub endpoint: Option<String>,
    /// What is known of the engine's limits.
    pub limits: LimitsSpec,
    /// Free labels, for placement constraints.
    pub labels: BTreeMap<String, String>,
    /// The GPUs it occupies on its node, NVML UUIDs or indices.
    pub gpus: Vec<String>,
    /// True where the engine is the emulator, which meters its own modelled energy.
    pub emulated: bool,
    /// Table of measured tiers that its speed and energy come from; `None`: the roofline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<String>,
    /// How it is served: number formats, parallelism, speculation, sleep; `None`: as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Serving>,
}

impl InstanceSpec {
    /// Requests that it serves at the same time, all replicas together; `None`: unknown.
    #[must_use]
    pub fn slots(&self) -> Option<u32> {
        let replicas = self.serving.as_ref().map_or(1, Serving::replicas);
        self.limits.max_num_seqs.map(|seqs| seqs.saturating_mul(replicas))
    }

    /// All its GPUs.
    #[must_use]
    pub fn gpu_count(&self) -> u32 {
        let of = |serving: &Serving| serving.gpus(self.tensor_parallel);
        self.serving.as_ref().map_or(self.tensor_parallel, of)
    }
}

/// What is declared of a served model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelProfile {
    /// The name clients ask for.
    pub name: String,
    /// Architecture in the engine catalogue (`Qwen2.5-7B`); `None`: unknown.
    pub architecture: Option<String>,
    /// Mean probability of a good answer, [0, 1]; `None`: unknown.
    pub quality: Option<f64>,
    /// Longest prompt plus answer, tokens; `None`: unknown.
    pub context_tokens: Option<u32>,
    /// What tokens cost; `None`: not priced.
    pub price: Option<Price>,
    /// Mean answer length, tokens, before any was seen; `None`: unknown.
    pub mean_output_tokens: Option<f64>,
}

impl ModelProfile {
    /// A model of which only the name is known.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            architecture: None,
            quality: None,
            context_tokens: None,
            price: None,
            mean_output_tokens: None,
        }
    }
}

/// US dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Of prompt tokens.
    pub input_usd_per_mtok: f64,
    /// Of answer tokens.
    pub output_usd_per_mtok: f64,
}

impl Price {
    /// US dollars of a request.
    #[must_use]
    pub fn usd(&self, prompt_tokens: f64, output_tokens: f64) -> f64 {
        (prompt_tokens * self.input_usd_per_mtok + output_tokens * self.output_usd_per_mtok) / 1e6
    }
}

/// Engine limits as far as they are known; see the engine's own for meanings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LimitsSpec {
    /// Most sequences in a batch.
    pub max_num_seqs: Option<u32>,
    /// Token budget of one step.
    pub max_num_batched_tokens: Option<u32>,
    /// Tokens of one KV block.
    pub block_tokens: Option<u32>,
    /// KV blocks on the GPU.
    pub num_gpu_blocks: Option<u32>,
}

impl LimitsSpec {
    /// As declared, the rest as vLLM's defaults.
    #[must_use]
    pub fn engine_limits(self) -> EngineLimits {
        let default = EngineLimits::default();
        EngineLimits {
            max_num_seqs: self.max_num_seqs.unwrap_or(default.max_num_seqs),
            max_num_batched_tokens: self.max_num_batched_tokens.unwrap_or(default.max_num_batched_tokens),
            block_tokens: self.block_tokens.unwrap_or(default.block_tokens),
            num_gpu_blocks: self.num_gpu_blocks.or(default.num_gpu_blocks),
            ..default
        }
    }
}
