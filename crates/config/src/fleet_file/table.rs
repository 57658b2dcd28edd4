//! The tables of a fleet file, key by key; values keep their place in the text.

use std::collections::BTreeMap;

use equipoise_policy::Capability;
use equipoise_scheduler::{SchedulerConfig, TenantSettings};
use serde::Deserialize;
use toml::Spanned;

use crate::{PiiSettings, TlsSettings};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileTable {
    pub(super) scheduler: Option<Spanned<SchedulerConfig>>,
    pub(super) pii: Option<PiiSettings>,
    pub(super) tls: Option<TlsSettings>,
    pub(super) tenants: Option<Spanned<BTreeMap<String, TenantSettings>>>,
    #[serde(default, rename = "model")]
    pub(super) models: Vec<ModelTable>,
    #[serde(default, rename = "pool")]
    pub(super) pools: Vec<PoolTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelTable {
    pub(super) name: Spanned<String>,
    pub(super) architecture: Option<Spanned<String>>,
    pub(super) quality: Option<Spanned<f64>>,
    pub(super) context_tokens: Option<Spanned<u32>>,
    pub(super) price: Option<Spanned<PriceTable>>,
    pub(super) mean_output_tokens: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceTable {
    pub(super) input_usd_per_mtok: f64,
    pub(super) output_usd_per_mtok: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolTable {
    pub(super) name: Spanned<String>,
    pub(super) model: Spanned<String>,
    pub(super) gpu: Option<Spanned<String>>,
    pub(super) tensor_parallel: Option<Spanned<u32>>,
    pub(super) count: Option<Spanned<u32>>,
    pub(super) endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) limits: LimitsTable,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) capabilities: Option<Spanned<Vec<Capability>>>,
    pub(super) gpus: Option<Spanned<Vec<Vec<String>>>>,
    pub(super) service_ms: Option<Spanned<f64>>,
    pub(super) measured: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    pub(super) max_num_seqs: Option<Spanned<u32>>,
    pub(super) max_num_batched_tokens: Option<Spanned<u32>>,
    pub(super) block_tokens: Option<Spanned<u32>>,
    pub(super) num_gpu_blocks: Option<Spanned<u32>>,
}
