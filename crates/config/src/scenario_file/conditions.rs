//! What a fleet has to live with: engines that are not what is believed of them, faults, autoscaling, power caps, the grid.

use std::collections::BTreeSet;

use equipoise_energy::DEFAULT_PUE;
use toml::Spanned;

use super::table::{
    AutoscalingTable, CarbonValue, FacilityTable, FaultName, FaultTable, MismatchTable, Number, RackTable,
};
use super::{MOST_SECONDS, checked, number, optional};
use crate::error::Source;
use crate::{
    AutoscalingConfig, AutoscalingTarget, ConfigError, FacilityConfig, FaultConfig, FaultKind, FleetConfig,
    MismatchConfig, RackConfig,
};

/// Where nothing is said, engines are this far from their model: a simulation that believes its own model proves nothing.
const MISMATCH_SD: f64 = 0.15;
/// One step in a thousand, where there is any mismatch.
const STALL_SHARE: f64 = 1e-3;

pub(super) fn mismatch(source: &Source<'_>, table: &MismatchTable) -> Result<MismatchConfig, ConfigError> {
    let sd = number(source, "sd", &table.sd, (0.0, 2.0), MISMATCH_SD)?;
    let stalls = if sd > 0.0 { STALL_SHARE } else { 0.0 };
    Ok(MismatchConfig {
        speed_sd: number(source, "speed_sd", &table.speed_sd, (0.0, 2.0), sd)?,
        noise_sd: number(source, "noise_sd", &table.noise_sd, (0.0, 2.0), sd)?,
        drift_sd: number(source, "drift_sd", &table.drift_sd, (0.0, 2.0), sd)?,
        stall_share: number(source, "stall_share", &table.stall_share, (0.0, 0.5), stalls)?,
    })
}

/// The instances of a pool.
fn pool(source: &Source<'_>, name: &Spanned<String>, fleet: &FleetConfig) -> Result<Vec<usize>, ConfigError> {
    let of_pool = |pool: &str| -> Vec<usize> {
        let all = fleet.instances.iter().enumerate();
        all.filter(|(_, one)| one.spec.pool == pool)
            .map(|(index, _)| index)
            .collect()
    };
    let found = of_pool(name.get_ref());
    if found.is_empty() {
        let pools: BTreeSet<&str> = fleet.instances.iter().map(|one| one.spec.pool.as_str()).collect();
        let pools = pools.into_iter().collect::<Vec<_>>().join(", ");
        let problem = format!("no pool is called `{}`; there are {pools}", name.get_ref());
        return Err(source.invalid(name.span(), problem));
    }
    Ok(found)
}

fn instance(source: &Source<'_>, name: &Spanned<String>, fleet: &FleetConfig) -> Result<usize, ConfigError> {
    let found = fleet.instances.iter().position(|one| one.spec.name == *name.get_ref());
    found.ok_or_else(|| {
        let first = fleet.instances.first().map_or("", |one| one.spec.name.as_str());
        let problem = format!(
            "no instance is called `{}`: they are called POOL-NUMBER, from `{first}` on",
            name.get_ref()
        );
        source.invalid(name.span(), problem)
    })
}

pub(super) fn faults(
    source: &Source<'_>,
    tables: &[FaultTable],
    fleet: &FleetConfig,
    routers: u32,
) -> Result<Vec<FaultConfig>, ConfigError> {
    tables
        .iter()
        .map(|table| fault(source, table, fleet, routers))
        .collect()
}

fn fault(
    source: &Source<'_>,
    table: &FaultTable,
    fleet: &FleetConfig,
    routers: u32,
) -> Result<FaultConfig, ConfigError> {
    let at_s = checked(
        source,
        "at_s",
        *table.at_s.get_ref(),
        table.at_s.span(),
        (0.0, MOST_SECONDS),
    )?;
    let until_s = optional(source, "until_s", &table.until_s, (0.0, MOST_SECONDS))?;
    if let Some((until_s, until)) = until_s.zip(table.until_s.as_ref())
        && until_s <= at_s
    {
        let problem = format!("until_s is {until_s}: it must be later than at_s, {at_s}");
        return Err(source.invalid(until.span(), problem));
    }
    let kind = *table.kind.get_ref();
    unused(source, table, kind)?;
    let needed = |name: &str, value: &Number, bounds| match value {
        Some(value) => checked(source, name, *value.get_ref(), value.span(), bounds),
        None => Err(source.invalid(table.kind.span(), format!("this fault needs `{name}`"))),
    };
    let kind = match kind {
        FaultName::Crash => FaultKind::Crash {
            instances: affected(source, table, fleet, false)?,
        },
        FaultName::Slow => FaultKind::Slow {
            instances: affected(source, table, fleet, false)?,
            factor: needed("factor", &table.factor, (0.01, 1000.0))?,
        },
        FaultName::RouterAway => {
            let router = table.router.as_ref().map_or(0, |router| *router.get_ref());
            if router >= routers {
                let place = table.router.as_ref().map_or(table.kind.span(), Spanned::span);
                let problem = format!("there is no router {router}: [network] has {routers}, numbered from 0");
                return Err(source.invalid(place, problem));
            }
            FaultKind::RouterAway { router }
        }
        FaultName::ControlPlaneAway => FaultKind::ControlPlaneAway,
        FaultName::TelemetryLate => FaultKind::TelemetryLate {
            instances: affected(source, table, fleet, true)?,
            delay_s: needed("delay_s", &table.delay_s, (0.0, 3600.0))?,
        },
        FaultName::TelemetryLost => FaultKind::TelemetryLost {
            instances: affected(source, table, fleet, true)?,
            share: number(source, "share", &table.share, (0.0, 1.0), 1.0)?,
        },
    };
    Ok(FaultConfig { at_s, until_s, kind })
}

/// Refuses what this kind of fault has no use for.
fn unused(source: &Source<'_>, table: &FaultTable, kind: FaultName) -> Result<(), ConfigError> {
    let whole = matches!(kind, FaultName::RouterAway | FaultName::ControlPlaneAway);
    let keys = [
        ("instance", table.instance.as_ref().map(Spanned::span), !whole),
        ("pool", table.pool.as_ref().map(Spanned::span), !whole),
        (
            "router",
            table.router.as_ref().map(Spanned::span),
            kind == FaultName::RouterAway,
        ),
        (
            "factor",
            table.factor.as_ref().map(Spanned::span),
            kind == FaultName::Slow,
        ),
        (
            "delay_s",
            table.delay_s.as_ref().map(Spanned::span),
            kind == FaultName::TelemetryLate,
        ),
        (
            "share",
            table.share.as_ref().map(Spanned::span),
            kind == FaultName::TelemetryLost,
        ),
    ];
    for (name, place, used) in keys {
        if let Some(place) = place.filter(|_| !used) {
            return Err(source.invalid(
                place,
                format!("`{name}` is nothing for this kind of fault: take it out"),
            ));
        }
    }
    Ok(())
}

/// Whom a fault strikes; `all` where nobody is named.
fn affected(
    source: &Source<'_>,
    table: &FaultTable,
    fleet: &FleetConfig,
    all: bool,
) -> Result<Vec<usize>, ConfigError> {
    match (&table.instance, &table.pool) {
        (Some(name), None) => Ok(vec![instance(source, name, fleet)?]),
        (None, Some(name)) => pool(source, name, fleet),
        (Some(_), Some(name)) => Err(source.invalid(name.span(), "`instance` and `pool`: keep one of them")),
        (None, None) if all => Ok((0..fleet.instances.len()).collect()),
        (None, None) => {
            let problem = "this fault strikes nobody: name an `instance` (POOL-NUMBER) or a `pool`";
            Err(source.invalid(table.kind.span(), problem))
        }
    }
}

pub(super) fn autoscaling(
    source: &Source<'_>,
    tables: &[AutoscalingTable],
    fleet: &FleetConfig,
) -> Result<Vec<AutoscalingConfig>, ConfigError> {
    let mut all: Vec<AutoscalingConfig> = Vec::new();
    for table in tables {
        let instances = pool(source, &table.pool, fleet)?;
        let name = table.pool.get_ref();
        if all.iter().any(|other| other.pool == *name) {
            let problem = format!("a second [[autoscaling]] for `{name}`; a pool has one");
            return Err(source.invalid(table.pool.span(), problem));
        }
        let (min, max) = (*table.min.get_ref() as usize, table.max.as_ref());
        if let Some(max) = max.filter(|max| *max.get_ref() as usize > instances.len() || *max.get_ref() == 0) {
            let problem = format!(
                "max is {}; it must be from 1 to {}, the pool's count in the fleet file",
                max.get_ref(),
                instances.len()
            );
            return Err(source.invalid(max.span(), problem));
        }
        let max = max.map_or(instances.len(), |max| *max.get_ref() as usize);
        if !(1..=max).contains(&min) {
            let problem = format!("min is {min}; it must be from 1 to max, {max}");
            return Err(source.invalid(table.min.span(), problem));
        }
        let targets = (0.01, 100_000.0);
        let target = match (&table.target_in_flight, &table.target_queue) {
            (Some(value), None) => {
                let value = checked(source, "target_in_flight", *value.get_ref(), value.span(), targets)?;
                AutoscalingTarget::InFlight(value)
            }
            (None, Some(value)) => {
                let value = checked(source, "target_queue", *value.get_ref(), value.span(), targets)?;
                AutoscalingTarget::Queue(value)
            }
            (_, Some(value)) => {
                let problem = "`target_in_flight` and `target_queue`: keep one of them";
                return Err(source.invalid(value.span(), problem));
            }
            (None, None) => {
                let problem = format!("pool `{name}` scales by nothing: give `target_in_flight` or `target_queue`");
                return Err(source.invalid(table.pool.span(), problem));
            }
        };
        let hours = (0.0, 86_400.0);
        all.push(AutoscalingConfig {
            pool: name.clone(),
            instances,
            min,
            max,
            target,
            start_up_s: optional(source, "start_up_s", &table.start_up_s, hours)?,
            cool_down_s: number(source, "cool_down_s", &table.cool_down_s, hours, 120.0)?,
            interval_s: number(source, "interval_s", &table.interval_s, (0.1, 3600.0), 5.0)?,
        });
    }
    Ok(all)
}

pub(super) fn racks(
    source: &Source<'_>,
    tables: &[RackTable],
    fleet: &FleetConfig,
) -> Result<Vec<RackConfig>, ConfigError> {
    let mut all: Vec<RackConfig> = Vec::new();
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    for table in tables {
        let mut members: Vec<usize> = Vec::new();
        for name in &table.pools {
            members.extend(pool(source, name, fleet)?);
        }
        for name in &table.instances {
            members.push(instance(source, name, fleet)?);
        }
        if members.is_empty() {
            let problem = "an empty rack: name `pools`, `instances` or both";
            return Err(source.invalid(table.name.span(), problem));
        }
        for index in &members {
            if !taken.insert(*index) {
                let problem = format!(
                    "`{}` stands in a rack already; an instance stands in one",
                    fleet.instances[*index].spec.name
                );
                return Err(source.invalid(table.name.span(), problem));
            }
        }
        let mut idle = 0.0;
        for index in &members {
            let model = fleet.instances[*index].step_model();
            idle += model.map_or(0.0, |model| model.idle_watts().0);
        }
        let cap_watts = *table.cap_watts.get_ref();
        // With less, nothing could run, however slowly.
        let least = idle * 1.05;
        if !(cap_watts.is_finite() && cap_watts >= least && cap_watts > 0.0 && cap_watts <= 1e12) {
            let problem = format!(
                "cap_watts is {cap_watts}; idle, this rack draws {idle:.0} W: it must be from {least:.0} W to 1e12"
            );
            return Err(source.invalid(table.cap_watts.span(), problem));
        }
        all.push(RackConfig {
            name: table.name.get_ref().clone(),
            instances: members,
            cap_watts,
            interval_s: number(source, "interval_s", &table.interval_s, (0.1, 3600.0), 1.0)?,
        });
    }
    Ok(all)
}

pub(super) fn facility(source: &Source<'_>, table: &FacilityTable) -> Result<FacilityConfig, ConfigError> {
    let carbon = match &table.carbon_g_per_kwh {
        None => Vec::new(),
        Some(given) => {
            let values = match given.get_ref() {
                CarbonValue::Constant(value) => vec![*value],
                CarbonValue::Hourly(values) if values.len() == 24 => values.clone(),
                CarbonValue::Hourly(values) => {
                    let problem = format!(
                        "carbon_g_per_kwh has {} values: give one for all times, or 24, one an hour",
                        values.len()
                    );
                    return Err(source.invalid(given.span(), problem));
                }
            };
            for value in &values {
                checked(source, "carbon_g_per_kwh", *value, given.span(), (0.0, 10_000.0))?;
            }
            values
        }
    };
    Ok(FacilityConfig {
        pue: number(source, "pue", &table.pue, (1.0, 10.0), DEFAULT_PUE)?,
        carbon_g_per_kwh: carbon,
    })
}
