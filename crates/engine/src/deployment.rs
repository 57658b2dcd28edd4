//! How a model is served: number formats, and under which engine.
//!
//! The constants lie in `catalogue/runtimes.toml`, with source and fit error. A deployment without an engine's name takes the
//! overheads of the GPU's own entry, which are those of vLLM of 2025 in bf16.

use serde::{Deserialize, Serialize};

use crate::gpu::GpuSpec;

/// The constants of every engine that was fitted.
const CATALOGUE: &str = include_str!("../catalogue/runtimes.toml");

/// A number format of weights or of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Two bytes.
    #[default]
    Bf16,
    /// One byte.
    Fp8,
    /// Half a byte, and a scale of one byte for 16 values (NVFP4).
    Fp4,
}

impl Precision {
    /// Bytes of a value, its share of the scales included.
    #[must_use]
    pub fn bytes(self) -> f64 {
        match self {
            Self::Bf16 => 2.0,
            Self::Fp8 => 1.0,
            Self::Fp4 => 0.5625,
        }
    }

    /// Dense tensor throughput over that of bf16, on GPUs that have the format (vendor data sheets).
    pub(crate) fn peak_factor(self) -> f64 {
        match self {
            Self::Bf16 => 1.0,
            Self::Fp8 => 2.0,
            Self::Fp4 => 4.0,
        }
    }

    /// The name in fleet files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Fp4 => "fp4",
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
    /// Latency of one all-reduce per doubling of the GPUs, seconds.
    pub reduce_seconds: f64,
    /// Overhead per layer and step, seconds.
    pub layer_seconds: f64,
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

/// How a model is served. The default: bf16 throughout, the GPU entry's own overheads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deployment {
    /// Format of the layers' weights. Embedding and output head stay in bf16, as in the published quantised models.
    pub weights: Precision,
    /// Format of the KV cache.
    pub kv_cache: Precision,
    /// The engine's constants.
    pub calibration: Option<Calibration>,
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
        reduce_seconds: engine.reduce_us * 1e-6,
        layer_seconds: engine.layer_us * 1e-6,
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
