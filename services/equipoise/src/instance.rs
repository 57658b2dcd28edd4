//! Declared instances in the contracts' words.

use equipoise_config::DeclaredInstance;

use equipoise_fleet::{InstanceSpec, Serving};
use equipoise_proto::v1;

/// An instance as an agent registers it, reached at `endpoint`.
pub(crate) fn on_the_wire(spec: &InstanceSpec, endpoint: String, emulated: bool) -> v1::Instance {
    let price = spec.model.price;
    v1::Instance {
        name: spec.name.clone(),
        pool: spec.pool.clone(),
        model: Some(v1::Model {
            name: spec.model.name.clone(),
            architecture: spec.model.architecture.clone().unwrap_or_default(),
            quality: spec.model.quality,
            context_tokens: spec.model.context_tokens.unwrap_or_default(),
            input_usd_per_mtok: price.map(|price| price.input_usd_per_mtok),
            output_usd_per_mtok: price.map(|price| price.output_usd_per_mtok),
            mean_output_tokens: spec.model.mean_output_tokens,
        }),
        tier: Some(v1::Tier {
            gpu: spec.gpu.clone().unwrap_or_default(),
            tensor_parallel: spec.tensor_parallel,
            measured: spec.measured.clone().unwrap_or_default(),
            serving: spec.serving.as_ref().map_or_else(String::new, Serving::to_text),
        }),
        endpoint,
        limits: Some(v1::EngineLimits {
            max_num_seqs: spec.limits.max_num_seqs,
            max_num_batched_tokens: spec.limits.max_num_batched_tokens,
            block_tokens: spec.limits.block_tokens,
            num_gpu_blocks: spec.limits.num_gpu_blocks,
        }),
        labels: spec.labels.clone().into_iter().collect(),
        gpus: spec.gpus.clone(),
        node: String::new(),
        emulated,
    }
}

/// A real engine, if the declaration names one.
pub(crate) fn real(declared: &DeclaredInstance) -> Option<v1::Instance> {
    let endpoint = declared.spec.endpoint.clone()?;
    Some(on_the_wire(&declared.spec, endpoint, false))
}
