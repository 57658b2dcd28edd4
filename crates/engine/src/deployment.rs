//! How a model is served: number formats, and under which engine.
//!
//! The constants lie in `catalogue/runtimes.toml`, with source and fit error. A deployment without an engine's name takes the
//! overheads of the GPU's own entry, which are those of vLLM of 2025 in bf16.

use serde::{Deserialize, Serialize};

use crate::gpu::{Generation, GpuSpec};
use crate::model::ModelSpec;

/// The constants of every engine that was fitted.
const CATALOGUE: &str = include_str!("../catalogue/runtimes.toml");

/// A number format of weights or of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Two bytes.
    #[default]
    Bf16,
    /// One byte (E4M3), weights and activations.
    Fp8,
    /// One byte, weights and activations (W8A8).
    Int8,
    /// Half a byte, and a two-byte scale and half a byte of zero point for 128 values (AWQ, GPTQ); computed in bf16.
    #[serde(alias = "awq", alias = "gptq")]
    Int4,
    /// Half a byte, and a scale of one byte for 16 values (NVFP4).
    Fp4,
    /// Half a byte, and a scale of one byte for 32 values; experts only, the rest stays in bf16 and so does the computing.
    Mxfp4,
}

impl Precision {
    /// Bytes of a value, its share of the scales included.
    #[must_use]
    pub fn bytes(self) -> f64 {
        match self {
            Self::Bf16 => 2.0,
            Self::Fp8 | Self::Int8 => 1.0,
            Self::Int4 => 0.5 + 2.5 / 128.0,
            Self::Fp4 => 0.5625,
            Self::Mxfp4 => 0.53125,
        }
    }

    /// Dense tensor throughput over that of bf16: what the GPU's tensor cores have of their own (vendor data sheets). A format
    /// that they lack is unpacked to bf16 and saves memory only.
    pub(crate) fn speedup(self, gpu: &GpuSpec) -> f64 {
        match self {
            Self::Fp8 if gpu.generation >= Generation::Ada => 2.0,
            Self::Int8 if gpu.generation >= Generation::Ampere => 2.0,
            Self::Fp4 if gpu.generation >= Generation::Blackwell => 4.0,
            Self::Bf16 | Self::Fp8 | Self::Int8 | Self::Int4 | Self::Fp4 | Self::Mxfp4 => 1.0,
        }
    }

    /// Of a name in fleet files; `None`: there is no such format.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Bf16, Self::Fp8, Self::Int8, Self::Int4, Self::Fp4, Self::Mxfp4];
        all.into_iter().find(|format| format.name() == name)
    }

    /// The name in fleet files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Fp4 => "fp4",
            Self::Mxfp4 => "mxfp4",
        }
    }
}

/// Which work goes into a step together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batching {
    /// Decodes first, prompts in what is left of the token budget (vLLM, TensorRT-LLM).
    #[default]
    Mixed,
    /// While there are prompts, steps of prompts alone; decodes wait (SGLang's default).
    PrefillFirst,
}

/// From here on an all-reduce is large, bytes: 2,048 tokens of a model of 70 billion. Seen in splitwise-sim's table, where twice as
/// many tokens on 4 or 8 GPUs take three times as long.
pub(crate) const LARGE_MESSAGE_BYTES: f64 = 33.6e6;

/// What an engine and its kernels reach on a certain GPU in a certain weight format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Share of the memory bandwidth that matrix products of the layers reach.
    pub bandwidth_efficiency: f64,
    /// Share of the format's own peak that they reach.
    pub flops_efficiency: f64,
    /// Share of the memory bandwidth that reading the KV cache reaches.
    pub kv_efficiency: f64,
    /// Share of the link's bandwidth that all-reduces reach.
    pub link_efficiency: f64,
    /// The same for messages over 33.6 MB between more than two GPUs.
    pub large_link_efficiency: f64,
    /// Latency of one all-reduce per doubling of the GPUs, seconds.
    pub reduce_seconds: f64,
    /// Overhead per layer and step, seconds.
    pub layer_seconds: f64,
    /// What the host needs to launch a layer's kernels, seconds: a step takes that long at least. Zero with CUDA graphs.
    pub host_layer_seconds: f64,
    /// The same, more, where several GPUs share the model.
    pub parallel_layer_seconds: f64,
    /// Overhead per sequence and step, seconds.
    pub sequence_seconds: f64,
    /// Overhead per step, seconds.
    pub step_seconds: f64,
    /// What a request spends outside of the engine's steps before its first token: HTTP, tokeniser, queues; seconds.
    pub request_seconds: f64,
    /// The same per prompt token.
    pub request_seconds_per_token: f64,
    /// The same per sequence that the engine has already.
    pub request_seconds_per_sequence: f64,
    /// What goes into a step together.
    pub batching: Batching,
}

/// What carries data from one GPU of an instance to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Bytes per second in one direction, as reached.
    pub bytes_per_second: f64,
    /// Time before the first byte, seconds.
    pub latency_seconds: f64,
}

/// Speculative decoding: so many tokens are drafted in a round and verified together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speculation {
    /// Tokens drafted in a round.
    pub draft_tokens: u32,
    /// Probability that one is accepted, [0, 1].
    pub acceptance: f64,
    /// The model that drafts, on the same GPUs; `None`: drafts cost nothing (n-gram look-up).
    pub draft: Option<&'static ModelSpec>,
}

/// How a model is served. The default: bf16 throughout, one stage, one replica, the GPU entry's own overheads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deployment {
    /// Format of the layers' weights. Embedding and output head stay in bf16, as in the published quantised models.
    pub weights: Precision,
    /// Format of the KV cache.
    pub kv_cache: Precision,
    /// The engine's constants.
    pub calibration: Option<Calibration>,
    /// Parts of the model, each on its own tensor-parallel GPUs, through which a step passes one after another; at least 1.
    pub pipeline_parallel: u32,
    /// Copies of all that behind one endpoint; at least 1. The engine's limits are those of each copy.
    pub data_parallel: u32,
    /// Whether each tensor-parallel GPU holds whole experts of a mixture rather than a part of every one.
    pub expert_parallel: bool,
    /// What joins the GPUs; `None`: the link of the GPU's catalogue entry.
    pub link: Option<Link>,
    /// Speculative decoding; `None`: one token for each pass.
    pub speculation: Option<Speculation>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            weights: Precision::Bf16,
            kv_cache: Precision::Bf16,
            calibration: None,
            pipeline_parallel: 1,
            data_parallel: 1,
            expert_parallel: false,
            link: None,
            speculation: None,
        }
    }
}

/// Why an engine's constants are not at hand.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// The catalogue is damaged.
    #[error("the catalogue of engines cannot be read: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// No such engine.
    #[error("no engine `{name}` was calibrated; there are {known}")]
    UnknownRuntime {
        /// As asked for.
        name: String,
        /// Comma-separated.
        known: String,
    },
    /// Never measured on this GPU in this format.
    #[error("{runtime} with {weights} weights on {gpu} was never calibrated; there are {known}")]
    UnknownFormat {
        /// The engine.
        runtime: String,
        /// The format.
        weights: &'static str,
        /// The GPU.
        gpu: &'static str,
        /// Comma-separated.
        known: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    #[expect(dead_code, reason = "for who reads the file")]
    source: String,
    #[expect(dead_code, reason = "for who reads the file")]
    licence: String,
    #[serde(rename = "format")]
    formats: Vec<Format>,
    #[serde(rename = "runtime")]
    runtimes: Vec<Runtime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    runtime: String,
    gpu: String,
    weights: Precision,
    bandwidth_efficiency: f64,
    flops_efficiency: f64,
    kv_efficiency: f64,
    #[serde(default)]
    host_layer_us: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Runtime {
    name: String,
    batching: Batching,
    layer_us: f64,
    parallel_layer_us: f64,
    sequence_us: f64,
    step_us: f64,
    request_ms: f64,
    request_us_per_token: f64,
    request_us_per_sequence: f64,
    reduce_us: f64,
    link_efficiency: f64,
    large_link_efficiency: Option<f64>,
}

/// The constants of `runtime` (vllm, trtllm, sglang; the catalogue has more) on `gpu` with weights of this format.
///
/// # Errors
/// When that was never measured; the message names what was.
pub fn calibration(runtime: &str, gpu: &GpuSpec, weights: Precision) -> Result<Calibration, CalibrationError> {
    let catalogue: Catalogue = toml::from_str(CATALOGUE).map_err(|error| CalibrationError::Malformed {
        reason: error.to_string(),
    })?;
    let Some(engine) = catalogue.runtimes.iter().find(|known| known.name == runtime) else {
        let known: Vec<&str> = catalogue.runtimes.iter().map(|known| known.name.as_str()).collect();
        return Err(CalibrationError::UnknownRuntime {
            name: runtime.to_owned(),
            known: known.join(", "),
        });
    };
    let is_it = |format: &&Format| format.runtime == runtime && format.gpu == gpu.name && format.weights == weights;
    let Some(format) = catalogue.formats.iter().find(is_it) else {
        let title = |format: &Format| format!("{} on {}", format.weights.name(), format.gpu);
        let of_runtime = catalogue.formats.iter().filter(|format| format.runtime == runtime);
        let known: Vec<String> = of_runtime.map(title).collect();
        return Err(CalibrationError::UnknownFormat {
            runtime: runtime.to_owned(),
            weights: weights.name(),
            gpu: gpu.name,
            known: known.join(", "),
        });
    };
    Ok(Calibration {
        bandwidth_efficiency: format.bandwidth_efficiency,
        flops_efficiency: format.flops_efficiency,
        kv_efficiency: format.kv_efficiency,
        link_efficiency: engine.link_efficiency,
        large_link_efficiency: engine.large_link_efficiency.unwrap_or(engine.link_efficiency),
        reduce_seconds: engine.reduce_us * 1e-6,
        layer_seconds: engine.layer_us * 1e-6,
        host_layer_seconds: format.host_layer_us * 1e-6,
        parallel_layer_seconds: engine.parallel_layer_us * 1e-6,
        sequence_seconds: engine.sequence_us * 1e-6,
        step_seconds: engine.step_us * 1e-6,
        request_seconds: engine.request_ms * 1e-3,
        request_seconds_per_token: engine.request_us_per_token * 1e-6,
        request_seconds_per_sequence: engine.request_us_per_sequence * 1e-6,
        batching: engine.batching,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu;

    #[test]
    fn every_entry_can_be_read_and_stays_within_what_a_gpu_can_do() {
        let catalogue: Catalogue = toml::from_str(CATALOGUE).expect("it ships");
        assert!(catalogue.formats.len() >= 5 && catalogue.runtimes.len() >= 3);
        for format in &catalogue.formats {
            let gpu = gpu(&format.gpu).expect("known");
            let found = calibration(&format.runtime, gpu, format.weights).expect("it is there");
            for share in [
                found.bandwidth_efficiency,
                found.flops_efficiency,
                found.kv_efficiency,
                found.link_efficiency,
                found.large_link_efficiency,
            ] {
                assert!(
                    share > 0.0 && share <= 1.0,
                    "{} {}: {share}",
                    format.runtime,
                    format.gpu
                );
            }
        }
    }

    #[test]
    fn what_was_never_measured_is_named() {
        let h100 = gpu("H100").expect("known");
        let error = calibration("vllm", h100, Precision::Fp4).expect_err("no fp4 on Hopper");
        assert!(error.to_string().contains("fp8 on H100"), "{error}");
        let error = calibration("tgi", h100, Precision::Bf16).expect_err("never fitted");
        assert!(error.to_string().contains("sglang"), "{error}");
    }
}
