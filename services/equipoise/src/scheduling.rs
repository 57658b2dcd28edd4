//! The scheduler's settings: the fleet file's, and over them the command line's.

use std::path::Path;

use equipoise_config::{FleetConfig, FleetFile};
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

/// What the command line changes. An unknown policy is refused here, with those there are.
pub(crate) fn settings(mut config: SchedulerConfig, options: &Scheduling) -> anyhow::Result<SchedulerConfig> {
    if let Some(policy) = &options.policy {
        config.policy.clone_from(policy);
    }
    config.policy()?;
    Ok(config)
}
