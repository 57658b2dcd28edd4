//! Which policies are compared, with which settings and seeds.

use std::ops::Range;

use equipoise_policy::{PolicySettings, SettingsError, Weights, by_name};
use toml::Spanned;

use super::checked;
use super::table::{PolicyTable, SweepTable};
use crate::error::Source;
use crate::{ArmConfig, ConfigError, FleetConfig, SweepConfig};

/// More arms, rates or seeds than this are a slip of the hand.
const MOST: usize = 10_000;

/// All arms of the scenario, and what a sweep adds.
pub(super) fn arms(
    source: &Source<'_>,
    names: &[Spanned<String>],
    tables: &[Spanned<PolicyTable>],
    sweep: Option<SweepTable>,
    fleet: &FleetConfig,
) -> Result<(Vec<ArmConfig>, SweepConfig), ConfigError> {
    let own = fleet.scheduler.settings;
    let mut arms: Vec<ArmConfig> = Vec::new();
    for name in names {
        let arm = ArmConfig {
            label: name.get_ref().clone(),
            policy: name.get_ref().clone(),
            settings: own,
        };
        add(source, &mut arms, &[], arm, name.span())?;
    }
    for table in tables {
        let place = table.span();
        let arm = arm(source, table.get_ref(), own)?;
        add(source, &mut arms, &[], arm, place)?;
    }
    let mut more = SweepConfig::default();
    if let Some(sweep) = sweep {
        for rate in &sweep.rates_per_s {
            let value = checked(source, "a rate", *rate.get_ref(), rate.span(), (1e-6, 1e6))?;
            if more.rates_per_s.contains(&value) {
                return Err(source.invalid(rate.span(), format!("{value} is there already: each rate once")));
            }
            more.rates_per_s.push(value);
        }
        for preset in sweep.presets {
            let weights = preset.get_ref().weights();
            let arm = ours(format!("equipoise {}", preset.get_ref().name()), weights, own);
            add(source, &mut more.arms, &arms, arm, preset.span())?;
        }
        for table in sweep.weights {
            let weights = Weights::from(*table.get_ref());
            let arm = ours(format!("equipoise {}", in_words(weights)), weights, own);
            add(source, &mut more.arms, &arms, arm, table.span())?;
        }
        if let Some(seeds) = &sweep.seeds {
            more.seeds = self::seeds(source, seeds)?;
        }
    }
    if arms.is_empty() {
        arms.push(ArmConfig {
            label: fleet.scheduler.policy.clone(),
            policy: fleet.scheduler.policy.clone(),
            settings: own,
        });
    }
    Ok((arms, more))
}

/// `0.8/0.1/0.05/0.05`: quality, latency, energy, cost.
fn in_words(weights: Weights) -> String {
    let Weights {
        quality,
        latency,
        energy,
        cost,
    } = weights;
    format!("{quality}/{latency}/{energy}/{cost}")
}

fn ours(label: String, weights: Weights, own: PolicySettings) -> ArmConfig {
    ArmConfig {
        label,
        policy: "equipoise".to_owned(),
        settings: PolicySettings { weights, ..own },
    }
}

/// Appends an arm that makes sense and whose label is new.
fn add(
    source: &Source<'_>,
    arms: &mut Vec<ArmConfig>,
    others: &[ArmConfig],
    arm: ArmConfig,
    place: Range<usize>,
) -> Result<(), ConfigError> {
    let wrong = |error: SettingsError| source.invalid(place.clone(), format!("policy `{}`: {error}", arm.policy));
    arm.settings.validate().map_err(wrong)?;
    by_name(&arm.policy, &arm.settings).map_err(wrong)?;
    if arms.iter().chain(others).any(|other| other.label == arm.label) {
        let problem = format!(
            "`{}` is there already: give a [[policy]] a `label` of its own",
            arm.label
        );
        return Err(source.invalid(place, problem));
    }
    if arms.len() >= MOST {
        return Err(source.invalid(place, format!("more than {MOST} policies: split the scenario")));
    }
    arms.push(arm);
    Ok(())
}

fn arm(source: &Source<'_>, table: &PolicyTable, own: PolicySettings) -> Result<ArmConfig, ConfigError> {
    let policy = table.policy.get_ref().clone();
    let mut settings = table.settings.unwrap_or(own);
    if let (Some(_), Some(weights)) = (&table.preset, &table.weights) {
        return Err(source.invalid(weights.span(), "`preset` and `weights` say the same: keep one of them"));
    }
    let mut label = policy.clone();
    if let Some(preset) = &table.preset {
        let name = preset.get_ref().name();
        if policy != "equipoise" {
            let problem = format!("`{policy}` has no presets: give `weights`, or a variant by its name");
            return Err(source.invalid(preset.span(), problem));
        }
        settings.weights = preset.get_ref().weights();
        label = format!("equipoise {name}");
    }
    if let Some(weights) = &table.weights {
        let given = Weights::from(*weights.get_ref());
        if policy.starts_with("routebalance") {
            settings.routebalance.weights = given;
        } else {
            settings.weights = given;
        }
        label = format!("{policy} {}", in_words(given));
    }
    if let Some(given) = &table.label {
        given.get_ref().trim().clone_into(&mut label);
        if label.is_empty() || label.chars().count() > 60 || label.contains(char::is_control) {
            return Err(source.invalid(given.span(), "a label has 1 to 60 characters, on one line"));
        }
    }
    Ok(ArmConfig {
        label,
        policy,
        settings,
    })
}

/// Seeds, each once.
pub(super) fn seeds(source: &Source<'_>, seeds: &Spanned<Vec<u64>>) -> Result<Vec<u64>, ConfigError> {
    let list = seeds.get_ref();
    if list.is_empty() || list.len() > MOST {
        let problem = format!("{} seeds; there must be 1 to {MOST}", list.len());
        return Err(source.invalid(seeds.span(), problem));
    }
    let mut sorted = list.clone();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let problem = format!(
            "the seed {} is there twice: the same run again proves nothing",
            twice[0]
        );
        return Err(source.invalid(seeds.span(), problem));
    }
    Ok(list.clone())
}
