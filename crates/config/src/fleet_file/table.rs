//! The tables of a fleet file, key by key; values keep their place in the text.

use std::collections::BTreeMap;

use equipoise_engine::{LinkSpec, Precision, PrefillSpec, Sleep, SpeculativeSpec};
use equipoise_policy::Capability;
use equipoise_scheduler::{SchedulerConfig, TenantSettings};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTable {
    pub(crate) scheduler: Option<Spanned<SchedulerConfig>>,
    pub(crate) tenants: Option<Spanned<BTreeMap<String, TenantSettings>>>,
    #[serde(default, rename = "model")]
    pub(crate) models: Vec<ModelTable>,
    #[serde(default, rename = "pool")]
    pub(crate) pools: Vec<PoolTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelTable {
    pub(crate) name: Spanned<String>,
    pub(crate) architecture: Option<Spanned<String>>,
    pub(crate) quality: Option<Spanned<f64>>,
    pub(crate) context_tokens: Option<Spanned<u32>>,
    pub(crate) price: Option<Spanned<PriceTable>>,
    pub(crate) mean_output_tokens: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceTable {
    pub(crate) input_usd_per_mtok: f64,
    pub(crate) output_usd_per_mtok: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolTable {
    pub(crate) name: Spanned<String>,
    pub(crate) model: Spanned<String>,
    pub(crate) gpu: Option<Spanned<String>>,
    pub(crate) tensor_parallel: Option<Spanned<u32>>,
    pub(crate) count: Option<Spanned<u32>>,
    pub(crate) endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(crate) limits: LimitsTable,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) capabilities: Option<Spanned<Vec<Capability>>>,
    pub(crate) gpus: Option<Spanned<Vec<Vec<String>>>>,
    pub(crate) service_ms: Option<Spanned<f64>>,
    pub(crate) measured: Option<Spanned<String>>,
    pub(crate) runtime: Option<Spanned<String>>,
    pub(crate) weights: Option<Spanned<Precision>>,
    pub(crate) kv_cache: Option<Spanned<Precision>>,
    pub(crate) pipeline_parallel: Option<Spanned<u32>>,
    pub(crate) data_parallel: Option<Spanned<u32>>,
    pub(crate) expert_parallel: Option<Spanned<bool>>,
    pub(crate) link: Option<Spanned<LinkSpec>>,
    pub(crate) speculative: Option<Spanned<SpeculativeSpec>>,
    pub(crate) prefill: Option<Spanned<PrefillSpec>>,
    pub(crate) sleep: Option<Spanned<Sleep>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsTable {
    pub(crate) max_num_seqs: Option<Spanned<u32>>,
    pub(crate) max_num_batched_tokens: Option<Spanned<u32>>,
    pub(crate) block_tokens: Option<Spanned<u32>>,
    pub(crate) num_gpu_blocks: Option<Spanned<u32>>,
}
