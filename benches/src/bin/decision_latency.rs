//! Percentiles of a single decision, `Scheduler::on_event(Arrived)` with all estimates, for every policy.

use clap::Parser;
use equipoise_benches::{BusyScheduler, Latencies, say, table};
use equipoise_policy::names;

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
    Ok(())
}
