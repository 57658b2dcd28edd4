//! What an instance is made of, and whether that fits.

use crate::deployment::Deployment;
use crate::gpu::GpuSpec;
use crate::model::{BYTES, ModelSpec};
use serde::{Deserialize, Serialize};

/// The limits an engine is started with, by vLLM's names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineLimits {
    /// Sequences in the running batch at most.
    pub max_num_seqs: u32,
    /// Tokens computed in one step at most, prefill and decode together.
    pub max_num_batched_tokens: u32,
    /// Tokens in one KV block.
    pub block_tokens: u32,
    /// KV blocks, where the engine reports them; else they are computed from the memory that is left.
    pub num_gpu_blocks: Option<u32>,
    /// Share of GPU memory that the engine may use.
    pub gpu_memory_utilization: f64,
}

impl Default for EngineLimits {
    /// vLLM's own defaults.
    fn default() -> Self {
        Self {
            max_num_seqs: 256,
            max_num_batched_tokens: 2048,
            block_tokens: 16,
            num_gpu_blocks: None,
            gpu_memory_utilization: 0.9,
        }
    }
}

/// A model on certain GPUs, with the engine's limits.
#[derive(Clone, Copy, Debug)]
pub struct EngineShape {
    /// The GPU type.
    pub gpu: &'static GpuSpec,
    /// The model.
    pub model: &'static ModelSpec,
    /// GPUs over which every layer is split.
    pub tensor_parallel: u32,
    /// The engine's limits.
    pub limits: EngineLimits,
    /// Number formats and engine.
    pub deployment: Deployment,
}

/// Why a shape cannot run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Nothing to run on.
    #[error("tensor_parallel is 0: set it to the number of GPUs of the instance, at least 1")]
    NoGpu,
    /// More parts than there is to share out, or none.
    #[error("{key} is {value}: it must lie between 1 and {most}")]
    BadParallelism {
        /// The key.
        key: &'static str,
        /// What was asked for.
        value: u32,
        /// The most that makes sense.
        most: u32,
    },
    /// The heads cannot be shared out evenly.
    #[error(
        "{model} has {heads} heads and {kv_heads} KV heads, which {tensor_parallel} GPUs cannot share evenly: use a tensor_parallel that divides {heads}"
    )]
    HeadsNotDivisible {
        /// The model's name.
        model: &'static str,
        /// Its query heads.
        heads: u32,
        /// Its key/value heads.
        kv_heads: u32,
        /// What was asked for.
        tensor_parallel: u32,
    },
    /// A limit that must be positive is zero.
    #[error("{limit} is 0: it must be at least 1")]
    ZeroLimit {
        /// The limit's name.
        limit: &'static str,
    },
    /// A share outside (0, 1].
    #[error("gpu_memory_utilization is {value}: it must lie above 0 and at most at 1 (vLLM's default is 0.9)")]
    BadUtilization {
        /// What was asked for.
        value: f64,
    },
    /// The weights and the engine's own memory leave no room for the KV cache.
    #[error(
        "{model} needs {need_gib:.1} GiB per GPU at tensor_parallel {tensor_parallel} and {gpu} offers {have_gib:.1} GiB: {mend}"
    )]
    DoesNotFit {
        /// The model's name.
        model: &'static str,
        /// The GPU's name.
        gpu: &'static str,
        /// What was asked for.
        tensor_parallel: u32,
        /// Weights, engine memory and one block, GiB per GPU.
        need_gib: f64,
        /// Memory times utilisation, GiB per GPU.
        have_gib: f64,
        /// What would do.
        mend: String,
    },
}

/// More replicas behind one endpoint than this is a slip of the hand.
const MOST_REPLICAS: u32 = 1024;

/// Memory of the engine beside weights and KV cache at a budget of 0 tokens: CUDA context, allocator slack, graphs.
/// From the vLLM 0.19 run of Llama-3.1-8B on an RTX 4090 that LLMServingSim publishes (2,588 blocks at utilisation 0.9 leave
/// 1.24 GB in all, of which the activations of 2,048 tokens take 0.24).
const CONTEXT_BYTES: f64 = 1.0e9;
/// NCCL buffers with more than one GPU (AIConfigurator `systems/*.yaml`: 342-392 MiB).
const NCCL_BYTES: f64 = 411e6;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

impl EngineShape {
    /// Bytes of one KV block on each GPU, that of a drafting model included.
    pub(crate) fn block_bytes(&self) -> f64 {
        let share = f64::from(self.kv_heads_per_gpu()) / f64::from(self.model.kv_heads);
        let stages = f64::from(self.deployment.pipeline_parallel);
        let own = self.model.kv_values_per_token() as f64 * share / stages;
        let drafting = self.draft().map_or(0.0, |draft| draft.kv_values_per_token() as f64);
        (own + drafting) * self.deployment.kv_cache.bytes() * f64::from(self.limits.block_tokens)
    }

    /// Bytes of all weights of a replica: tables of words in bf16, the layers in the deployment's format.
    pub(crate) fn weight_bytes(&self) -> f64 {
        let of = |model: &ModelSpec| {
            let tables = if model.tied_embeddings { 1.0 } else { 2.0 };
            let words = tables * f64::from(model.vocab) * f64::from(model.hidden);
            let experts = model.expert_parameters() as f64;
            let rest = model.parameters as f64 - words - experts;
            let weights = self.deployment.weights;
            BYTES * words + weights.bytes() * experts + weights.outside_experts().bytes() * rest
        };
        of(self.model) + self.draft().map_or(0.0, of)
    }

    fn draft(&self) -> Option<&'static ModelSpec> {
        self.deployment.speculation.and_then(|speculation| speculation.draft)
    }

    /// GPUs of one replica.
    fn gpus_of(&self, tensor_parallel: u32) -> u32 {
        tensor_parallel * self.deployment.pipeline_parallel
    }

    /// KV heads that each GPU holds; they are replicated where there are more GPUs than KV heads.
    pub(crate) fn kv_heads_per_gpu(&self) -> u32 {
        (self.model.kv_heads / self.tensor_parallel).max(1)
    }

    /// KV blocks of the instance: as given, or what memory leaves.
    pub(crate) fn kv_blocks(&self) -> Result<u32, ShapeError> {
        self.check()?;
        // Blocks that an engine reports prove that it runs; then only the weights must fit.
        if let Some(blocks) = self.limits.num_gpu_blocks {
            let weights = self.weight_bytes() / f64::from(self.gpus_of(self.tensor_parallel));
            let fits = weights <= self.gpu.memory_bytes as f64;
            return if fits { Ok(blocks) } else { Err(self.does_not_fit()) };
        }
        let blocks = self.free_bytes(self.tensor_parallel) / self.block_bytes();
        if blocks >= 1.0 {
            Ok(blocks as u32)
        } else {
            Err(self.does_not_fit())
        }
    }

    fn check(&self) -> Result<(), ShapeError> {
        let limits = &self.limits;
        for (limit, value) in [
            ("max_num_seqs", limits.max_num_seqs),
            ("max_num_batched_tokens", limits.max_num_batched_tokens),
            ("block_tokens", limits.block_tokens),
            ("num_gpu_blocks", limits.num_gpu_blocks.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(ShapeError::ZeroLimit { limit });
            }
        }
        let value = limits.gpu_memory_utilization;
        if !(value > 0.0 && value <= 1.0) {
            return Err(ShapeError::BadUtilization { value });
        }
        if self.tensor_parallel == 0 {
            return Err(ShapeError::NoGpu);
        }
        let layers = self.model.layers;
        for (key, value, most) in [
            ("pipeline_parallel", self.deployment.pipeline_parallel, layers),
            ("data_parallel", self.deployment.data_parallel, MOST_REPLICAS),
        ] {
            if !(1..=most).contains(&value) {
                return Err(ShapeError::BadParallelism { key, value, most });
            }
        }
        if !self.divides(self.tensor_parallel) {
            return Err(ShapeError::HeadsNotDivisible {
                model: self.model.name,
                heads: self.model.heads,
                kv_heads: self.model.kv_heads,
                tensor_parallel: self.tensor_parallel,
            });
        }
        Ok(())
    }

    fn divides(&self, tensor_parallel: u32) -> bool {
        let kv = self.model.kv_heads;
        self.model.heads.is_multiple_of(tensor_parallel)
            && (kv.is_multiple_of(tensor_parallel) || tensor_parallel.is_multiple_of(kv))
    }

    /// Weights and the engine's own memory, bytes per GPU.
    fn resident_bytes(&self, tensor_parallel: u32) -> f64 {
        let split = f64::from(tensor_parallel);
        let gpus = self.gpus_of(tensor_parallel);
        let weights = self.weight_bytes() / f64::from(gpus);
        let wide = self.model.experts.map_or(self.model.intermediate, |experts| {
            experts.active * experts.intermediate + experts.shared_intermediate
        });
        let widths = 4.0 * f64::from(self.model.hidden) + 3.0 * f64::from(wide) / split;
        let activations = 2.0 * f64::from(self.limits.max_num_batched_tokens) * widths;
        let nccl = if gpus > 1 { NCCL_BYTES } else { 0.0 };
        weights + activations + CONTEXT_BYTES + nccl
    }

    fn usable_bytes(&self) -> f64 {
        self.gpu.memory_bytes as f64 * self.limits.gpu_memory_utilization
    }

    fn free_bytes(&self, tensor_parallel: u32) -> f64 {
        self.usable_bytes() - self.resident_bytes(tensor_parallel)
    }

    fn does_not_fit(&self) -> ShapeError {
        let enough = [1, 2, 4, 8, 16].into_iter().find(|&split| {
            split > self.tensor_parallel && self.divides(split) && self.free_bytes(split) >= self.block_bytes()
        });
        let mend = match enough {
            Some(split) => format!("it needs at least tensor_parallel {split}, or a GPU with more memory"),
            None => "no tensor_parallel up to 16 is enough: use a GPU with more memory or a smaller model".to_owned(),
        };
        ShapeError::DoesNotFit {
            model: self.model.name,
            gpu: self.gpu.name,
            tensor_parallel: self.tensor_parallel,
            need_gib: (self.resident_bytes(self.tensor_parallel) + self.block_bytes()) / GIB,
            have_gib: self.usable_bytes() / GIB,
            mend,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gpu, model};

    fn shape(gpu_name: &str, model_name: &str, tensor_parallel: u32) -> EngineShape {
        EngineShape {
            gpu: gpu(gpu_name).expect("known"),
            model: model(model_name).expect("known"),
            tensor_parallel,
            limits: EngineLimits::default(),
            deployment: Deployment::default(),
        }
    }

    #[test]
    fn an_error_says_what_would_do() {
        let error = shape("A100-80G", "Qwen2.5-72B", 1).kv_blocks().expect_err("too large");
        assert!(error.to_string().contains("at least tensor_parallel 2"), "{error}");
        let error = shape("P100", "Llama-3.1-405B", 8).kv_blocks().expect_err("too large");
        assert!(error.to_string().contains("more memory"), "{error}");
        assert_eq!(shape("H100", "Llama-3.1-8B", 0).kv_blocks(), Err(ShapeError::NoGpu));
        assert!(matches!(
            shape("H100", "Llama-3.1-8B", 3).kv_blocks(),
            Err(ShapeError::HeadsNotDivisible { .. })
        ));
        let mut bad = shape("H100", "Llama-3.1-8B", 1);
        bad.limits.gpu_memory_utilization = f64::NAN;
        assert!(matches!(bad.kv_blocks(), Err(ShapeError::BadUtilization { .. })));
        bad.limits.gpu_memory_utilization = 0.9;
        bad.limits.num_gpu_blocks = Some(777);
        assert_eq!(bad.kv_blocks(), Ok(777));
        bad.limits.max_num_seqs = 0;
        assert!(matches!(
            bad.kv_blocks(),
            Err(ShapeError::ZeroLimit { limit: "max_num_seqs" })
        ));
    }

    /// vLLM logs for Llama-3.1-8B on an 80 GB H100 at utilisation 0.9 give about 27,000 to 28,000 blocks of 16 tokens.
    #[test]
    fn kv_capacity_is_near_what_vllm_reports() {
        let blocks = shape("H100", "Llama-3.1-8B", 1).kv_blocks().expect("fits");
        assert!((26_000..30_000).contains(&blocks), "{blocks}");
    }
}
