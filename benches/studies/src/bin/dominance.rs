//! Every policy at every load on a fleet whose speed, energy and answers were measured: who dominates whom on quality,
//! end-to-end tail and joules, and where a saving comes from.
//!
//!     EQUIPOISE_DATA=... cargo run --release -p equipoise-studies --bin dominance [-- --quick]

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: its table goes to standard output, its progress to standard error"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use equipoise_studies::arm::{Arm, Family};
use equipoise_studies::scenario::{self, Scenario};
use equipoise_studies::setting::Setting;
use equipoise_studies::study::{self, Decomposition, OURS, Study};
use equipoise_studies::verdict::thriftiest;
use equipoise_studies::{chart, decomposition, page};

#[derive(Debug, Parser)]
#[command(about = "Every policy at every load on a measured fleet", max_term_width = 100)]
struct Options {
    /// The folder that holds `quality/` and `traces/`.
    #[arg(long, value_name = "DIR", env = "EQUIPOISE_DATA")]
    data: PathBuf,
    /// The fleet.
    #[arg(long, value_name = "FILE", default_value = "deploy/fleets/measured-13.toml")]
    fleet: PathBuf,
    /// Loads, as shares of the capacity.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95"
    )]
    loads: Vec<f64>,
    /// Seeds, from 1.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// How long requests come at a load, seconds.
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,
    /// Requests at a load at least.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Only the policies whose name has one of these in it. Default: all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where results are written: dominance.csv, dominance.json, one SVG for each scenario.
    #[arg(long, value_name = "DIR", default_value = "target/dominance")]
    out: PathBuf,
    /// One seed, three loads, half a minute: a look, no result.
    #[arg(long)]
    quick: bool,
}

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.loads, options.seeds, options.seconds, options.requests) = (vec![0.2, 0.5, 0.8], 1, 20.0, 500);
    }
    if let Some(load) = options.loads.iter().find(|load| !(0.01..=1.5).contains(*load)) {
        bail!("load {load} is no share of the capacity: give 0.1 for 10 %");
    }
    let began = Instant::now();
    let setting = Setting::read(&options.fleet, &options.data)?;
    let capacity_per_s = scenario::capacity_per_s(&setting, 10_000, 1)?;
    eprintln!("capacity {capacity_per_s:.1} requests/s");
    let azure = options.data.join("traces/azure_2023_conv.csv");
    let azure = (!options.quick).then_some(azure.as_path());
    let scenarios = study::scenarios(
        &options.loads,
        capacity_per_s,
        options.seconds,
        options.requests,
        azure,
        (0.4 * capacity_per_s * options.seconds) as usize,
    )?;
    let mut arms = Arm::all_of_ours();
    arms.extend(Arm::baselines());
    arms.retain(|arm| options.only.is_empty() || options.only.iter().any(|part| arm.name.contains(part)));
    let tell = |name: &str| eprintln!("{:5.0} s  {name}", began.elapsed().as_secs_f64());
    let cells = study::run(&setting, &arms, &scenarios, options.seeds, tell)?;
    let mut study = Study {
        capacity_per_s,
        seeds: options.seeds,
        prompts: setting.prompts.prompts().len(),
        arms,
        scenarios,
        cells,
        parts: Vec::new(),
    };
    study.parts = decompose(&setting, &study)?;
    write(&options, &study)?;
    println!("{}", page::summary(&study));
    for scenario in [0.2, 0.5, 0.8]
        .into_iter()
        .filter_map(|load| at(&study.scenarios, load))
    {
        println!(
            "{}:\n{}",
            study.scenarios[scenario].name,
            page::every_arm(&study, scenario)
        );
    }
    eprintln!(
        "{} runs in {:.0} s; written to {}",
        study.arms.len() * study.scenarios.len() * options.seeds as usize,
        began.elapsed().as_secs_f64(),
        options.out.display()
    );
    Ok(())
}

/// The Poisson scenario of a load.
fn at(scenarios: &[Scenario], load: f64) -> Option<usize> {
    let is_it = |scenario: &Scenario| scenario.name.starts_with("Poisson") && (scenario.load - load).abs() < 1e-9;
    scenarios.iter().position(is_it)
}

/// Splits the saving over RouteBalance Balance of the thriftiest of ours that is as good and as quick.
fn decompose(setting: &Setting, study: &Study) -> anyhow::Result<Vec<Decomposition>> {
    let mut rows = Vec::new();
    for load in [0.2, 0.5, 0.8] {
        let Some(index) = at(&study.scenarios, load) else {
            continue;
        };
        let Some(other) = study.cell(index, page::BALANCE) else {
            continue;
        };
        let Some(ours) = thriftiest(study.of(index, OURS), other) else {
            continue;
        };
        let (from, to): (&Arm, &Arm) = (&study.arms[other.arm], &study.arms[ours.arm]);
        for shared_prompts in [false, true] {
            let arrivals = &study.scenarios[index].arrivals;
            rows.push(Decomposition {
                scenario: study.scenarios[index].name.clone(),
                of: to.name.clone(),
                over: from.name.clone(),
                shared_prompts,
                parts: decomposition::parts(setting, from, to, arrivals, study.seeds, shared_prompts)?,
            });
        }
    }
    Ok(rows)
}

fn write(options: &Options, study: &Study) -> anyhow::Result<()> {
    let out = &options.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let save = |name: &str, text: &str| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    save("dominance.csv", &page::csv(study))?;
    save("summary.md", &page::summary(study))?;
    for (index, scenario) in study.scenarios.iter().enumerate() {
        let slug = scenario.name.replace(" %", "").replace(' ', "-").to_lowercase();
        let title = format!("{} of {:.0} requests/s", scenario.name, study.capacity_per_s);
        save(
            &format!("{slug}.svg"),
            &chart::frontier(&title, &study.arms, &study.cells[index]),
        )?;
        save(&format!("{slug}.md"), &page::every_arm(study, index))?;
    }
    let verdicts: Vec<_> = (0..study.scenarios.len())
        .map(|index| (&study.scenarios[index].name, study.verdicts(index)))
        .collect();
    let ours = study
        .arms
        .iter()
        .filter(|arm| [Family::Preset, Family::Sweep].contains(&arm.family));
    let document = serde_json::json!({
        "equipoise_dominance": 1,
        "capacity_per_s": study.capacity_per_s,
        "seeds": study.seeds,
        "prompts": study.prompts,
        "weights": ours.map(|arm| (&arm.name, arm.settings.weights)).collect::<Vec<_>>(),
        "verdicts": verdicts,
        "parts": study.parts,
        "scenarios": study.scenarios.iter().map(|scenario| (&scenario.name, scenario.load)).collect::<Vec<_>>(),
        "cells": study.cells,
    });
    save("dominance.json", &serde_json::to_string_pretty(&document)?)
}
