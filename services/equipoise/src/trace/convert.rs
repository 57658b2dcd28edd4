//! `equipoise trace convert`.

use std::path::PathBuf;

use clap::Args;
use equipoise_trace::{Workload, WorkloadFormat};

use super::output::Output;
use super::{Reading, say_notes};
use crate::terminal::say;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The trace.
    input: PathBuf,
    /// Where it goes.
    output: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// The format to write: parquet or jsonl. Default: as the extension says.
    #[arg(long, value_name = "FORMAT")]
    to: Option<WorkloadFormat>,
    /// Hold the whole trace in memory and sort it, for one that is far out of order.
    #[arg(long)]
    sort: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let written = if options.sort {
        let workload = Workload::load(&options.input, &options.reading.options())?;
        say_notes(&workload.notes);
        let mut output = Output::create(&options.output, options.to)?;
        for record in workload.records {
            output.write(record)?;
        }
        output.finish()?
    } else {
        let mut reader = options.reading.open(&options.input)?;
        let mut output = Output::create(&options.output, options.to)?;
        for record in reader.by_ref() {
            output.write(record?)?;
        }
        say_notes(&reader.notes());
        output.finish()?
    };
    say(&format!("{}: {written} requests", options.output.display()));
    Ok(())
}
