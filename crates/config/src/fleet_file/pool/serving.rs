//! The keys of a `[[pool]]` that say how its model is served.

use std::ops::Range;

use equipoise_engine::Serving;
use toml::Spanned;

use super::PoolTable;
use crate::error::Source;
use crate::{ConfigError, UnknownPhysics};

impl PoolTable {
    /// Whether any of the keys of this file is there.
    pub(super) fn has_serving_keys(&self) -> bool {
        !declared(self).is_default()
    }
}

fn declared(pool: &PoolTable) -> Serving {
    fn value<T: Clone>(key: Option<&Spanned<T>>) -> Option<T> {
        key.map(|value| value.get_ref().clone())
    }
    Serving {
        runtime: value(pool.runtime.as_ref()),
        weights: value(pool.weights.as_ref()),
        kv_cache: value(pool.kv_cache.as_ref()),
        pipeline_parallel: value(pool.pipeline_parallel.as_ref()),
        data_parallel: value(pool.data_parallel.as_ref()),
        expert_parallel: value(pool.expert_parallel.as_ref()),
        link: value(pool.link.as_ref()),
        speculative: value(pool.speculative.as_ref()),
        prefill: value(pool.prefill.as_ref()),
        sleep: value(pool.sleep.as_ref()),
    }
}

/// How the pool's model is served; `None`: nothing is declared.
pub(super) fn serving(source: &Source<'_>, pool: &PoolTable) -> Result<Option<Serving>, ConfigError> {
    let serving = declared(pool);
    if serving.is_default() {
        return Ok(None);
    }
    if let (Some(_), Some(place)) = (&pool.service_ms, first_key(pool)) {
        let problem = "service_ms describes a box of which nothing is known, so leave out how its model is served";
        return Err(source.invalid(place, problem));
    }
    Ok(Some(serving))
}

fn first_key(pool: &PoolTable) -> Option<Range<usize>> {
    KEYS.iter().find_map(|key| span(pool, key))
}

const KEYS: [&str; 10] = [
    "runtime",
    "weights",
    "kv_cache",
    "pipeline_parallel",
    "data_parallel",
    "expert_parallel",
    "link",
    "speculative",
    "prefill",
    "sleep",
];

fn span(pool: &PoolTable, key: &str) -> Option<Range<usize>> {
    match key {
        "runtime" => pool.runtime.as_ref().map(Spanned::span),
        "weights" => pool.weights.as_ref().map(Spanned::span),
        "kv_cache" => pool.kv_cache.as_ref().map(Spanned::span),
        "pipeline_parallel" => pool.pipeline_parallel.as_ref().map(Spanned::span),
        "data_parallel" => pool.data_parallel.as_ref().map(Spanned::span),
        "expert_parallel" => pool.expert_parallel.as_ref().map(Spanned::span),
        "link" => pool.link.as_ref().map(Spanned::span),
        "speculative" => pool.speculative.as_ref().map(Spanned::span),
        "prefill" => pool.prefill.as_ref().map(Spanned::span),
        "sleep" => pool.sleep.as_ref().map(Spanned::span),
        _ => None,
    }
}

/// Where in the file the error is.
pub(super) fn place(pool: &PoolTable, error: &UnknownPhysics) -> Range<usize> {
    let key = match error {
        UnknownPhysics::Serving { source, .. } => source.key(),
        UnknownPhysics::Architecture { .. }
        | UnknownPhysics::Gpu { .. }
        | UnknownPhysics::Shape { .. }
        | UnknownPhysics::Measured { .. } => None,
    };
    key.and_then(|key| span(pool, key)).unwrap_or_else(|| pool.name.span())
}
