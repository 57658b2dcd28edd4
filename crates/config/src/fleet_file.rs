//! The file as it is written, and its way to a validated fleet.

mod pool;
mod scheduler;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use equipoise_engine::{model, models};
use equipoise_fleet::{ModelProfile, Price};
use equipoise_scheduler::Scheduler;
use toml::Spanned;

use crate::error::Source;
use crate::services::{self, Services};
use crate::{ConfigError, FleetConfig};
pub(crate) use table::FileTable;
use table::ModelTable;

/// Reads fleet files. The sections:
///
/// - `[scheduler]`, optional: the fields of [`equipoise_scheduler::SchedulerConfig`]; in it `[scheduler.prefix]`:
///   `block_tokens`, `bytes_per_token`, `hash_seed` of the index of prefix caches;
/// - `[tenants.NAME]`, optional, for requests with the header `x-equipoise-tenant: NAME`: `labels`, which an instance must
///   carry to get them, whatever they ask for; `usd_per_hour`, `usd_per_day`, `joules_per_hour`, `joules_per_day`;
///   `models` that they may ask for; `keys` (hashes, of `equipoise key new`) that are this tenant's, and what they may send:
///   `requests_per_minute`, `tokens_per_minute`;
/// - `[pii]`, optional: `labels` that an instance must carry to get a request with personal data in it, or
///   `action = "refuse"`; `detectors`, `scan_bytes`, `[[pii.custom]]` with `name` and `pattern`;
/// - `[tls]`, optional: `cert`, `key`, `client_ca` of a router's public listener; `[grpc_tls]`: the same of its gRPC listener;
/// - `[engine_tls]`, optional: `ca`, `cert`, `key` for engines with an `https://` endpoint;
/// - `[[model]]`: `name`, `architecture`, `quality`, `context_tokens`, `price = { input_usd_per_mtok,
///   output_usd_per_mtok }`, `mean_output_tokens`; all but the name may be left out;
/// - `[[pool]]`: `name`, `model`, `gpu`, `tensor_parallel`, and either `count` (emulated or simulated instances) or
///   `endpoints` (real ones); `limits = { max_num_seqs, max_num_batched_tokens, block_tokens, num_gpu_blocks }`, `labels`,
///   `capabilities` (of `tools`, `images`, `audio`, `structured`, `embeddings`; absent: everything),
///   `gpus` (the devices of each instance), `service_ms` (an opaque emulated box), `measured` (a table of measured tiers,
///   `mlenergy-v2`, in place of the engine model's own speed and energy); and how the model is served, see
///   [`equipoise_engine::Serving`]: `runtime`, `weights`, `kv_cache`, `pipeline_parallel`, `data_parallel`, `expert_parallel`,
///   `link = { gbytes_per_s, latency_us }`, `speculative = { draft_tokens, acceptance, draft }`,
///   `prefill = { gpu, count, tensor_parallel, gbytes_per_s, latency_us }`, `sleep = { level, after_s, wake_s }`.
#[derive(Clone, Copy, Debug)]
pub struct FleetFile;

impl FleetFile {
    /// Reads and validates a file that declares a fleet.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it is wrong: see [`ConfigError`].
    pub fn load(path: &Path) -> Result<FleetConfig, ConfigError> {
        Ok(ConfigFile::load_with_fleet(path)?.fleet)
    }

    /// Validates the text of a file; `origin` stands for its path in errors.
    ///
    /// # Errors
    /// Anything in it is wrong.
    pub fn parse(text: &str, origin: &str) -> Result<FleetConfig, ConfigError> {
        Ok(ConfigFile::parse_with_fleet(text, origin)?.fleet)
    }
}

/// A whole configuration file: a fleet, and what the services are told. Beside the sections of a [`FleetFile`] there are
/// `[router]`, `[control_plane]`, `[agent]` and `[tracing]`; with any of them the fleet may be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    /// `[scheduler]`, `[tenants]`, `[[model]]` and `[[pool]]`.
    pub fleet: FleetConfig,
    /// The services' sections.
    pub services: Services,
}

impl ConfigFile {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// The file cannot be read, or anything in it is wrong: see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, origin) = read(path)?;
        Self::parse(&text, &origin)
    }

    /// Validates the text of a file; `origin` stands for its path in errors.
    ///
    /// # Errors
    /// The first thing that is wrong; [`crate::check`] finds all.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let (file, problems) = Self::examine(text, origin);
        match (file, problems.into_iter().next()) {
            (Some(file), None) => Ok(file),
            (_, Some(problem)) => Err(problem),
            (None, None) => Err(empty(&Source { text, origin })),
        }
    }

    /// The file, unless there are problems.
    pub(crate) fn examine(text: &str, origin: &str) -> (Option<Self>, Vec<ConfigError>) {
        let source = Source { text, origin };
        let mut file: FileTable = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => return (None, vec![source.syntax(&error)]),
        };
        let is_service =
            file.router.is_some() || file.control_plane.is_some() || file.agent.is_some() || file.tracing.is_some();
        let mut problems = Vec::from_iter(services::check(&source, file.router.as_ref()).err());
        let services = Services {
            router: file.router.take().map(Spanned::into_inner).unwrap_or_default(),
            control_plane: file.control_plane.take().unwrap_or_default(),
            agent: file.agent.take().unwrap_or_default(),
            tracing: file.tracing.take().unwrap_or_default(),
        };
        let is_empty = file.pools.is_empty() && !is_service;
        let fleet = declared(&source, file, &mut problems);
        if is_empty {
            problems.push(empty(&source));
        }
        let file = problems.is_empty().then_some(Self { fleet, services });
        (file, problems)
    }

    /// The same as [`ConfigFile::load`], for those who cannot do without instances.
    ///
    /// # Errors
    /// Also where the file declares none.
    pub fn load_with_fleet(path: &Path) -> Result<Self, ConfigError> {
        let (text, origin) = read(path)?;
        Self::parse_with_fleet(&text, &origin)
    }

    /// The same as [`ConfigFile::parse`], for those who cannot do without instances.
    ///
    /// # Errors
    /// Also where the file declares none.
    pub fn parse_with_fleet(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let file = Self::parse(text, origin)?;
        if file.fleet.instances.is_empty() {
            return Err(empty(&Source { text, origin }));
        }
        Ok(file)
    }
}

fn read(path: &Path) -> Result<(String, String), ConfigError> {
    let origin = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Ok((text, origin)),
        Err(source) => Err(ConfigError::Read { origin, source }),
    }
}

fn empty(source: &Source<'_>) -> ConfigError {
    let end = source.text.len()..source.text.len();
    source.invalid(
        end,
        "the fleet is empty: declare at least one [[model]] and one [[pool]]",
    )
}

/// The fleet that the tables of a file declare: at least one instance.
pub(crate) fn validated(source: &Source<'_>, file: FileTable) -> Result<FleetConfig, ConfigError> {
    let mut problems = Vec::new();
    let is_empty = file.pools.is_empty();
    let fleet = declared(source, file, &mut problems);
    if is_empty {
        problems.push(empty(source));
    }
    problems.into_iter().next().map_or(Ok(fleet), Err)
}

/// What is right of the fleet; the rest is among the problems.
fn declared(source: &Source<'_>, file: FileTable, problems: &mut Vec<ConfigError>) -> FleetConfig {
    let section = file.scheduler.as_ref().map_or(0..0, Spanned::span);
    let mut scheduler = file.scheduler.map(Spanned::into_inner).unwrap_or_default();
    // Its own constructor knows what it accepts.
    if let Err(error) = Scheduler::new(scheduler.clone()) {
        let place = scheduler::place(source, &error).unwrap_or(section);
        problems.push(source.invalid(place, format!("[scheduler]: {error}")));
    } else if let Some(tenants) = file.tenants {
        let place = tenants.span();
        scheduler.tenants.extend(tenants.into_inner());
        if let Err(error) = scheduler.validate() {
            problems.push(source.invalid(place, format!("[tenants]: {error}")));
        }
    }

    let mut profiles = BTreeMap::new();
    for table in &file.models {
        let name = table.name.get_ref();
        // Pools may name one that is wrong: that it is, is said once.
        let profile = profile(source, table).map_err(|problem| problems.push(problem)).ok();
        let is_wrong = profile.is_none();
        if profiles.insert(name.clone(), profile).is_some() && !is_wrong {
            let problem = format!("a second [[model]] is called `{name}`; every model is declared once");
            problems.push(source.invalid(table.name.span(), problem));
        }
    }
    let instances = pool::instances(source, &file.pools, &profiles, problems);
    FleetConfig {
        scheduler,
        pii: file.pii,
        tls: file.tls,
        grpc_tls: file.grpc_tls,
        engine_tls: file.engine_tls,
        instances,
    }
}

/// Checks a name: it goes into URLs, labels and metrics.
fn check_name(source: &Source<'_>, name: &Spanned<String>, what: &str) -> Result<(), ConfigError> {
    let text = name.get_ref();
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let problem = format!("`{text}` is no name for a {what}: it must not be empty and have no spaces");
        return Err(source.invalid(name.span(), problem));
    }
    Ok(())
}

fn profile(source: &Source<'_>, table: &ModelTable) -> Result<ModelProfile, ConfigError> {
    check_name(source, &table.name, "model")?;
    let name = table.name.get_ref();
    if name == "auto" {
        let problem = "a model cannot be called `auto`: with this name clients ask the router to pick the model";
        return Err(source.invalid(table.name.span(), problem));
    }
    let architecture = match &table.architecture {
        Some(declared) => match model(declared.get_ref()) {
            Some(known) => Some(known),
            None => {
                let known: Vec<&str> = models().iter().map(|model| model.name).collect();
                let problem = format!(
                    "the architecture `{}` is not known; known are {}; leave it out for an engine that is only observed",
                    declared.get_ref(),
                    known.join(", ")
                );
                return Err(source.invalid(declared.span(), problem));
            }
        },
        None => model(name),
    };
    if let Some(quality) = &table.quality
        && !(0.0..=1.0).contains(quality.get_ref())
    {
        let problem = format!(
            "quality is {}: it is a probability and lies between 0 and 1",
            quality.get_ref()
        );
        return Err(source.invalid(quality.span(), problem));
    }
    if let Some(context) = &table.context_tokens
        && *context.get_ref() == 0
    {
        return Err(source.invalid(context.span(), "context_tokens is 0: leave it out, or give at least 1"));
    }
    if let Some(mean) = &table.mean_output_tokens
        && !(mean.get_ref().is_finite() && *mean.get_ref() >= 1.0)
    {
        let problem = format!(
            "mean_output_tokens is {}: an answer has at least 1 token",
            mean.get_ref()
        );
        return Err(source.invalid(mean.span(), problem));
    }
    let mut price = None;
    if let Some(declared) = &table.price {
        let given = declared.get_ref();
        for (key, usd) in [
            ("input", given.input_usd_per_mtok),
            ("output", given.output_usd_per_mtok),
        ] {
            if !(usd.is_finite() && usd >= 0.0) {
                let problem = format!("price.{key}_usd_per_mtok is {usd}: it must be zero or more");
                return Err(source.invalid(declared.span(), problem));
            }
        }
        price = Some(Price {
            input_usd_per_mtok: given.input_usd_per_mtok,
            output_usd_per_mtok: given.output_usd_per_mtok,
        });
    }
    Ok(ModelProfile {
        name: name.clone(),
        architecture: architecture.map(|known| known.name.to_owned()),
        quality: table.quality.as_ref().map(|quality| *quality.get_ref()),
        context_tokens: table.context_tokens.as_ref().map(|context| *context.get_ref()),
        price,
        mean_output_tokens: table.mean_output_tokens.as_ref().map(|mean| *mean.get_ref()),
    })
}
