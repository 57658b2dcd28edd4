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
        first_key(self).is_some()
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
    spans(pool).into_iter().find_map(|(_, span)| span)
}

/// The keys, and where those stand that are there.
fn spans(pool: &PoolTable) -> [(&'static str, Option<Range<usize>>); 10] {
    fn span<T>(key: Option<&Spanned<T>>) -> Option<Range<usize>> {
        key.map(Spanned::span)
    }
    [
        ("runtime", span(pool.runtime.as_ref())),
        ("weights", span(pool.weights.as_ref())),
        ("kv_cache", span(pool.kv_cache.as_ref())),
        ("pipeline_parallel", span(pool.pipeline_parallel.as_ref())),
        ("data_parallel", span(pool.data_parallel.as_ref())),
        ("expert_parallel", span(pool.expert_parallel.as_ref())),
        ("link", span(pool.link.as_ref())),
        ("speculative", span(pool.speculative.as_ref())),
        ("prefill", span(pool.prefill.as_ref())),
        ("sleep", span(pool.sleep.as_ref())),
    ]
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
    key.and_then(|key| spans(pool).into_iter().find(|(name, _)| *name == key)?.1)
        .unwrap_or_else(|| pool.name.span())
}
