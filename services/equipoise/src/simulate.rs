//! `equipoise simulate`.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use equipoise_simulator::{SimulationOptions, render_table, simulate, simulate_recorded, to_json};
use equipoise_trace::{Malformed, ReadOptions, Workload, WorkloadGenerator};

use crate::terminal::{complain, say};
use crate::{cli, scheduling};

pub(crate) fn run(options: &cli::Simulate) -> anyhow::Result<ExitCode> {
    let fleet = scheduling::fleet(options.fleet.as_deref())?;
    let workload = workload(options)?;
    for note in &workload.notes {
        complain(&format!("note: {note}"));
    }
    let simulation = SimulationOptions {
        policies: options.policy.clone(),
        seed: options.seed,
        ..SimulationOptions::default()
    };
    if let Some(path) = &options.record {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let origin = path.display().to_string();
        simulate_recorded(&fleet, &workload.records, &simulation, BufWriter::new(file), &origin)?;
    }
    let results = simulate(&fleet, &workload.records, &simulation)?;
    let json = || to_json(&results);
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => say(json().trim_end()),
        Some(path) => {
            std::fs::write(path, json()).with_context(|| format!("cannot write {}", path.display()))?;
            say(render_table(&results).trim_end());
        }
        None => say(render_table(&results).trim_end()),
    }
    if let Some(result) = results.iter().find(|result| !result.energy.is_conserved()) {
        bail!(
            "policy {}: attributed + idle + unattributed is not what was measured; please report this",
            result.policy
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn workload(options: &cli::Simulate) -> anyhow::Result<Workload> {
    let Some(path) = &options.trace else {
        if !(options.rate.is_finite() && options.rate > 0.0) {
            bail!("--rate is {}; it must be above zero", options.rate);
        }
        let generator = WorkloadGenerator {
            requests: options.requests,
            rate_per_s: options.rate,
            seed: options.seed,
            ..WorkloadGenerator::default()
        };
        return Ok(generator.generate()?);
    };
    let malformed = if options.skip_malformed {
        Malformed::Skip
    } else {
        Malformed::Fail
    };
    Ok(Workload::load(
        path,
        &ReadOptions {
            malformed,
            ..ReadOptions::default()
        },
    )?)
}
