//! From a `[[pool]]` table to its instances.

mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use equipoise_engine::{gpu, gpus, measured_table, model};
use equipoise_fleet::{InstanceSpec, LimitsSpec, ModelProfile};
use equipoise_policy::CAPABILITIES_LABEL;
use toml::Spanned;

use super::check_name;
use super::table::{LimitsTable, PoolTable};
use crate::error::Source;
use crate::{ConfigError, DeclaredInstance, UnknownPhysics};

/// More emulated instances than this in one pool is a slip of the hand.
const MOST_INSTANCES: u32 = 10_000;

/// How long an opaque box may take for a request, milliseconds. An answer that takes longer than an hour is a slip of
/// the hand, too.
const SERVICE_MS: RangeInclusive<f64> = 1.0..=3_600_000.0;

/// Models by name; without a profile where the declaration is wrong.
pub(super) type Profiles = BTreeMap<String, Option<ModelProfile>>;

/// All instances of all pools that are right; the others are among the problems.
pub(super) fn instances(
    source: &Source<'_>,
    pools: &[PoolTable],
    profiles: &Profiles,
    problems: &mut Vec<ConfigError>,
) -> Vec<DeclaredInstance> {
    let mut names = BTreeSet::new();
    let mut endpoints = BTreeSet::new();
    let mut all = Vec::new();
    for pool in pools {
        match checked(source, pool, profiles, &mut names, &mut endpoints) {
            Ok(instances) => all.extend(instances),
            Err(problem) => problems.push(problem),
        }
    }
    all
}

/// The instances of one pool beside those before it.
fn checked<'p>(
    source: &Source<'_>,
    pool: &'p PoolTable,
    profiles: &Profiles,
    names: &mut BTreeSet<&'p str>,
    endpoints: &mut BTreeSet<&'p str>,
) -> Result<Vec<DeclaredInstance>, ConfigError> {
    check_name(source, &pool.name, "pool")?;
    if !names.insert(pool.name.get_ref()) {
        let problem = format!(
            "a second [[pool]] is called `{}`; instances are named after it",
            pool.name.get_ref()
        );
        return Err(source.invalid(pool.name.span(), problem));
    }
    let Some(profile) = profiles.get(pool.model.get_ref()) else {
        return Err(source.invalid(pool.model.span(), unknown_model(pool.model.get_ref(), profiles)));
    };
    for endpoint in pool.endpoints.iter().flat_map(Spanned::get_ref) {
        if !endpoints.insert(trimmed(endpoint.get_ref())) {
            let problem = format!("`{}` is an instance already; each is declared once", endpoint.get_ref());
            return Err(source.invalid(endpoint.span(), problem));
        }
    }
    match profile {
        Some(profile) => expand(source, pool, profile),
        // What is wrong with the model is said.
        None => Ok(Vec::new()),
    }
}

fn unknown_model(name: &str, profiles: &Profiles) -> String {
    if profiles.is_empty() {
        return format!("model `{name}` is not declared; add `[[model]]` with `name = \"{name}\"`");
    }
    let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
    format!(
        "model `{name}` is not declared; declared are {}; or add a [[model]] table for it",
        known.join(", ")
    )
}

fn trimmed(endpoint: &str) -> &str {
    endpoint.trim_end_matches('/')
}

/// The instances of one pool.
fn expand(source: &Source<'_>, pool: &PoolTable, profile: &ModelProfile) -> Result<Vec<DeclaredInstance>, ConfigError> {
    let places = places(source, pool)?;
    let tensor_parallel = pool.tensor_parallel.as_ref().map_or(1, |declared| *declared.get_ref());
    if let Some(declared) = pool
        .tensor_parallel
        .as_ref()
        .filter(|declared| *declared.get_ref() == 0)
    {
        return Err(source.invalid(declared.span(), "tensor_parallel is 0: an instance has at least 1 GPU"));
    }
    let serving = serving::serving(source, pool)?;
    let all_gpus = serving
        .as_ref()
        .map_or(tensor_parallel, |serving| serving.gpus(tensor_parallel));
    let devices = devices(source, pool, places.len(), all_gpus)?;
    let limits = limits(source, &pool.limits)?;
    let gpu_name = gpu_name(source, pool)?;
    let service_s = service_s(source, pool)?;
    let emulated = pool.count.is_some();
    let labels = labels(source, pool)?;
    let measured = measured(source, pool)?;

    let mut instances: Vec<DeclaredInstance> = places
        .into_iter()
        .zip(devices)
        .enumerate()
        .map(|(index, (endpoint, gpus))| DeclaredInstance {
            spec: InstanceSpec {
                name: format!("{}-{index}", pool.name.get_ref()),
                pool: pool.name.get_ref().clone(),
                model: profile.clone(),
                gpu: gpu_name.clone(),
                tensor_parallel,
                endpoint,
                limits,
                labels: labels.clone(),
                gpus,
                emulated,
                measured: measured.clone(),
                serving: serving.clone(),
            },
            service_s,
        })
        .collect();
    if emulated {
        bound_context(source, pool, &mut instances)?;
    } else if let Some(Err(error @ UnknownPhysics::Serving { .. })) =
        instances.first().map(DeclaredInstance::step_model)
    {
        // What else is not known of real engines is observed; a contradiction in the file is a mistake.
        return Err(source.invalid(serving::place(pool, &error), error.to_string()));
    }
    Ok(instances)
}

/// The declared labels, and the one in which capabilities travel.
fn labels(source: &Source<'_>, pool: &PoolTable) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut labels = pool.labels.clone();
    if let Some(declared) = &pool.capabilities {
        let names: Vec<&str> = declared.get_ref().iter().map(|capability| capability.name()).collect();
        if labels.insert(CAPABILITIES_LABEL.to_owned(), names.join(" ")).is_some() {
            let problem =
                format!("the label `{CAPABILITIES_LABEL}` is how capabilities travel; leave it out of `labels`");
            return Err(source.invalid(declared.span(), problem));
        }
    }
    Ok(labels)
}

/// A table's name; where that is a file beside the fleet file, the table that it holds, which then travels with the instance.
fn measured(source: &Source<'_>, pool: &PoolTable) -> Result<Option<String>, ConfigError> {
    let Some(declared) = &pool.measured else {
        return Ok(None);
    };
    let name = declared.get_ref();
    if !name.ends_with(".toml") {
        return Ok(Some(name.clone()));
    }
    let folder = Path::new(source.origin).parent().unwrap_or(Path::new(""));
    let path = folder.join(name);
    let invalid = |problem: String| source.invalid(declared.span(), problem);
    let text = std::fs::read_to_string(&path).map_err(|error| invalid(format!("cannot read `{name}`: {error}")))?;
    measured_table(&text).map_err(|error| invalid(format!("`{name}`: {error}")))?;
    Ok(Some(text))
}

/// One endpoint, or none, for each instance.
fn places(source: &Source<'_>, pool: &PoolTable) -> Result<Vec<Option<String>>, ConfigError> {
    let name = pool.name.get_ref();
    match (&pool.count, &pool.endpoints) {
        (Some(count), None) => {
            if !(1..=MOST_INSTANCES).contains(count.get_ref()) {
                let problem = format!(
                    "count is {}: it must lie between 1 and {MOST_INSTANCES}",
                    count.get_ref()
                );
                return Err(source.invalid(count.span(), problem));
            }
            Ok((0..*count.get_ref()).map(|_| None).collect())
        }
        (None, Some(endpoints)) => {
            if endpoints.get_ref().is_empty() {
                let problem = "endpoints is empty: name at least one, like \"http://10.0.0.1:8000\"";
                return Err(source.invalid(endpoints.span(), problem));
            }
            endpoints
                .get_ref()
                .iter()
                .map(|endpoint| checked_endpoint(source, endpoint).map(Some))
                .collect()
        }
        (Some(count), Some(_)) => {
            let problem = format!(
                "pool `{name}` has both `count` and `endpoints`; keep `endpoints` for real engines, `count` for emulated ones"
            );
            Err(source.invalid(count.span(), problem))
        }
        (None, None) => {
            let problem = format!(
                "pool `{name}` has no instances: add `endpoints = [\"http://host:port\"]` for real engines, or `count = 1` \
                 for emulated ones"
            );
            Err(source.invalid(pool.name.span(), problem))
        }
    }
}

fn checked_endpoint(source: &Source<'_>, endpoint: &Spanned<String>) -> Result<String, ConfigError> {
    let text = trimmed(endpoint.get_ref());
    let host = text.strip_prefix("http://").or(text.strip_prefix("https://"));
    let host = host.unwrap_or_default();
    if host.is_empty() || host.starts_with(['/', ':', '?', '#']) || host.contains(char::is_whitespace) {
        let problem =
            format!("the endpoint `{text}` is no URL like `http://10.0.0.1:8000` or `https://engine.example`");
        return Err(source.invalid(endpoint.span(), problem));
    }
    Ok(text.to_owned())
}

/// The devices of each instance; none where they are not named.
fn devices(
    source: &Source<'_>,
    pool: &PoolTable,
    instances: usize,
    all_gpus: u32,
) -> Result<Vec<Vec<String>>, ConfigError> {
    let Some(declared) = &pool.gpus else {
        return Ok(vec![Vec::new(); instances]);
    };
    let lists = declared.get_ref();
    if lists.len() != instances {
        let problem = format!(
            "gpus has {} lists and the pool {instances} instances: give one list per instance, like [[\"0\"], [\"1\"]]",
            lists.len()
        );
        return Err(source.invalid(declared.span(), problem));
    }
    if let Some(list) = lists.iter().find(|list| u32::try_from(list.len()) != Ok(all_gpus)) {
        let problem = format!(
            "an instance names {} GPUs and {} is {all_gpus}: the two must agree",
            list.len(),
            if pool.has_serving_keys() {
                "what it is declared to have"
            } else {
                "tensor_parallel"
            }
        );
        return Err(source.invalid(declared.span(), problem));
    }
    Ok(lists.clone())
}

fn limits(source: &Source<'_>, table: &LimitsTable) -> Result<LimitsSpec, ConfigError> {
    let positive = |key: &str, value: &Option<Spanned<u32>>| match value {
        Some(value) if *value.get_ref() == 0 => Err(source.invalid(
            value.span(),
            format!("limits.{key} is 0: leave it out, or give at least 1"),
        )),
        other => Ok(other.as_ref().map(|value| *value.get_ref())),
    };
    Ok(LimitsSpec {
        max_num_seqs: positive("max_num_seqs", &table.max_num_seqs)?,
        max_num_batched_tokens: positive("max_num_batched_tokens", &table.max_num_batched_tokens)?,
        block_tokens: positive("block_tokens", &table.block_tokens)?,
        num_gpu_blocks: positive("num_gpu_blocks", &table.num_gpu_blocks)?,
    })
}

/// The GPU's name in the catalogue.
fn gpu_name(source: &Source<'_>, pool: &PoolTable) -> Result<Option<String>, ConfigError> {
    let Some(declared) = &pool.gpu else { return Ok(None) };
    match gpu(declared.get_ref()) {
        Some(known) => Ok(Some(known.name.to_owned())),
        None => {
            let known: Vec<&str> = gpus().iter().map(|gpu| gpu.name).collect();
            let problem = format!(
                "the GPU `{}` is not known; known are {}; leave `gpu` out for an engine that is only observed",
                declared.get_ref(),
                known.join(", ")
            );
            Err(source.invalid(declared.span(), problem))
        }
    }
}

fn service_s(source: &Source<'_>, pool: &PoolTable) -> Result<Option<f64>, ConfigError> {
    let Some(declared) = &pool.service_ms else {
        return Ok(None);
    };
    let problem = if pool.count.is_none() {
        "service_ms describes an emulated box; a pool with `endpoints` is real, so leave it out".to_owned()
    } else if pool.gpu.is_some() {
        "service_ms describes a box of which nothing is known, so leave `gpu` out (or leave out service_ms)".to_owned()
    } else if !SERVICE_MS.contains(declared.get_ref()) {
        format!(
            "service_ms is {}: it must lie between {} and {}, an hour",
            declared.get_ref(),
            SERVICE_MS.start(),
            SERVICE_MS.end()
        )
    } else {
        return Ok(Some(declared.get_ref() / 1e3));
    };
    Err(source.invalid(declared.span(), problem))
}

/// An emulated instance must be able to run, and takes no request that cannot fit: its context is the least of what is
/// declared, what the architecture allows and what its KV cache holds.
fn bound_context(source: &Source<'_>, pool: &PoolTable, instances: &mut [DeclaredInstance]) -> Result<(), ConfigError> {
    let Some(first) = instances.first().filter(|first| first.service_s.is_none()) else {
        return Ok(());
    };
    if first.spec.gpu.is_none() {
        let problem = "an emulated pool needs `gpu`, the type of its GPUs; or `service_ms` for an opaque box";
        return Err(source.invalid(pool.name.span(), problem));
    }
    let step_model = first
        .step_model()
        .map_err(|error| source.invalid(serving::place(pool, &error), error.to_string()))?;
    let profile = &first.spec.model;
    let trained = profile
        .architecture
        .as_deref()
        .and_then(model)
        .map_or(u32::MAX, |known| known.context_tokens);
    // The last token's keys and values are never stored.
    let held = u32::try_from(step_model.kv_capacity_tokens())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    if let Some(declared) = profile.context_tokens.filter(|declared| *declared > trained) {
        let problem = format!(
            "model `{}` has context_tokens = {declared}, its architecture {} handles {trained}: lower it",
            profile.name,
            profile.architecture.as_deref().unwrap_or_default()
        );
        return Err(source.invalid(pool.model.span(), problem));
    }
    let context = profile.context_tokens.unwrap_or(trained).min(held);
    for instance in instances {
        instance.spec.model.context_tokens = Some(context);
    }
    Ok(())
}
