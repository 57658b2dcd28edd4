//! Do routers that see one another late do worse than one that sees all? In simulation: the same requests, once through one
//! router, once spread over several, under each policy.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use equipoise_benches::{say, table};
use equipoise_config::{FleetConfig, FleetFile};
use equipoise_simulator::{PolicyResult, RouterOptions, SimulationOptions, simulate};
use equipoise_trace::{Lengths, WorkloadGenerator, WorkloadRecord};

/// Two-sided 95 % quantiles of Student's t, by degrees of freedom from 1.
const STUDENT_T: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// One router with full sight beside several whose state is old: end-to-end times, simulated.
#[derive(Parser)]
struct Options {
    /// Policies to run.
    #[arg(long, value_delimiter = ',', default_value = "equipoise,least-requests,power-of-two")]
    policy: Vec<String>,
    /// Routers that share the work in the second arm.
    #[arg(long, default_value_t = 8)]
    routers: u32,
    /// How old the state is when it reaches them.
    #[arg(long, default_value_t = 100.0)]
    state_age_ms: f64,
    /// How often it does.
    #[arg(long, default_value_t = 100.0)]
    state_interval_ms: f64,
    /// Requests of a run.
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// Runs, each with its own arrivals and lengths; the same for every policy and number of routers. 2 to 10.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=10))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Offered work, of what the fleet can do.
    #[arg(long, default_value_t = 0.83)]
    load: f64,
    /// Only the fleets whose name holds this.
    #[arg(long, default_value = "")]
    scene: String,
    /// The heterogeneous fleet.
    #[arg(long, default_value = "deploy/fleets/routebalance-13.toml")]
    fleet: PathBuf,
}

/// A fleet and what is asked of it.
struct Scene {
    name: String,
    fleet: FleetConfig,
    prompt: Lengths,
    output: Lengths,
}

impl Scene {
    fn workload(&self, requests: usize, rate_per_s: f64, seed: u64) -> anyhow::Result<Vec<WorkloadRecord>> {
        let generator = WorkloadGenerator {
            requests,
            rate_per_s,
            prompt: self.prompt,
            output: self.output,
            seed,
        };
        Ok(generator.generate()?.records)
    }

    /// Requests per second when everybody is always busy: all of a day's requests arrive at once.
    fn capacity_per_s(&self) -> anyhow::Result<f64> {
        let mut flooded = self.fleet.clone();
        flooded.scheduler.queue_limit = 1_000_000;
        flooded.scheduler.queue_timeout_s = 86_400.0;
        flooded.scheduler.policy = "least-requests".to_owned();
        let records = self.workload(8_000, 1e5, 0)?;
        let results = simulate(&flooded, &records, &SimulationOptions::default())?;
        let result = results.first().context("no result")?;
        Ok(result.finished as f64 / result.duration_s)
    }
}

fn scenes(options: &Options) -> anyhow::Result<Vec<Scene>> {
    let WorkloadGenerator { prompt, output, .. } = WorkloadGenerator::default();
    let six = |name: &str, keys: &str, prompt: Lengths, output: Lengths| -> anyhow::Result<Scene> {
        let text = format!(
            "[[model]]\nname = \"m\"\narchitecture = \"Llama-3.1-8B\"\nquality = 0.5\ncontext_tokens = 16384\n\
             [[pool]]\nname = \"p\"\nmodel = \"m\"\ncount = 6\n{keys}\n"
        );
        Ok(Scene {
            name: name.to_owned(),
            fleet: FleetFile::parse(&text, name)?,
            prompt,
            output,
        })
    };
    let wanted = |scene: &Scene| scene.name.contains(&options.scene);
    let short = |mean: f64, lengths: Lengths| Lengths { mean, ..lengths };
    let scenes = vec![
        six(
            "six A100, Llama-3.1-8B, 32 slots",
            "gpu = \"A100-80G\"\nlimits = { max_num_seqs = 32 }",
            prompt,
            output,
        )?,
        six(
            "the same, 8 slots, 200 tokens in, 20 out",
            "gpu = \"A100-80G\"\nlimits = { max_num_seqs = 8 }",
            short(200.0, prompt),
            short(20.0, output),
        )?,
        six(
            "six boxes of 50 ms, 4 slots",
            "service_ms = 50\nlimits = { max_num_seqs = 4 }",
            prompt,
            output,
        )?,
        Scene {
            name: options.fleet.file_stem().unwrap_or_default().display().to_string(),
            fleet: FleetFile::load(&options.fleet)?,
            prompt,
            output,
        },
    ];
    Ok(scenes.into_iter().filter(wanted).collect())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut head = vec!["policy".to_owned(), "routers".to_owned()];
    head.extend(["p50 s", "p99 s", "± 95 %", "growth %", "± 95 %", "quality", "refused"].map(str::to_owned));
    for scene in scenes(&options)? {
        let rate_per_s = options.load * scene.capacity_per_s()?;
        say(&format!(
            "\n{}: {rate_per_s:.1} requests/s, {:.0} % of what it can do; {} seeds of {} requests; state {} ms old, every {} ms",
            scene.name,
            100.0 * options.load,
            options.seeds,
            options.requests,
            options.state_age_ms,
            options.state_interval_ms
        ));
        let alone = runs(&options, &scene, rate_per_s, 1)?;
        let several = runs(&options, &scene, rate_per_s, options.routers)?;
        let mut rows = vec![head.clone()];
        for (index, policy) in options.policy.iter().enumerate() {
            let of = |runs: &[Vec<PolicyResult>]| runs.iter().map(|run| run[index].clone()).collect::<Vec<_>>();
            let (alone, several) = (of(&alone), of(&several));
            rows.push(row(policy, 1, &alone, None));
            rows.push(row(policy, options.routers, &several, Some(&alone)));
        }
        say(&table(&rows));
    }
    say(
        "\np50 and p99 of the time to the last token: means over the seeds; growth of p99: the mean of the seeds' own growths.",
    );
    Ok(())
}

/// By seed, then by policy.
fn runs(options: &Options, scene: &Scene, rate_per_s: f64, routers: u32) -> anyhow::Result<Vec<Vec<PolicyResult>>> {
    let run = |seed: u64| {
        let simulation = SimulationOptions {
            policies: options.policy.clone(),
            seed,
            routers: RouterOptions {
                count: routers,
                state_interval_s: options.state_interval_ms / 1e3,
                state_age_s: options.state_age_ms / 1e3,
            },
            ..SimulationOptions::default()
        };
        let records = scene.workload(options.requests, rate_per_s, seed)?;
        Ok(simulate(&scene.fleet, &records, &simulation)?)
    };
    (options.first_seed..options.first_seed + options.seeds)
        .map(run)
        .collect()
}

fn row(policy: &str, routers: u32, runs: &[PolicyResult], alone: Option<&[PolicyResult]>) -> Vec<String> {
    let e2e = |pick: fn(&equipoise_simulator::Percentiles) -> f64| {
        move |run: &PolicyResult| run.e2e_s.as_ref().map_or(f64::NAN, pick)
    };
    let (p50, p99) = (e2e(|e2e| e2e.p50), e2e(|e2e| e2e.p99));
    let (p50_mean, _) = mean_and_half_width(runs.iter().map(p50));
    let (p99_mean, p99_half) = mean_and_half_width(runs.iter().map(p99));
    let mut row = vec![policy.to_owned(), routers.to_string()];
    row.extend([
        format!("{p50_mean:.3}"),
        format!("{p99_mean:.3}"),
        format!("{p99_half:.3}"),
    ]);
    row.extend(alone.map_or_else(
        || [String::new(), String::new()],
        |alone| {
            let growths = runs
                .iter()
                .zip(alone)
                .map(|(run, alone)| 100.0 * (p99(run) / p99(alone) - 1.0));
            let (mean, half) = mean_and_half_width(growths);
            [format!("{mean:+.1}"), format!("{half:.1}")]
        },
    ));
    let qualities: Option<Vec<f64>> = runs.iter().map(|run| run.quality_mean).collect();
    row.push(qualities.map_or_else(
        || "-".to_owned(),
        |qualities| format!("{:.3}", mean_and_half_width(qualities.into_iter()).0),
    ));
    row.push(runs.iter().map(|run| run.refused).sum::<u64>().to_string());
    row
}

/// The mean and half the width of its 95 % confidence interval (Student's t).
fn mean_and_half_width(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let t = STUDENT_T.get(values.len().wrapping_sub(2)).copied().unwrap_or(f64::NAN);
    (mean, t * (squares / (count - 1.0) / count).sqrt())
}
