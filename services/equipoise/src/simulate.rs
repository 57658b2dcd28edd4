//! `equipoise simulate`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use equipoise_config::FleetConfig;
use equipoise_predict::Predictor;
use equipoise_simulator::{
    Mismatch, PromptSet, Questions, RouterOptions, SimulationOptions, SloGoal, render_table, simulate,
    simulate_recorded, to_json,
};
use equipoise_trace::{Malformed, ReadOptions, ServeGenOptions, Workload, WorkloadGenerator};

use crate::terminal::{complain, say};
use crate::{cli, scheduling};

pub(crate) fn run(options: &cli::Simulate) -> anyhow::Result<ExitCode> {
    let fleet = scheduling::fleet(options.fleet.as_deref())?;
    let mut workload = workload(options)?;
    for note in &workload.notes {
        complain(&format!("note: {note}"));
    }
    let questions = questions(options, &fleet, workload.records.len())?;
    if let Some(questions) = &questions {
        questions.put_into(&mut workload.records);
    }
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    let slo = (options.ttft_slo_ms.is_some() || options.e2e_slo_ms.is_some()).then_some(SloGoal {
        ttft_s: seconds(options.ttft_slo_ms),
        e2e_s: seconds(options.e2e_slo_ms),
        confidence: options.slo_confidence,
        enforced: true,
    });
    let mismatch = options.mismatch.unwrap_or(if slo.is_some() { 0.15 } else { 0.0 });
    if !(0.0..=2.0).contains(&mismatch) {
        bail!("--mismatch is {mismatch}; it must be from 0 to 2");
    }
    let simulation = SimulationOptions {
        slo,
        mismatch: Mismatch::of(mismatch),
        questions: questions.map(Arc::new),
        policies: options.policy.clone(),
        seed: options.seed,
        routers: RouterOptions {
            count: options.routers,
            state_interval_s: options.state_interval_ms / 1e3,
            state_age_s: options.state_age_ms / 1e3,
        },
        feedback_share: options.feedback,
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

/// A graded prompt for each request, if asked for.
fn questions(options: &cli::Simulate, fleet: &FleetConfig, requests: usize) -> anyhow::Result<Option<Questions>> {
    let (Some(cli::Prompts::Zeroeval), Some(data)) = (options.prompts, &options.data) else {
        return Ok(None);
    };
    let models: BTreeSet<String> = fleet.instances.iter().map(|one| one.spec.model.name.clone()).collect();
    let models: Vec<String> = models.into_iter().collect();
    let set = PromptSet::zero_eval(data, &models, Some(&Predictor::embedded()?))
        .with_context(|| format!("--prompts zeroeval with the data folder {}", data.display()))?;
    Ok(Some(set.ask(requests, options.seed)))
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
            format: options.format,
            malformed,
            serve_gen: ServeGenOptions {
                seed: options.seed,
                ..ServeGenOptions::default()
            },
            ..ReadOptions::default()
        },
    )?)
}
