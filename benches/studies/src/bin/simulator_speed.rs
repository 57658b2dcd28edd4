//! How fast and how lean the simulator is: requests a CPU second and peak memory, each row in a process of its own.
//!
//! `cargo run --release -p equipoise-studies --bin simulator-speed` prints all rows; names as arguments print these only.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use equipoise_config::{FleetConfig, FleetFile};
use equipoise_simulator::{PolicyResult, SimulationOptions, simulate_stream};
use equipoise_studies::speed::{Azure, Usage};
use equipoise_trace::{ReadOptions, ServeGenOptions, TraceError, WorkloadReader, WorkloadRecord};

#[derive(Parser)]
#[command(about = "How fast and how lean the simulator is")]
struct Options {
    /// Rows to print; none: all.
    rows: Vec<String>,
    /// The folder of reference data: `traces/azure_2023_conv.csv`, `traces/servegen_deepseek_r1.tar.gz`.
    #[arg(long, env = "EQUIPOISE_DATA")]
    data: PathBuf,
    /// Run this row in this process.
    #[arg(long, hide = true)]
    here: bool,
    /// Requests, in place of the row's own number.
    #[arg(long)]
    requests: Option<usize>,
    /// Simulate every step on its own.
    #[arg(long)]
    step_by_step: bool,
    /// Print the row's requests for another simulator, and the step times of our engine model ahead of them.
    #[arg(long, hide = true)]
    dump: bool,
}

/// One measurement.
struct Row {
    name: &'static str,
    policy: &'static str,
    instances: u32,
    rate_per_s: f64,
    requests: usize,
    /// From the ServeGen set, not with Azure's lengths.
    serve_gen: bool,
}

const fn azure(name: &'static str, policy: &'static str, instances: u32, rate_per_s: f64, requests: usize) -> Row {
    Row {
        name,
        policy,
        instances,
        rate_per_s,
        requests,
        serve_gen: false,
    }
}

/// The small rows are those of published simulators: 12 A30 with a 7B model at 12 requests/s (Vidur's, aisimulate's), and 100
/// at 100 requests/s.
const ROWS: [Row; 10] = [
    azure("round-robin-12", "round-robin", 12, 12.0, 300_000),
    azure("round-robin-100", "round-robin", 100, 100.0, 100_000),
    azure("least-requests-12", "least-requests", 12, 12.0, 1_000_000),
    azure("equipoise-12", "equipoise", 12, 12.0, 300_000),
    azure("least-requests-100", "least-requests", 100, 100.0, 100_000),
    azure("equipoise-100", "equipoise", 100, 100.0, 100_000),
    azure("ten-million", "least-requests", 12, 12.0, 10_000_000),
    Row {
        serve_gen: true,
        ..azure("servegen-hour", "power-of-two", 1000, 1000.0, 3_600_000)
    },
    Row {
        serve_gen: true,
        ..azure("servegen-day", "power-of-two", 1000, 1000.0, 86_400_000)
    },
    Row {
        serve_gen: true,
        ..azure("servegen-equipoise", "equipoise", 1000, 1000.0, 3_600_000)
    },
];

/// Rows that take long: only who asks for one gets it.
const LONG: [&str; 2] = ["servegen-day", "servegen-equipoise"];

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.here || options.dump {
        let name = options.rows.first().context("which row?")?;
        let row = ROWS.iter().find(|row| row.name == name).context("no such row")?;
        return if options.dump {
            dump(row, &options)
        } else {
            run(row, &options)
        };
    }
    for name in &options.rows {
        if !ROWS.iter().any(|row| row.name == name) {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            bail!("no row is called `{name}`; there are {}", names.join(", "));
        }
    }
    say(
        "| row | requests | CPU s | requests/CPU s | answer tokens/CPU s | peak RSS MB | finished | TTFT p50/p99 s | E2E p50/p99 s | J/request |",
    );
    say("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    for row in &ROWS {
        let asked = options.rows.iter().any(|name| name == row.name);
        let wanted = asked || (options.rows.is_empty() && !LONG.contains(&row.name));
        if wanted {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--here", row.name, "--data"]).arg(&options.data);
            if let Some(requests) = options.requests {
                command.args(["--requests", &requests.to_string()]);
            }
            if options.step_by_step {
                command.arg("--step-by-step");
            }
            if !command.status()?.success() {
                bail!("row {} failed", row.name);
            }
        }
    }
    Ok(())
}

fn fleet(row: &Row) -> anyhow::Result<FleetConfig> {
    // A reasoning set has long answers: an H200 holds more of them at once than an A30.
    let (architecture, gpu, tokens) = if row.serve_gen {
        ("Qwen2.5-7B", "H200", 2048)
    } else {
        ("Qwen2.5-7B", "A30", 512)
    };
    let text = format!(
        "[[model]]\nname = \"m\"\narchitecture = \"{architecture}\"\nquality = 0.5\ncontext_tokens = 32768\n\
         [[pool]]\nname = \"p\"\nmodel = \"m\"\ngpu = \"{gpu}\"\ncount = {}\n\
         limits = {{ max_num_seqs = 128, max_num_batched_tokens = {tokens} }}\n",
        row.instances
    );
    Ok(FleetFile::parse(&text, row.name)?)
}

fn run(row: &Row, options: &Options) -> anyhow::Result<()> {
    let requests = options.requests.unwrap_or(row.requests);
    let fleet = fleet(row)?;
    let simulation = SimulationOptions {
        policies: vec![row.policy.to_owned()],
        step_by_step: options.step_by_step,
        ..SimulationOptions::default()
    };
    let (usage, began) = (Usage::now()?, Instant::now());
    let result = if row.serve_gen {
        let read = ReadOptions {
            limit: Some(requests),
            serve_gen: ServeGenOptions {
                rate_per_s: Some(row.rate_per_s),
                ..ServeGenOptions::default()
            },
            ..ReadOptions::default()
        };
        let reader = WorkloadReader::open(&options.data.join("traces/servegen_deepseek_r1.tar.gz"), &read)?;
        simulate_all(&fleet, reader, &simulation)?
    } else {
        let azure = Azure::open(&options.data, row.rate_per_s, requests)?;
        simulate_all(&fleet, azure.map(Ok), &simulation)?
    };
    report(row, &result, usage.until_now()?, began.elapsed());
    Ok(())
}

/// The same requests as lines of arrival, prompt and answer tokens.
fn dump(row: &Row, options: &Options) -> anyhow::Result<()> {
    let fleet = fleet(row)?;
    let model = fleet.instances.first().context("no instance")?.step_model()?;
    let step = |seqs, kv_tokens| model.decode_step_seconds(seqs, kv_tokens);
    let per_sequence_s = (step(33, 0) - step(1, 0)) / 32.0;
    let per_kv_token_s = (step(8, 100_000) - step(8, 0)) / 1e5;
    let per_prompt_token_s = (model.prefill_seconds(512, 0, 0, 0) - step(1, 0)) / 511.0;
    let fixed_s = step(1, 0) - per_sequence_s;
    say(&format!(
        "{fixed_s} {per_sequence_s} {per_kv_token_s} {per_prompt_token_s}"
    ));
    let requests = options.requests.unwrap_or(row.requests);
    for record in Azure::open(&options.data, row.rate_per_s, requests)? {
        let arrival_s = record.arrival.as_secs_f64();
        say(&format!(
            "{arrival_s:.9} {} {}",
            record.prompt_tokens, record.output_tokens
        ));
    }
    Ok(())
}

fn simulate_all(
    fleet: &FleetConfig,
    workload: impl Iterator<Item = Result<WorkloadRecord, TraceError>>,
    options: &SimulationOptions,
) -> anyhow::Result<PolicyResult> {
    Ok(simulate_stream(fleet, workload, options, &mut ())?)
}

fn report(row: &Row, result: &PolicyResult, usage: Usage, _wall: Duration) {
    let cpu_s = usage.cpu.as_secs_f64();
    let pair = |of: Option<equipoise_simulator::Percentiles>| {
        of.map_or_else(|| "-".to_owned(), |of| format!("{:.4}/{:.3}", of.p50, of.p99))
    };
    say(&format!(
        "| {} | {} | {cpu_s:.2} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {:.1} |",
        row.name,
        result.offered,
        result.offered as f64 / cpu_s,
        result.output_tokens as f64 / cpu_s,
        usage.peak_mb,
        result.finished,
        pair(result.ttft_s),
        pair(result.e2e_s),
        result.joules_per_request_active.unwrap_or_default(),
    ));
}

#[expect(clippy::print_stdout, reason = "what a command line is for")]
fn say(line: &str) {
    println!("{line}");
}
