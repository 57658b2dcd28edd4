//! `equipoise trace scale`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use equipoise_trace::{Scaled, Scaling, WorkloadFormat, WorkloadStatistics};

use super::output::Output;
use super::{Reading, say_notes, say_progress};
use crate::terminal::{complain, say};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The trace.
    input: PathBuf,
    /// Where it goes.
    output: PathBuf,
    #[command(flatten)]
    factor: Factor,
    /// With more requests: copies arrive within so many seconds after their original. Bursts that are longer are kept.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    spread: f64,
    /// Seed of which requests stay, and of when copies arrive.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    reading: Reading,
    /// The format to write: parquet or jsonl. Default: as the extension says.
    #[arg(long, value_name = "FORMAT")]
    to: Option<WorkloadFormat>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Factor {
    /// Multiply the rate: below 1 each request stays with this probability, above 1 each comes so many times.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    rate_factor: Option<f64>,
    /// The same, for this mean rate in requests per second; the trace is read twice.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    to_rate: Option<f64>,
    /// Multiply all times: the same requests, slower (above 1) or faster.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    time_factor: Option<f64>,
}

/// The mean rate of the trace.
fn rate(options: &Options) -> anyhow::Result<f64> {
    let mut statistics = WorkloadStatistics::default();
    for record in options.reading.open(&options.input)? {
        statistics.observe(&record?);
        say_progress(statistics.requests());
    }
    statistics.rate_per_s().with_context(|| {
        format!(
            "{}: all requests arrive at once, there is no rate",
            options.input.display()
        )
    })
}

fn scaling(options: &Options) -> anyhow::Result<Scaling> {
    let spread_s = options.spread;
    let factor = &options.factor;
    if let Some(factor) = factor.time_factor {
        return Ok(Scaling::Time { factor });
    }
    let factor = match (factor.rate_factor, factor.to_rate) {
        (Some(factor), _) => factor,
        (None, Some(wanted)) => {
            let rate = rate(options)?;
            complain(&format!("{}: {rate:.3} requests/s", options.input.display()));
            wanted / rate
        }
        (None, None) => 1.0,
    };
    Ok(Scaling::Rate { factor, spread_s })
}

/// What is done, and what it keeps.
fn method(scaling: Scaling) -> String {
    match scaling {
        Scaling::Time { factor } => format!(
            "all times are multiplied by {factor}: the same requests, bursts are stretched or squeezed with everything else"
        ),
        Scaling::Rate { factor, .. } if factor <= 1.0 => format!(
            "each request stays with probability {factor:.4}: bursts stay when they are and as long as they are; prefixes \
             recur less"
        ),
        Scaling::Rate { factor, spread_s } => format!(
            "each request comes {factor:.4} times (a fraction by chance), copies up to {spread_s} s later with prefixes of \
             their own: bursts stay when they are, and as long, down to {spread_s} s"
        ),
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let scaling = scaling(options)?;
    let mut reader = options.reading.open(&options.input)?;
    let scaled = Scaled::new(reader.by_ref(), scaling, options.seed)?;
    let mut output = Output::create(&options.output, options.to)?;
    let mut statistics = WorkloadStatistics::default();
    for record in scaled {
        let record = record?;
        statistics.observe(&record);
        output.write(record)?;
    }
    say_notes(&reader.notes());
    let written = output.finish()?;
    complain(&format!("note: {}", method(scaling)));
    let rate = statistics
        .rate_per_s()
        .map_or("all at once".to_owned(), |rate| format!("{rate:.3} requests/s"));
    say(&format!("{}: {written} requests, {rate}", options.output.display()));
    Ok(())
}
