//! What the study says, in Markdown: the same tables go to the terminal and into the docs.

use std::fmt::Write as _;

use crate::arm::Family;
use crate::outcome::Outcome;
use crate::study::{OURS, Study};
use crate::verdict::{Cell, Standing, thriftiest};
use equipoise_types::Mean;

/// The claim's opponent: the paper's Balance preset as its experiments ran it.
pub const BALANCE: &str = "routebalance balance minmax";
/// The same without stretched quality.
const BALANCE_RAW: &str = "routebalance balance raw";

fn with_interval(mean: Mean, digits: usize) -> String {
    if mean.half.is_finite() {
        format!("{:.digits$} ± {:.digits$}", mean.mean, mean.half)
    } else {
        format!("{:.digits$}", mean.mean)
    }
}

fn three(cell: &Cell) -> String {
    let mean = |figure: fn(&Outcome) -> f64| cell.mean(figure).mean;
    format!(
        "{:.3} / {:.1} / {:.0}",
        mean(|run| run.quality),
        mean(|run| run.e2e_p95_s),
        mean(|run| run.joules)
    )
}

/// Saving of `ours` over `other` in percent, seed by seed.
fn saving(ours: &Cell, other: &Cell, figure: fn(&Outcome) -> f64) -> Mean {
    let percent: Vec<f64> = ours
        .values(figure)
        .iter()
        .zip(other.values(figure))
        .map(|(ours, other)| 100.0 * (1.0 - ours / other))
        .collect();
    Mean::of(&percent)
}

fn short(name: &str) -> &str {
    name.trim_start_matches("equipoise ")
}

/// Joules against RouteBalance Balance, scenario by scenario.
#[must_use]
pub fn against_balance(study: &Study, opponent: &str) -> String {
    let mut text = String::from(
        "| load | RouteBalance: quality / p95 s / J | ours | quality / p95 s / J | joules saved | with idle draw | best preset | joules saved |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (index, scenario) in study.scenarios.iter().enumerate() {
        let Some(other) = study.cell(index, opponent) else {
            continue;
        };
        let any = thriftiest(study.of(index, OURS), other);
        let preset = thriftiest(study.of(index, &[Family::Preset]), other);
        let percent =
            |cell: &Cell, figure: fn(&Outcome) -> f64| format!("{} %", with_interval(saving(cell, other, figure), 0));
        let (name, figures, active, idle) = any.map_or_else(
            || {
                (
                    "none meets both".to_owned(),
                    String::new(),
                    String::new(),
                    String::new(),
                )
            },
            |cell| {
                (
                    short(study.name(cell)).to_owned(),
                    three(cell),
                    percent(cell, |run| run.joules),
                    percent(cell, |run| run.joules_with_idle),
                )
            },
        );
        let (preset_name, preset_saving) = preset.map_or_else(
            || ("none meets both".to_owned(), String::new()),
            |cell| (short(study.name(cell)).to_owned(), percent(cell, |run| run.joules)),
        );
        _ = writeln!(
            text,
            "| {} | {} | {name} | {figures} | {active} | {idle} | {preset_name} | {preset_saving} |",
            scenario.name,
            three(other)
        );
    }
    text
}

/// How many baselines are dominated, equalled, ahead; and who is ahead.
#[must_use]
pub fn verdicts(study: &Study) -> String {
    let mut text = String::from(
        "| load | baselines | a preset dominates | a preset equals | ahead of the presets | ours dominate | ours equal | ahead of all of ours |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (index, scenario) in study.scenarios.iter().enumerate() {
        let verdicts = study.verdicts(index);
        let count = |of: fn(&crate::study::Verdict) -> Standing, standing: Standing| {
            verdicts.iter().filter(|verdict| of(verdict) == standing).count()
        };
        let ahead = |of: fn(&crate::study::Verdict) -> Standing| {
            let names: Vec<&str> = verdicts
                .iter()
                .filter(|verdict| of(verdict) == Standing::Behind)
                .map(|verdict| verdict.baseline.as_str())
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            scenario.name,
            verdicts.len(),
            count(|verdict| verdict.presets.0, Standing::Dominates),
            count(|verdict| verdict.presets.0, Standing::Equals),
            ahead(|verdict| verdict.presets.0),
            count(|verdict| verdict.all.0, Standing::Dominates),
            count(|verdict| verdict.all.0, Standing::Equals),
            ahead(|verdict| verdict.all.0),
        );
    }
    text
}

/// Every arm of a scenario, with who stands how against each baseline.
#[must_use]
pub fn every_arm(study: &Study, scenario: usize) -> String {
    let mut text = String::from(
        "| policy | quality | e2e p95, s | J/request | J with idle | busy engines | answers by model, % | best of ours |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let verdicts = study.verdicts(scenario);
    for cell in &study.cells[scenario] {
        let arm = &study.arms[cell.arm];
        if arm.family == Family::Sweep {
            continue;
        }
        let verdict = verdicts.iter().find(|verdict| verdict.baseline == arm.name);
        let verdict = verdict.map_or_else(String::new, |verdict| {
            let standing = match verdict.all.0 {
                Standing::Dominates => "dominates",
                Standing::Equals => "equals",
                Standing::Behind => return "**ahead of ours**".to_owned(),
            };
            format!("{} {standing}", short(&verdict.all.1))
        });
        let shares = cell.runs.first().map_or_else(String::new, |run| {
            let share = |(model, share): &(String, f64)| {
                let size = model.rsplit('-').next().unwrap_or(model);
                format!("{size} {:.0}", 100.0 * share)
            };
            run.shares.iter().map(share).collect::<Vec<_>>().join(" ")
        });
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.0} | {:.1} | {shares} | {verdict} |",
            arm.name,
            with_interval(cell.mean(|run| run.quality), 3),
            with_interval(cell.mean(|run| run.e2e_p95_s), 1),
            with_interval(cell.mean(|run| run.joules), 0),
            cell.mean(|run| run.joules_with_idle).mean,
            cell.mean(|run| run.busy_instances).mean,
        );
    }
    text
}

/// Least joules at each quality, with the tail no longer than RouteBalance Balance's.
#[must_use]
pub fn curve(study: &Study) -> String {
    let levels = [0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 0.64, 0.66];
    let mut text = String::from("| load | p95 at most, s |");
    for level in levels {
        _ = write!(text, " ≥ {level:.2} |");
    }
    text.push_str("\n| --- | --- |");
    text.push_str(&" --- |".repeat(levels.len()));
    text.push('\n');
    for (index, scenario) in study.scenarios.iter().enumerate() {
        let Some(other) = study.cell(index, BALANCE) else {
            continue;
        };
        let most_s = other.mean(|run| run.e2e_p95_s).mean;
        _ = write!(text, "| {} | {most_s:.1} |", scenario.name);
        for level in levels {
            let joules = study
                .of(index, OURS)
                .filter(|cell| {
                    cell.mean(|run| run.quality).mean >= level && cell.mean(|run| run.e2e_p95_s).mean <= most_s
                })
                .map(|cell| cell.mean(|run| run.joules).mean)
                .fold(f64::INFINITY, f64::min);
            if joules.is_finite() {
                _ = write!(text, " {joules:.0} |");
            } else {
                text.push_str(" – |");
            }
        }
        text.push('\n');
    }
    text
}

/// The parts of savings.
#[must_use]
pub fn decomposition(study: &Study) -> String {
    let mut text = String::from(
        "| where | ours | RouteBalance, J | ours, J | saved | by model choice | by placement | by prefix reuse |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in &study.parts {
        let parts = &row.parts;
        let total = parts.from.mean - parts.to.mean;
        let part = |part: Mean| format!("{} J ({:.0} %)", with_interval(part, 0), 100.0 * part.mean / total);
        let shared = if row.shared_prompts {
            ", shared system prompts"
        } else {
            ""
        };
        let reuse = if row.shared_prompts {
            part(parts.reuse)
        } else {
            "nothing to reuse".to_owned()
        };
        _ = writeln!(
            text,
            "| {}{shared} | {} | {} | {} | {total:.0} J, {:.0} % | {} | {} | {reuse} |",
            row.scenario,
            short(&row.of),
            with_interval(parts.from, 0),
            with_interval(parts.to, 0),
            100.0 * total / parts.from.mean,
            part(parts.models),
            part(parts.placement),
        );
    }
    text
}

/// The whole, for a terminal.
#[must_use]
pub fn summary(study: &Study) -> String {
    format!(
        "{} scenarios, {} policies, {} seeds; capacity {:.1} requests/s; {} prompts\n\n\
         Against RouteBalance Balance (min-max):\n{}\nAgainst RouteBalance Balance (raw):\n{}\nStandings:\n{}\n\
         Least joules per request by quality:\n{}\nWhere the saving comes from:\n{}",
        study.scenarios.len(),
        study.arms.len(),
        study.seeds,
        study.capacity_per_s,
        study.prompts,
        against_balance(study, BALANCE),
        against_balance(study, BALANCE_RAW),
        verdicts(study),
        curve(study),
        decomposition(study)
    )
}

/// One line per scenario and arm, comma-separated.
#[must_use]
pub fn csv(study: &Study) -> String {
    let mut text = String::from(
        "scenario,family,policy,quality,quality_ci95,e2e_p95_s,e2e_p95_ci95,joules,joules_ci95,joules_with_idle,\
         joules_above_idle,e2e_mean_s,ttft_p95_s,usd_per_1000,busy_instances,unserved\n",
    );
    for (index, scenario) in study.scenarios.iter().enumerate() {
        for cell in &study.cells[index] {
            let arm = &study.arms[cell.arm];
            let [quality, tail, joules] = [
                cell.mean(|run| run.quality),
                cell.mean(|run| run.e2e_p95_s),
                cell.mean(|run| run.joules),
            ];
            let rest: [fn(&Outcome) -> f64; 7] = [
                |run| run.joules_with_idle,
                |run| run.joules_above_idle,
                |run| run.e2e_mean_s,
                |run| run.ttft_p95_s,
                |run| run.usd_per_1000,
                |run| run.busy_instances,
                |run| run.unserved,
            ];
            _ = write!(
                text,
                "{},{:?},{},{:.4},{:.4},{:.3},{:.3},{:.2},{:.2}",
                scenario.name,
                arm.family,
                arm.name,
                quality.mean,
                quality.half,
                tail.mean,
                tail.half,
                joules.mean,
                joules.half
            );
            for figure in rest {
                _ = write!(text, ",{:.4}", cell.mean(figure).mean);
            }
            text.push('\n');
        }
    }
    text
}
