//! Percentiles of a single decision, `Scheduler::on_event(Arrived)` with all estimates, for every policy.

use std::collections::BTreeMap;

use clap::Parser;
use equipoise_benches::cpu::Turns;
use equipoise_benches::{BusyScheduler, Latencies, say, table};
use equipoise_policy::names;
use equipoise_predict::Predictor;

/// The router's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times single decisions and prints their percentiles in microseconds.
#[derive(Parser)]
struct Options {
    /// Decisions to time for each row.
    #[arg(long, default_value_t = 20_000)]
    decisions: u32,
    /// Sizes of the fleet.
    #[arg(long, value_delimiter = ',', default_values_t = [13, 100, 1000])]
    instances: Vec<usize>,
    /// Policies; all by default.
    #[arg(long, value_delimiter = ',')]
    policy: Vec<String>,
    /// Also time batches of so many requests, from the text of their prompts on; 0: none.
    #[arg(long, default_value_t = 16)]
    batch: usize,
}

/// From prompt text to booking: single requests and batches, without and with the improvement pass. *Alone*: only those during
/// which no other program was given the processor.
fn from_text(options: &Options) -> anyhow::Result<()> {
    let predictor = &Predictor::embedded()?;
    let head = [
        "instances",
        "batch",
        "improved",
        "mean us",
        "p50",
        "p99",
        "p99.9",
        "max",
        "alone %",
        "p50 alone",
        "p99 alone",
        "score each",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let head = ["instances", "characters", "p50 alone", "p99 alone"];
    let mut by_prompt = vec![head.map(str::to_owned).to_vec()];
    let turns = Turns::of_this_thread()?;
    for &instances in &options.instances {
        for (size, improved) in [(1, false), (options.batch, false), (options.batch, true)] {
            let mut busy = BusyScheduler::with("equipoise", instances, improved)?;
            let roster = &busy.roster(predictor);
            let runs = (options.decisions as usize / size / (instances / 100).max(1)).max(50);
            for _ in 0..runs / 20 {
                busy.time_batch(predictor, roster, size)?;
            }
            let (mut latencies, mut alone, mut score) = (Latencies::new(), Latencies::new(), 0.0);
            let mut of_prompts: BTreeMap<usize, Latencies> = BTreeMap::new();
            for _ in 0..runs {
                let characters = busy.next_prompt().len();
                let before = turns.count();
                let (spent, scores) = busy.time_batch(predictor, roster, size)?;
                latencies.record(spent);
                if turns.count() == before {
                    alone.record(spent);
                    of_prompts.entry(characters).or_default().record(spent);
                }
                score += scores;
            }
            let mean = format!("{:.1}", latencies.mean().as_secs_f64() * 1e6);
            let mut row = vec![instances.to_string(), size.to_string(), improved.to_string(), mean];
            row.extend(latencies.in_us(&[50.0, 99.0, 99.9, 100.0]));
            row.push(format!("{:.1}", 100.0 * alone.count() as f64 / runs as f64));
            row.extend(alone.in_us(&[50.0, 99.0]));
            row.push(format!("{:.5}", score / (runs * size) as f64));
            rows.push(row);
            for (characters, latencies) in of_prompts.iter().filter(|_| size == 1) {
                let mut row = vec![instances.to_string(), characters.to_string()];
                row.extend(latencies.in_us(&[50.0, 99.0]));
                by_prompt.push(row);
            }
        }
    }
    say("\nequipoise, all predictors in: prompt text, forecast, estimates, filters, scores, assignment, booking");
    say(&table(&rows));
    say("\nsingle requests by the length of their prompts");
    say(&table(&by_prompt));
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.policy.is_empty() {
        options.policy = names().iter().map(|&name| name.to_owned()).collect();
    }
    let head = ["policy", "instances", "mean us", "p50", "p99", "p99.9", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for &instances in &options.instances {
        for policy in &options.policy {
            let mut busy = BusyScheduler::new(policy, instances)?;
            for _ in 0..options.decisions / 20 {
                busy.time_one()?;
            }
            let mut latencies = Latencies::new();
            for _ in 0..options.decisions {
                latencies.record(busy.time_one()?);
            }
            let mean = format!("{:.1}", latencies.mean().as_secs_f64() * 1e6);
            let mut row = vec![policy.clone(), instances.to_string(), mean];
            row.extend(latencies.in_us(&[50.0, 99.0, 99.9, 100.0]));
            rows.push(row);
        }
    }
    say(&format!(
        "{} decisions a row, 24 requests in flight on every instance",
        options.decisions
    ));
    say(&table(&rows));
    if options.batch > 0 {
        from_text(&options)?;
    }
    Ok(())
}
