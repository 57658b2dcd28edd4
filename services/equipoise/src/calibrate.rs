//! `equipoise calibrate`: the engine model beside measurements, others' and your own.

mod closed_loop;
mod energy;
mod fit;
mod least_squares;
mod page;
mod score;
mod silicon;
mod splitwise;
mod vllm_run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::terminal::{complain, say, table};
use score::{Comparison, Half};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Score the engine model on published measurements: the half that its constants were not fitted on.
    Report(Report),
    /// Fit a tier to your own measurements, for `measured` in a fleet file.
    Fit(fit::Fit),
}

#[derive(Debug, Args)]
struct Report {
    /// The folder that holds `performance/` and `energy/`.
    #[arg(long, value_name = "DIR", env = "EQUIPOISE_DATA")]
    data: PathBuf,
    /// Also replace what is between the markers of this page.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.action {
        Action::Report(options) => report(options)?,
        Action::Fit(options) => fit::run(options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(options: &Report) -> anyhow::Result<()> {
    complain("replaying two vLLM runs");
    let runs = vllm_run::score(&options.data)?;
    let mut all: Vec<Comparison> = Vec::new();
    complain("serving the closed-loop benchmarks of the silicon sample in virtual time");
    all.extend(silicon::score(&options.data, |done, of| {
        if done % 100 == 0 || done == of {
            complain(&format!("  {done} of {of}"));
        }
    })?);
    complain("steps, watts and joules of ML.ENERGY");
    all.extend(energy::score(&options.data)?);
    complain("prompt and token times of splitwise");
    all.extend(splitwise::score(&options.data)?);
    let held_out = score::summary(&all, Half::HeldOut);
    say(&table(&vllm_run::rows(&runs)));
    say("");
    say(&table(&held_out));
    if let Some(path) = &options.out {
        page::write(path, &runs, &all)?;
    }
    Ok(())
}
