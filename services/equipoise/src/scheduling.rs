//! The scheduler's settings: the fleet file's, and over them the command line's.

use std::path::Path;

use equipoise_config::{ConfigFile, FleetConfig, FleetFile, Services};
use equipoise_scheduler::SchedulerConfig;

use crate::cli::Scheduling;

/// The emulated fleet of `up`.
const BUILT_IN: &str = include_str!("../../../deploy/fleets/demo.toml");

/// The fleet file, or the built-in fleet.
pub(crate) fn fleet(path: Option<&Path>) -> anyhow::Result<FleetConfig> {
    Ok(match path {
        Some(path) => FleetFile::load(path)?,
        None => FleetFile::parse(BUILT_IN, "the built-in fleet")?,
    })
}

/// The whole file that a fleet comes from, or the built-in fleet.
pub(crate) fn file(path: Option<&Path>) -> anyhow::Result<ConfigFile> {
    Ok(match path {
        Some(path) => ConfigFile::load_with_fleet(path)?,
        None => ConfigFile::parse(BUILT_IN, "the built-in fleet")?,
    })
}

/// A file that need not declare a fleet, or nothing.
pub(crate) fn config(path: Option<&Path>) -> anyhow::Result<ConfigFile> {
    match path {
        Some(path) => Ok(ConfigFile::load(path)?),
        None => Ok(ConfigFile {
            fleet: FleetConfig {
                scheduler: SchedulerConfig::default(),
                pii: None,
                tls: None,
                grpc_tls: None,
                engine_tls: None,
                instances: Vec::new(),
            },
            services: Services::default(),
        }),
    }
}

/// What the command line changes. An unknown policy is refused here, with those there are.
pub(crate) fn settings(mut config: SchedulerConfig, options: &Scheduling) -> anyhow::Result<SchedulerConfig> {
    if let Some(policy) = &options.policy {
        config.policy.clone_from(policy);
    }
    config.policy()?;
    Ok(config)
}
