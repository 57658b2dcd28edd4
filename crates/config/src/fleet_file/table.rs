//! The tables of a fleet file, key by key; values keep their place in the text.

use std::collections::BTreeMap;

use equipoise_engine::{LinkSpec, Precision, PrefillSpec, Sleep, SpeculativeSpec};
use equipoise_policy::Capability;
use equipoise_scheduler::{SchedulerConfig, TenantSettings};
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::services::{AgentSection, ControlPlaneSection, RouterSection, TracingSection};
use crate::{EngineTlsSettings, PiiSettings, TlsSettings};

/// A configuration file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTable {
    /// How requests are placed.
    #[schemars(with = "Option<SchedulerConfig>")]
    pub(crate) scheduler: Option<Spanned<SchedulerConfig>>,
    /// What is done with personal data.
    pub(crate) pii: Option<PiiSettings>,
    /// Certificates of a router's public listener.
    pub(crate) tls: Option<TlsSettings>,
    /// Certificates of a router's gRPC listener.
    pub(crate) grpc_tls: Option<TlsSettings>,
    /// How engines with an `https://` endpoint are spoken to.
    pub(crate) engine_tls: Option<EngineTlsSettings>,
    /// What holds for tenants, by name.
    #[schemars(with = "Option<BTreeMap<String, TenantSettings>>")]
    pub(crate) tenants: Option<Spanned<BTreeMap<String, TenantSettings>>>,
    /// The router.
    #[schemars(with = "Option<RouterSection>")]
    pub(crate) router: Option<Spanned<RouterSection>>,
    /// The control plane.
    pub(crate) control_plane: Option<ControlPlaneSection>,
    /// The node agents.
    pub(crate) agent: Option<AgentSection>,
    /// Spans for OpenTelemetry.
    pub(crate) tracing: Option<TracingSection>,
    /// Models that are served.
    #[serde(default, rename = "model")]
    pub(crate) models: Vec<ModelTable>,
    /// Instances that an operator scales and drains together.
    #[serde(default, rename = "pool")]
    pub(crate) pools: Vec<PoolTable>,
}

/// `[[model]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelTable {
    #[schemars(with = "String")]
    pub(crate) name: Spanned<String>,
    /// In the built-in catalogue; guessed from the name where it is left out.
    #[schemars(with = "Option<String>")]
    pub(crate) architecture: Option<Spanned<String>>,
    /// Mean probability of a good answer, as far as its operator knows.
    #[schemars(with = "Option<f64>", range(min = 0.0, max = 1.0))]
    pub(crate) quality: Option<Spanned<f64>>,
    /// Longest prompt and answer together.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) context_tokens: Option<Spanned<u32>>,
    #[schemars(with = "Option<PriceTable>")]
    pub(crate) price: Option<Spanned<PriceTable>>,
    /// Mean answer length before any was seen.
    #[schemars(with = "Option<f64>", range(min = 1.0))]
    pub(crate) mean_output_tokens: Option<Spanned<f64>>,
}

/// US dollars per million tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceTable {
    pub(crate) input_usd_per_mtok: f64,
    pub(crate) output_usd_per_mtok: f64,
}

/// `[[pool]]`
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolTable {
    #[schemars(with = "String")]
    pub(crate) name: Spanned<String>,
    /// The name of a `[[model]]`.
    #[schemars(with = "String")]
    pub(crate) model: Spanned<String>,
    /// Type of GPU in the built-in catalogue.
    #[schemars(with = "Option<String>")]
    pub(crate) gpu: Option<Spanned<String>>,
    /// GPUs of an instance.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) tensor_parallel: Option<Spanned<u32>>,
    /// So many emulated instances.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) count: Option<Spanned<u32>>,
    /// Base URLs of real engines.
    #[schemars(with = "Option<Vec<String>>")]
    pub(crate) endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    /// The engines' limits.
    #[serde(default)]
    pub(crate) limits: LimitsTable,
    /// What placement can ask for.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// What the engines can do; absent: everything.
    #[schemars(with = "Option<Vec<Capability>>")]
    pub(crate) capabilities: Option<Spanned<Vec<Capability>>>,
    /// Each instance's devices: NVML UUIDs or indices.
    #[schemars(with = "Option<Vec<Vec<String>>>")]
    pub(crate) gpus: Option<Spanned<Vec<Vec<String>>>>,
    /// An opaque emulated box that takes so long for any request.
    #[schemars(with = "Option<f64>", range(min = 1.0, max = 3_600_000.0))]
    pub(crate) service_ms: Option<Spanned<f64>>,
    /// Speed and energy from a table of measured tiers.
    #[schemars(with = "Option<String>")]
    pub(crate) measured: Option<Spanned<String>>,
    /// The engine that serves it, in the built-in catalogue.
    #[schemars(with = "Option<String>")]
    pub(crate) runtime: Option<Spanned<String>>,
    /// Number format of the weights: `bf16`, `fp8`, `int8`, `int4` (`awq`, `gptq`), `fp4`, `mxfp4`.
    #[schemars(with = "Option<String>")]
    pub(crate) weights: Option<Spanned<Precision>>,
    /// Number format of the KV cache.
    #[schemars(with = "Option<String>")]
    pub(crate) kv_cache: Option<Spanned<Precision>>,
    /// Stages of the pipeline.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) pipeline_parallel: Option<Spanned<u32>>,
    /// Replicas behind one endpoint.
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) data_parallel: Option<Spanned<u32>>,
    /// Experts are spread over the GPUs.
    #[schemars(with = "Option<bool>")]
    pub(crate) expert_parallel: Option<Spanned<bool>>,
    /// Between its GPUs.
    #[schemars(with = "Option<LinkSpec>")]
    pub(crate) link: Option<Spanned<LinkSpec>>,
    /// Speculative decoding.
    #[schemars(with = "Option<SpeculativeSpec>")]
    pub(crate) speculative: Option<Spanned<SpeculativeSpec>>,
    /// Prompts are computed elsewhere.
    #[schemars(with = "Option<PrefillSpec>")]
    pub(crate) prefill: Option<Spanned<PrefillSpec>>,
    /// It goes to sleep without work.
    #[schemars(with = "Option<Sleep>")]
    pub(crate) sleep: Option<Spanned<Sleep>>,
}

/// An engine's limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsTable {
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) max_num_seqs: Option<Spanned<u32>>,
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) max_num_batched_tokens: Option<Spanned<u32>>,
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) block_tokens: Option<Spanned<u32>>,
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub(crate) num_gpu_blocks: Option<Spanned<u32>>,
}
