//! Do chance constraints bind? A TTFT limit at a confidence, at loads up to near capacity, on engines that are not what the
//! scheduler believes.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use clap::Parser;
use equipoise_benches::{say, table};
use equipoise_config::{FleetConfig, FleetFile};
use equipoise_simulator::{Mismatch, SimulationOptions, SloGoal, SloResult, simulate};
use equipoise_trace::{ReadOptions, Workload, WorkloadGenerator, WorkloadRecord};
use equipoise_types::Timestamp;

/// Requests of a run that looks for the capacity...
const SATURATION_REQUESTS: usize = 8_000;
/// ...at rising rates, up to so many times what was answered.
const OVERLOAD: f64 = 3.0;

/// Simulates an SLO at rising load and prints who was admitted, who was late, and who would have been in time without it.
#[derive(Parser)]
struct Options {
    /// Fleet files.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "deploy/fleets/routebalance-13.toml,deploy/fleets/demo.toml"
    )]
    fleet: Vec<PathBuf>,
    /// An Azure trace to scale in time, beside Poisson arrivals.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// The policy.
    #[arg(long, default_value = "equipoise")]
    policy: String,
    /// Loads, percent of capacity.
    #[arg(long, value_delimiter = ',', default_value = "20,30,40,50,60,70,80,90")]
    load: Vec<u32>,
    /// Runs of each row, with seeds 1, 2, ...
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Requests of a run.
    #[arg(long, default_value_t = 6000)]
    requests: usize,
    /// Limit of the time to first token, milliseconds.
    #[arg(long, default_value_t = 500.0)]
    ttft_slo_ms: f64,
    /// Limit of the end-to-end time, milliseconds.
    #[arg(long)]
    e2e_slo_ms: Option<f64>,
    /// With which probability.
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
    /// How far the engines are from the model: standard deviation of speed, noise and drift.
    #[arg(long, default_value_t = 0.15)]
    mismatch: f64,
}

impl Options {
    fn goal(&self, enforced: bool) -> SloGoal {
        SloGoal {
            ttft_s: Some(self.ttft_slo_ms / 1e3),
            e2e_s: self.e2e_slo_ms.map(|ms| ms / 1e3),
            confidence: self.confidence,
            enforced,
        }
    }

    fn simulation(&self, seed: u64, slo: Option<SloGoal>) -> SimulationOptions {
        SimulationOptions {
            policies: vec![self.policy.clone()],
            seed,
            mismatch: Mismatch::of(self.mismatch),
            slo,
            ..SimulationOptions::default()
        }
    }
}

/// Where arrivals are from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Poisson,
    Trace(&'a [WorkloadRecord]),
}

impl Source<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Poisson => "Poisson",
            Self::Trace(_) => "trace",
        }
    }

    /// `requests` requests at a mean of `rate_per_s`. Seeds take different parts of a trace.
    fn workload(self, requests: usize, rate_per_s: f64, seed: u64) -> anyhow::Result<Vec<WorkloadRecord>> {
        let records = match self {
            Self::Poisson => {
                return Ok(WorkloadGenerator {
                    requests,
                    rate_per_s,
                    seed,
                    ..WorkloadGenerator::default()
                }
                .generate()?
                .records);
            }
            Self::Trace(records) => records,
        };
        let requests = requests.min(records.len());
        let start = (seed as usize * requests) % (records.len() - requests + 1);
        let part = &records[start..start + requests];
        let (first, last) = (part[0].arrival, part[requests - 1].arrival);
        let scale = requests as f64 / rate_per_s / last.secs_since(first).max(1e-9);
        let scaled = part.iter().map(|record| WorkloadRecord {
            arrival: Timestamp::from_secs_f64(record.arrival.secs_since(first) * scale),
            ..record.clone()
        });
        Ok(scaled.collect())
    }
}

/// Requests per second that the fleet answers when there are always more: the most under the policy itself and under one
/// that keeps every instance busy, whatever it costs.
fn capacity(options: &Options, fleet: &FleetConfig, source: Source<'_>) -> anyhow::Result<f64> {
    let (mut rate_per_s, mut best) = (10.0, 0.0_f64);
    while rate_per_s < OVERLOAD * best || best == 0.0 {
        let records = source.workload(SATURATION_REQUESTS, rate_per_s, 1)?;
        let simulation = SimulationOptions {
            policies: vec![options.policy.clone(), "least-requests".to_owned()],
            ..options.simulation(1, None)
        };
        for result in simulate(fleet, &records, &simulation)? {
            best = best.max(result.finished as f64 / result.duration_s);
        }
        rate_per_s *= 1.5;
    }
    Ok(best)
}

struct Row {
    cells: Vec<String>,
    violated_share: f64,
}

fn row(
    options: &Options,
    fleet: &FleetConfig,
    source: Source<'_>,
    (name, capacity): (&str, f64),
    (load, seed): (u32, u64),
) -> anyhow::Result<Row> {
    let rate_per_s = capacity * f64::from(load) / 100.0;
    let records = source.workload(options.requests, rate_per_s, seed)?;
    let run = |enforced| -> anyhow::Result<SloResult> {
        let simulation = options.simulation(seed, Some(options.goal(enforced)));
        let results = simulate(fleet, &records, &simulation)?;
        results.first().and_then(|result| result.slo).context("no result")
    };
    let (bound, free) = (run(true)?, run(false)?);
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let of = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
    let total = (bound.admitted + bound.refused).max(1);
    let [least, most] = bound.violated_share_95;
    let cells = vec![
        name.to_owned(),
        source.name().to_owned(),
        load.to_string(),
        seed.to_string(),
        percent(bound.admitted as f64 / total as f64),
        percent(bound.violated_share),
        format!("{}-{}", percent(least), percent(most)),
        of(bound.p95_of_limit),
        percent(bound.goodput_share),
        percent(free.goodput_share),
        of(bound.ttft_coverage),
        of(bound.e2e_coverage),
    ];
    Ok(Row {
        cells,
        violated_share: bound.violated_share,
    })
}

const HEAD: [&str; 12] = [
    "fleet",
    "arrivals",
    "load %",
    "seed",
    "admitted %",
    "late %",
    "95 %",
    "p95 of limit %",
    "in time %",
    "unbound %",
    "TTFT cover %",
    "E2E cover %",
];

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let trace = match &options.trace {
        Some(path) => Some(Workload::load(path, &ReadOptions::default())?.records),
        None => None,
    };
    let sources = [Some(Source::Poisson), trace.as_deref().map(Source::Trace)];
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut worst = 0.0_f64;
    for path in &options.fleet {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path
            .file_stem()
            .map_or_else(String::new, |stem| stem.display().to_string());
        let fleet = FleetFile::parse(&text, &name)?;
        for source in sources.into_iter().flatten() {
            let capacity = capacity(&options, &fleet, source)?;
            say(&format!("{name}, {}: capacity {capacity:.1} requests/s", source.name()));
            let runs: Vec<(u32, u64)> = options
                .load
                .iter()
                .flat_map(|&load| (1..=options.seeds).map(move |seed| (load, seed)))
                .collect();
            for row in all(&runs, |run| row(&options, &fleet, source, (&name, capacity), run))? {
                worst = worst.max(row.violated_share);
                rows.push(row.cells);
            }
        }
    }
    say(&table(&rows));
    say(&format!(
        "late: not in time, of those admitted; the most in any row: {:.1} %. In time: of all requests. Unbound: the same of a run \
         whose scheduler does not know the limit.",
        100.0 * worst
    ));
    Ok(())
}

/// Runs on two threads and answers in order.
fn all(runs: &[(u32, u64)], one: impl Fn((u32, u64)) -> anyhow::Result<Row> + Sync) -> anyhow::Result<Vec<Row>> {
    let next = Mutex::new(runs.iter().enumerate());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut done = Vec::new();
        while let Some((index, &run)) = take() {
            done.push((index, one(run)));
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        let joined = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.flatten().collect::<Vec<_>>()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, row)| row).collect()
}
