//! `equipoise trace`: looks at workload traces, converts, scales and makes them, whatever their length.

mod convert;
mod generate;
mod output;
mod scale;
mod stat;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use equipoise_trace::{Malformed, ReadOptions, WorkloadFormat, WorkloadReader};

use crate::terminal::complain;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What a trace is like: rate, burstiness, lengths, prefix reuse.
    Stat(stat::Options),
    /// Write a trace in one of our own formats.
    Convert(convert::Options),
    /// Write a trace with more or fewer requests, or with its time stretched.
    Scale(scale::Options),
    /// Make a trace from a process of arrivals, or from recorded clients (ServeGen).
    Generate(generate::Options),
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.action {
        Action::Stat(options) => stat::run(options)?,
        Action::Convert(options) => convert::run(options)?,
        Action::Scale(options) => scale::run(options)?,
        Action::Generate(options) => generate::run(options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How a trace is read.
#[derive(Debug, Args)]
struct Reading {
    /// Its format: azure, burstgpt, mooncake, jsonl (ours), parquet, servegen, vllm, guidellm. Default: as its first
    /// bytes tell. gzip is recognised in any case.
    #[arg(long)]
    format: Option<WorkloadFormat>,
    /// Count malformed lines and go on, rather than stop at the first.
    #[arg(long)]
    skip_malformed: bool,
    /// Only so many requests from the start of the file.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// So many requests at most are held in memory to put those right that are out of order.
    #[arg(long, value_name = "N", default_value_t = ReadOptions::default().window)]
    window: usize,
}

impl Reading {
    fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            malformed: if self.skip_malformed {
                Malformed::Skip
            } else {
                Malformed::Fail
            },
            limit: self.limit,
            window: self.window,
            ..ReadOptions::default()
        }
    }

    fn open(&self, path: &Path) -> anyhow::Result<WorkloadReader<'static>> {
        Ok(WorkloadReader::open(path, &self.options())?)
    }
}

/// Says what a reader mended.
fn say_notes(notes: &[String]) {
    for note in notes {
        complain(&format!("note: {note}"));
    }
}

/// Says now and then how far it is.
fn say_progress(requests: u64) {
    const EVERY: u64 = 1_000_000;
    if requests > 0 && requests.is_multiple_of(EVERY) {
        complain(&format!("{} million requests", requests / EVERY));
    }
}
