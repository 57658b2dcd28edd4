//! `equipoise config`: is a file right, and what may be in one.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use equipoise_config::{ConfigFile, schema};

use crate::cli::{Config, ConfigAction};
use crate::terminal;

pub(crate) fn run(options: &Config) -> anyhow::Result<ExitCode> {
    match &options.action {
        ConfigAction::Check { file } => check(file),
        ConfigAction::Schema => {
            terminal::say(&serde_json::to_string_pretty(&schema())?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {origin}"))?;
    let checked = equipoise_config::check(&text, &origin);
    match checked.file {
        Some(file) => {
            terminal::say(&format!("ok: {}", summary(&file)));
            Ok(ExitCode::SUCCESS)
        }
        None => {
            for problem in &checked.problems {
                terminal::complain(&problem.to_string());
            }
            let count = checked.problems.len();
            terminal::complain(&format!("{count} problem{}", if count == 1 { "" } else { "s" }));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn summary(file: &ConfigFile) -> String {
    let instances = &file.fleet.instances;
    let emulated = instances.iter().filter(|instance| instance.spec.emulated).count();
    let distinct = |names: Vec<&str>| names.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    let pools = distinct(instances.iter().map(|instance| instance.spec.pool.as_str()).collect());
    let models = distinct(
        instances
            .iter()
            .map(|instance| instance.spec.model.name.as_str())
            .collect(),
    );
    format!(
        "policy {}, {} instances ({emulated} emulated) in {pools} pools of {models} models, {} tenants",
        file.fleet.scheduler.policy,
        instances.len(),
        file.fleet.scheduler.tenants.len(),
    )
}
