//! `equipoise simulate`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use equipoise_config::{FacilityConfig, FleetConfig, ScenarioFile};
use equipoise_energy::DEFAULT_PUE;
use equipoise_predict::Predictor;
use equipoise_simulator::{
    Distributions, Mismatch, PolicyResult, PromptSet, Questions, Report, RequestRecord, RequestSink as _,
    RouterOptions, RunOutcome, Scenario, SimulationOptions, SloGoal, cores, parallel_map, render_report, render_table,
    simulate, simulate_recorded, simulate_stream, to_json,
};
use equipoise_trace::{Malformed, ReadOptions, ServeGenOptions, Workload, WorkloadGenerator, WorkloadRecord};

use crate::requests::RequestFile;
use crate::terminal::{complain, say};
use crate::{cli, scheduling};

pub(crate) fn run(options: &cli::Simulate) -> anyhow::Result<ExitCode> {
    if let Some(path) = &options.scenario {
        scenario(options, path)?;
        return Ok(ExitCode::SUCCESS);
    }
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
        step_by_step: options.step_by_step,
        ..SimulationOptions::default()
    };
    if let Some(path) = &options.record {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let origin = path.display().to_string();
        simulate_recorded(&fleet, &workload.records, &simulation, BufWriter::new(file), &origin)?;
    }
    let results = if options.html.is_some() || options.requests_file.is_some() {
        reported(options, &fleet, &workload.records, &simulation)?
    } else {
        simulate(&fleet, &workload.records, &simulation)?
    };
    put(
        options.json.as_deref(),
        || Ok(to_json(&results)),
        || render_table(&results),
    )?;
    if let Some(result) = results.iter().find(|result| !result.energy.is_conserved()) {
        bail!(
            "policy {}: attributed + idle + unattributed is not what was measured; please report this",
            result.policy
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the policies and writes what was asked for of every request.
fn reported(
    options: &cli::Simulate,
    fleet: &FleetConfig,
    records: &[WorkloadRecord],
    simulation: &SimulationOptions,
) -> anyhow::Result<Vec<PolicyResult>> {
    let mut requests = options.requests_file.as_deref().map(RequestFile::create).transpose()?;
    let run = |policy: &String, file: &mut Option<RequestFile>| {
        let one = SimulationOptions {
            policies: vec![policy.clone()],
            ..simulation.clone()
        };
        let mut distributions = Distributions::default();
        let mut sink = |record: &RequestRecord<'_>| {
            distributions.request(record);
            if let Some(file) = file {
                file.request(record);
            }
        };
        let result = simulate_stream(fleet, records.iter().cloned().map(Ok), &one, &mut sink)?;
        anyhow::Ok((result, distributions))
    };
    // One file takes one run after the other.
    let runs: Vec<(PolicyResult, Distributions)> = if requests.is_some() {
        let mut runs = Vec::new();
        for policy in &options.policy {
            if let Some(file) = &mut requests {
                file.begin(policy, options.seed);
            }
            runs.push(run(policy, &mut requests)?);
        }
        runs
    } else {
        let work = |policy: &String| run(policy, &mut None);
        let runs = parallel_map(options.policy.iter().collect(), cores(), work);
        runs.into_iter().collect::<anyhow::Result<_>>()?
    };
    if let Some(file) = requests {
        file.finish()?;
    }
    if let Some(path) = &options.html {
        let facility = FacilityConfig {
            pue: DEFAULT_PUE,
            carbon_g_per_kwh: Vec::new(),
        };
        let outcome = |(result, seen): &(PolicyResult, Distributions)| {
            RunOutcome::of(&result.policy, None, result, seen.clone(), &facility)
        };
        let report = Report {
            title: "Policies compared".to_owned(),
            notes: notes(options, fleet, records.len(), simulation),
            runs: runs.iter().map(outcome).collect(),
        };
        write_page(path, &report)?;
    }
    Ok(runs.into_iter().map(|(result, _)| result).collect())
}

/// What was simulated, in words.
fn notes(options: &cli::Simulate, fleet: &FleetConfig, requests: usize, simulation: &SimulationOptions) -> Vec<String> {
    let name = |path: &Path| {
        path.file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let file = options
        .fleet
        .as_deref()
        .map_or_else(|| "the built-in fleet".to_owned(), name);
    let source = options.trace.as_deref().map_or_else(
        || format!("Poisson arrivals, {} requests/s", options.rate),
        |path| format!("the trace {}", name(path)),
    );
    let sd = simulation.mismatch.speed_sd;
    vec![
        format!("Fleet: {} instances of {file}.", fleet.instances.len()),
        format!("Workload: {requests} requests, {source}; seed {}.", options.seed),
        format!("Mismatch of the engines: standard deviation of log speed {sd}."),
    ]
}

pub(crate) fn write_page(path: &Path, report: &Report) -> anyhow::Result<()> {
    std::fs::write(path, report.html()).with_context(|| format!("cannot write {}", path.display()))
}

/// Every policy of a scenario file, with every seed.
fn scenario(options: &cli::Simulate, path: &Path) -> anyhow::Result<()> {
    let scenario = Scenario::open(ScenarioFile::load(path)?, options.data.as_deref())?;
    let cells = scenario.cells(false);
    let runs: Vec<RunOutcome> = if let Some(file) = &options.requests_file {
        let mut file = RequestFile::create(file)?;
        let mut runs = Vec::new();
        for cell in &cells {
            file.begin(&cell.arm.label, cell.seed);
            runs.push(scenario.run(cell, &mut file)?);
        }
        file.finish()?;
        runs
    } else {
        let runs = parallel_map(cells, cores(), |cell| scenario.run(&cell, &mut ()));
        runs.into_iter().collect::<Result<_, _>>()?
    };
    let report = Report {
        title: scenario.config().name.clone(),
        notes: scenario.notes(),
        runs,
    };
    if let Some(path) = &options.html {
        write_page(path, &report)?;
    }
    let json = || Ok(serde_json::to_string_pretty(&report.runs)?);
    put(options.json.as_deref(), json, || render_report(&report))
}

/// The table, and the figures as JSON where somebody asked for them: beside it, or in its place for `-`.
fn put(
    path: Option<&Path>,
    json: impl FnOnce() -> anyhow::Result<String>,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match path {
        Some(path) if path == Path::new("-") => say(json()?.trim_end()),
        Some(path) => {
            std::fs::write(path, json()?).with_context(|| format!("cannot write {}", path.display()))?;
            say(table().trim_end());
        }
        None => say(table().trim_end()),
    }
    Ok(())
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
