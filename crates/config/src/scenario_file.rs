//! Scenario files: the file as it is written, and its way to a validated scenario.

mod arms;
mod conditions;
#[cfg(test)]
mod fuzz;
mod table;
#[cfg(test)]
mod tests;
mod workload;

use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use crate::error::Source;
use crate::fleet_file::validated;
use crate::{ConfigError, FleetConfig, FleetFile, NetworkConfig, ScenarioConfig, SloConfig};
use table::{FileTable, FleetTable, NetworkTable, Number, SloTable};

/// A number of seconds beyond which a time in a scenario is a slip of the hand: ten years.
const MOST_SECONDS: f64 = 10.0 * 365.25 * 86_400.0;

/// Reads scenario files, described in `docs/scenarios.md`.
#[derive(Clone, Copy, Debug)]
pub struct ScenarioFile;

impl ScenarioFile {
    /// Reads and validates a file, and the fleet file that it names.
    ///
    /// # Errors
    /// A file cannot be read, or anything in it is wrong: see [`ConfigError`].
    pub fn load(path: &Path) -> Result<ScenarioConfig, ConfigError> {
        let origin = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &origin),
            Err(source) => Err(ConfigError::ReadScenario { origin, source }),
        }
    }

    /// Validates the text of a file; `origin` stands for its path in errors, and files that it names lie beside it.
    ///
    /// # Errors
    /// Anything in it, or in the fleet file that it names, is wrong.
    pub fn parse(text: &str, origin: &str) -> Result<ScenarioConfig, ConfigError> {
        let source = Source { text, origin };
        let file: FileTable = toml::from_str(text).map_err(|error| source.syntax(&error))?;
        let Some(fleet) = file.fleet else {
            let problem =
                "there is no fleet: add [fleet] with `file = \"FLEET.toml\"`, or [[fleet.model]] and [[fleet.pool]]";
            return Err(source.invalid(text.len()..text.len(), problem));
        };
        let fleet = self::fleet(&source, fleet)?;
        let Some(workload) = &file.workload else {
            let problem =
                "there is no workload: add [workload] with `trace = \"FILE\"`, or `arrivals` and `rate_per_s`";
            return Err(source.invalid(text.len()..text.len(), problem));
        };
        let network = network(&source, &file.network)?;
        let (arms, sweep) = arms::arms(&source, &file.policies, &file.policy_tables, file.sweep, &fleet)?;
        let seeds = file
            .seeds
            .as_ref()
            .map(|seeds| arms::seeds(&source, seeds))
            .transpose()?;
        Ok(ScenarioConfig {
            name: match &file.name {
                Some(name) if name.get_ref().trim().is_empty() => {
                    return Err(source.invalid(name.span(), "name is empty: leave it out, or say what this is"));
                }
                Some(name) => name.get_ref().trim().to_owned(),
                None => Path::new(origin)
                    .file_stem()
                    .map_or_else(|| "scenario".to_owned(), |stem| stem.to_string_lossy().into_owned()),
            },
            workload: workload::workload(&source, workload)?,
            arms,
            seeds: seeds.unwrap_or_else(|| vec![1]),
            sweep,
            slo: file.slo.map(|table| slo(&source, &table)).transpose()?,
            mismatch: conditions::mismatch(&source, &file.mismatch)?,
            faults: conditions::faults(&source, &file.faults, &fleet, network.routers)?,
            autoscaling: conditions::autoscaling(&source, &file.autoscaling, &fleet)?,
            racks: conditions::racks(&source, &file.racks, &fleet)?,
            facility: conditions::facility(&source, &file.facility)?,
            network,
            fleet,
        })
    }
}

/// The fleet: of its own file, or of the tables in this one.
fn fleet(source: &Source<'_>, table: Spanned<FleetTable>) -> Result<FleetConfig, ConfigError> {
    let section = table.span();
    let table = table.into_inner();
    let Some(file) = table.file else {
        return validated(
            source,
            crate::fleet_file::table::FileTable {
                scheduler: table.scheduler,
                pii: None,
                tls: None,
                tenants: table.tenants,
                models: table.models,
                pools: table.pools,
                ..crate::fleet_file::table::FileTable::default()
            },
        );
    };
    let inline = !table.models.is_empty() || !table.pools.is_empty();
    if inline || table.scheduler.is_some() || table.tenants.is_some() {
        let problem = "[fleet] has both `file` and tables of its own: keep the file, or write the whole fleet here";
        return Err(source.invalid(section, problem));
    }
    let folder = Path::new(source.origin).parent().unwrap_or(Path::new(""));
    FleetFile::load(&folder.join(file.get_ref())).map_err(|error| match error {
        // Which file is not there is said where it is named.
        ConfigError::Read { origin, source: cause } => {
            source.invalid(file.span(), format!("cannot read the fleet file {origin}: {cause}"))
        }
        other => other,
    })
}

/// A number within bounds, or what stands for it where it is absent.
fn number(
    source: &Source<'_>,
    name: &str,
    value: &Number,
    (least, most): (f64, f64),
    default: f64,
) -> Result<f64, ConfigError> {
    value.as_ref().map_or(Ok(default), |value| {
        checked(source, name, *value.get_ref(), value.span(), (least, most))
    })
}

/// As [`number`], where leaving it out says something of its own.
fn optional(source: &Source<'_>, name: &str, value: &Number, bounds: (f64, f64)) -> Result<Option<f64>, ConfigError> {
    let given = value.as_ref();
    given
        .map(|value| checked(source, name, *value.get_ref(), value.span(), bounds))
        .transpose()
}

fn checked(
    source: &Source<'_>,
    name: &str,
    value: f64,
    place: Range<usize>,
    (least, most): (f64, f64),
) -> Result<f64, ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(source.invalid(place, format!("{name} is {value}; it must be from {least} to {most}")))
}

fn slo(source: &Source<'_>, section: &Spanned<SloTable>) -> Result<SloConfig, ConfigError> {
    let table = section.get_ref();
    let limit = |name, value: &Number| -> Result<Option<f64>, ConfigError> {
        Ok(optional(source, name, value, (0.001, 86_400_000.0))?.map(|ms| ms / 1e3))
    };
    let slo = SloConfig {
        ttft_s: limit("ttft_ms", &table.ttft_ms)?,
        e2e_s: limit("e2e_ms", &table.e2e_ms)?,
        confidence: number(source, "confidence", &table.confidence, (0.001, 0.9999), 0.95)?,
        enforced: table.enforced.unwrap_or(true),
    };
    if slo.ttft_s.is_none() && slo.e2e_s.is_none() {
        return Err(source.invalid(
            section.span(),
            "[slo] asks for nothing: give `ttft_ms`, `e2e_ms` or both",
        ));
    }
    Ok(slo)
}

fn network(source: &Source<'_>, table: &NetworkTable) -> Result<NetworkConfig, ConfigError> {
    const HOUR_MS: f64 = 3_600_000.0;
    let ms = |name, value: &Number, least: f64, default: f64| {
        number(source, name, value, (least, HOUR_MS), default).map(|ms| ms / 1e3)
    };
    let routers = match &table.routers {
        Some(routers) if !(1..=256).contains(routers.get_ref()) => {
            let problem = format!("routers is {}; it must be from 1 to 256", routers.get_ref());
            return Err(source.invalid(routers.span(), problem));
        }
        routers => routers.as_ref().map_or(1, |routers| *routers.get_ref()),
    };
    Ok(NetworkConfig {
        hop_s: ms("hop_ms", &table.hop_ms, 0.0, 1.0)?,
        telemetry_interval_s: ms("telemetry_interval_ms", &table.telemetry_interval_ms, 1.0, 200.0)?,
        routers,
        state_interval_s: ms("state_interval_ms", &table.state_interval_ms, 1.0, 100.0)?,
        state_age_s: ms("state_age_ms", &table.state_age_ms, 0.0, 100.0)?,
        feedback_share: number(source, "feedback_share", &table.feedback_share, (0.0, 1.0), 0.0)?,
    })
}
