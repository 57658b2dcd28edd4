//! How a model is served, as a fleet file says it: keys of a `[[pool]]`, and what they come to.

use serde::{Deserialize, Serialize};

use crate::deployment::{CalibrationError, Deployment, Link, Precision, Speculation, calibration};
use crate::gpu::{GpuSpec, gpu};
use crate::model::{ModelSpec, model};
use crate::prefill_side::PrefillSide;
use crate::rest::Sleep;
use crate::step::StepModel;
use crate::{EngineLimits, EngineShape, MeasuredError, ShapeError, measured_tier};

/// Longest draft that makes sense: beyond, nearly every token of it is refused.
const MOST_DRAFT_TOKENS: u32 = 32;

/// Everything about an instance's engine beyond model, GPU, tensor parallelism and limits. What is left out is the default: bf16,
/// one stage, one replica, no speculation, prompts where the answers are, never asleep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serving {
    /// Engine of the catalogue whose overheads and efficiencies hold (`vllm`, `trtllm`, `sglang`); left out: those of the GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Format of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Precision>,
    /// Format of the KV cache: `bf16`, `fp8` or `int8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<Precision>,
    /// Stages through which a step passes one after another, each on `tensor_parallel` GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_parallel: Option<u32>,
    /// Replicas behind the instance's one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_parallel: Option<u32>,
    /// Whether each GPU holds whole experts of a mixture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert_parallel: Option<bool>,
    /// What joins the GPUs of a replica, where it is not the catalogue's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkSpec>,
    /// Speculative decoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speculative: Option<SpeculativeSpec>,
    /// Other GPUs that compute the prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill: Option<PrefillSpec>,
    /// When it goes to sleep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Sleep>,
}

/// A link between GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Bandwidth in one direction as reached, 10^9 bytes per second.
    pub gbytes_per_s: f64,
    /// Time before the first byte, microseconds.
    #[serde(default = "usual_latency_us")]
    pub latency_us: f64,
}

fn usual_latency_us() -> f64 {
    10.0
}

/// Speculative decoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeculativeSpec {
    /// Tokens drafted in a round.
    pub draft_tokens: u32,
    /// Probability that a drafted token is accepted.
    pub acceptance: f64,
    /// Architecture of the drafting model; left out: drafts cost nothing (n-gram look-up).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
}

/// The prompts' side of an instance whose answers come from elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefillSpec {
    /// GPU type of the catalogue.
    pub gpu: String,
    /// Engines that compute prompts, one prompt at a time each.
    pub count: u32,
    /// GPUs of one.
    #[serde(default = "one")]
    pub tensor_parallel: u32,
    /// Bandwidth to the answers' side, 10^9 bytes per second (50: 400 Gb/s InfiniBand).
    #[serde(default = "infiniband_gbytes_per_s")]
    pub gbytes_per_s: f64,
    /// Time before the first byte, microseconds.
    #[serde(default = "usual_latency_us")]
    pub latency_us: f64,
}

fn one() -> u32 {
    1
}

fn infiniband_gbytes_per_s() -> f64 {
    50.0
}

/// Why a declared engine has no step model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ServingError {
    /// Not in the catalogue.
    #[error("the engine catalogue has no model `{0}`")]
    UnknownModel(String),
    /// Not in the catalogue.
    #[error("the engine catalogue has no GPU `{0}`")]
    UnknownGpu(String),
    /// A key's value makes no sense.
    #[error("{key}: {problem}")]
    Key {
        /// The key of the pool.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The engine was never calibrated so.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The shape does not run.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The tier was not measured.
    #[error(transparent)]
    Measured(#[from] MeasuredError),
}

impl ServingError {
    /// The key of the pool that it is about; `None`: the pool as a whole.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Key { key, .. } => Some(key),
            Self::Calibration(_) => Some("runtime"),
            Self::Shape(ShapeError::BadParallelism { key, .. }) => Some(key),
            Self::UnknownModel(_) | Self::UnknownGpu(_) | Self::Shape(_) | Self::Measured(_) => None,
        }
    }
}

fn wrong<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ServingError> {
    let problem = problem.into();
    Err(ServingError::Key { key, problem })
}

fn link(key: &'static str, gbytes_per_s: f64, latency_us: f64) -> Result<Link, ServingError> {
    let positive = gbytes_per_s.is_finite() && gbytes_per_s > 0.0;
    if !positive || !(0.0..=1e6).contains(&latency_us) {
        return wrong(
            key,
            format!(
                "gbytes_per_s is {gbytes_per_s} and latency_us {latency_us}: the first must be above 0, the second between 0 and \
                 1000000"
            ),
        );
    }
    Ok(Link {
        bytes_per_second: gbytes_per_s * 1e9,
        latency_seconds: latency_us * 1e-6,
    })
}

impl Serving {
    /// Whether nothing is declared.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// GPUs of an instance, where each replica's stage has `tensor_parallel`; those that compute its prompts included.
    #[must_use]
    pub fn gpus(&self, tensor_parallel: u32) -> u32 {
        let prompts = self
            .prefill
            .as_ref()
            .map_or(0, |side| side.count.saturating_mul(side.tensor_parallel));
        tensor_parallel
            .saturating_mul(self.pipeline_parallel.unwrap_or(1))
            .saturating_mul(self.replicas())
            .saturating_add(prompts)
    }

    /// Replicas behind the endpoint, at least 1.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.data_parallel.unwrap_or(1).max(1)
    }

    /// As it travels between processes; empty where nothing is declared.
    #[must_use]
    pub fn to_text(&self) -> String {
        // All keys have a form in TOML, so this cannot fail; nothing declared is what a reader makes of an empty text.
        toml::to_string(self).unwrap_or_default()
    }

    /// The way back; `None` where nothing is declared.
    ///
    /// # Errors
    /// When the text is no such declaration, as one of a later version may be.
    pub fn from_text(text: &str) -> Result<Option<Self>, ServingError> {
        match toml::from_str::<Self>(text) {
            Ok(serving) => Ok((!serving.is_default()).then_some(serving)),
            Err(error) => wrong("serving", error.message()),
        }
    }

    fn deployment(&self, gpu: &GpuSpec, model: &ModelSpec) -> Result<Deployment, ServingError> {
        let weights = self.weights.unwrap_or_default();
        let kv_cache = self.kv_cache.unwrap_or_default();
        if !matches!(kv_cache, Precision::Bf16 | Precision::Fp8 | Precision::Int8) {
            return wrong(
                "kv_cache",
                format!("{} is no format of a KV cache: bf16, fp8 or int8", kv_cache.name()),
            );
        }
        if weights == Precision::Mxfp4 && model.experts.is_none() {
            return wrong(
                "weights",
                "mxfp4 is a format of experts, and this model has none: int4 or fp4 would do",
            );
        }
        if self.expert_parallel == Some(true) && model.experts.is_none() {
            return wrong("expert_parallel", "this model has no experts: leave it out");
        }
        let speculation = match &self.speculative {
            None => None,
            Some(declared) => Some(speculation(declared)?),
        };
        Ok(Deployment {
            weights,
            kv_cache,
            calibration: match &self.runtime {
                None => None,
                Some(runtime) => Some(calibration(runtime, gpu, weights)?),
            },
            pipeline_parallel: self.pipeline_parallel.unwrap_or(1),
            data_parallel: self.data_parallel.unwrap_or(1),
            expert_parallel: self.expert_parallel.unwrap_or(false),
            link: match self.link {
                None => None,
                Some(declared) => Some(link("link", declared.gbytes_per_s, declared.latency_us)?),
            },
            speculation,
        })
    }

    /// A measured table says what steps take; keys that would change them contradict it.
    fn check_measured(&self) -> Result<(), ServingError> {
        for (key, there) in [
            ("runtime", self.runtime.is_some()),
            ("weights", self.weights.is_some()),
            ("pipeline_parallel", self.pipeline_parallel.is_some()),
            ("expert_parallel", self.expert_parallel.is_some()),
            ("link", self.link.is_some()),
            ("speculative", self.speculative.is_some()),
        ] {
            if there {
                return wrong(
                    key,
                    "the steps of this pool are `measured`, whatever made them so: leave one of the two out",
                );
            }
        }
        Ok(())
    }
}

fn speculation(declared: &SpeculativeSpec) -> Result<Speculation, ServingError> {
    if !(1..=MOST_DRAFT_TOKENS).contains(&declared.draft_tokens) {
        let problem = format!(
            "draft_tokens is {}: it must lie between 1 and {MOST_DRAFT_TOKENS}",
            declared.draft_tokens
        );
        return wrong("speculative", problem);
    }
    if !(0.0..=1.0).contains(&declared.acceptance) {
        let problem = format!(
            "acceptance is {}: it is a probability and lies between 0 and 1",
            declared.acceptance
        );
        return wrong("speculative", problem);
    }
    let draft = match &declared.draft {
        None => None,
        Some(name) => match model(name) {
            None => {
                return wrong(
                    "speculative",
                    format!("the drafting model `{name}` is not in the engine catalogue"),
                );
            }
            known => known,
        },
    };
    Ok(Speculation {
        draft_tokens: declared.draft_tokens,
        acceptance: declared.acceptance,
        draft,
    })
}

/// An instance's engine as declared: everything that its step model depends on.
#[derive(Clone, Copy, Debug)]
pub struct DeclaredEngine<'a> {
    /// Architecture in the catalogue.
    pub model: &'a str,
    /// GPU in the catalogue.
    pub gpu: &'a str,
    /// GPUs over which every layer is split.
    pub tensor_parallel: u32,
    /// The engine's limits; with `data_parallel` those of each replica.
    pub limits: EngineLimits,
    /// Table of measured tiers that speed and energy come from.
    pub measured: Option<&'a str>,
    /// How it is served.
    pub serving: Option<&'a Serving>,
}

impl DeclaredEngine<'_> {
    /// Its step model.
    ///
    /// # Errors
    /// When something is not in the catalogue, contradicts another thing, or does not fit.
    pub fn step_model(&self) -> Result<StepModel, ServingError> {
        let model = model(self.model).ok_or_else(|| ServingError::UnknownModel(self.model.to_owned()))?;
        let board = gpu(self.gpu).ok_or_else(|| ServingError::UnknownGpu(self.gpu.to_owned()))?;
        let deployment = match self.serving {
            None => Deployment::default(),
            Some(serving) => serving.deployment(board, model)?,
        };
        let tier = match self.measured {
            None => None,
            Some(table) => {
                self.serving.map_or(Ok(()), Serving::check_measured)?;
                Some(measured_tier(table, model, board, self.tensor_parallel)?)
            }
        };
        let (mut prefill, mut sleep) = (None, None);
        if let Some(serving) = self.serving {
            if let Some(problem) = serving.sleep.and_then(|sleep| sleep.problem()) {
                return wrong("sleep", problem);
            }
            sleep = serving.sleep;
            prefill = match &serving.prefill {
                None => None,
                Some(side) => Some(self.prefill_side(side, model, deployment)?),
            };
        }
        let shape = EngineShape {
            gpu: board,
            model,
            tensor_parallel: self.tensor_parallel,
            limits: self.limits,
            deployment,
        };
        Ok(StepModel::assembled(&shape, tier.as_ref(), prefill, sleep)?)
    }

    fn prefill_side(
        &self,
        side: &PrefillSpec,
        model: &'static ModelSpec,
        deployment: Deployment,
    ) -> Result<PrefillSide, ServingError> {
        let key = "prefill";
        let Some(board) = gpu(&side.gpu) else {
            return wrong(key, format!("the engine catalogue has no GPU `{}`", side.gpu));
        };
        if !(1..=1024).contains(&side.count) {
            return wrong(key, format!("count is {}: it must lie between 1 and 1024", side.count));
        }
        let runtime = self.serving.and_then(|serving| serving.runtime.as_deref());
        let shape = EngineShape {
            gpu: board,
            model,
            tensor_parallel: side.tensor_parallel,
            limits: EngineLimits {
                num_gpu_blocks: None,
                ..self.limits
            },
            deployment: Deployment {
                weights: deployment.weights,
                kv_cache: deployment.kv_cache,
                calibration: match runtime {
                    None => None,
                    Some(runtime) => Some(calibration(runtime, board, deployment.weights)?),
                },
                ..Deployment::default()
            },
        };
        let engine = match StepModel::new(&shape) {
            Ok(engine) => engine,
            Err(error) => return wrong(key, error.to_string()),
        };
        Ok(PrefillSide {
            engine,
            count: side.count,
            link: link(key, side.gbytes_per_s, side.latency_us)?,
            kv_bytes_per_token: model.kv_values_per_token() as f64 * deployment.kv_cache.bytes(),
        })
    }
}

#[cfg(test)]
mod tests;
