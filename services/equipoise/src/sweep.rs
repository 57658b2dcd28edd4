//! `equipoise sweep`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use equipoise_config::ScenarioFile;
use equipoise_simulator::{CellDone, MergedSweep, Scenario, ScenarioCell, Shard, cores, render_report, run_sweep};

use crate::simulate::write_page;
use crate::terminal::{complain, overwrite, say};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,
    /// The scenario file: every policy, preset, load, weight and seed in it, see docs/scenarios.md.
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Where parts go, a file for each run as it ends. The same command goes on where it was stopped. Default: NAME-sweep
    /// beside the working folder's files, NAME that of the scenario file.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run only each N-th cell, from the I-th on (0 to N - 1): one machine of several. Join with `equipoise sweep merge`.
    #[arg(long, value_name = "I/N", default_value = "0/1", env = "EQUIPOISE_SHARD")]
    shard: Shard,
    /// Cells at the same time, each on one core. Default: as many as there are cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Where the report goes when all is done. Default: report.html in the folder of the parts; not for a shard.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The data folder, for `data:` paths and graded prompts.
    #[arg(long, value_name = "DIR", env = "EQUIPOISE_DATA")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Join the parts of a sweep: one Parquet table and one report.
    Merge(Merge),
}

#[derive(Debug, Args)]
struct Merge {
    /// Folders with parts.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// The joined table. Default: sweep.parquet in the first folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The report. Default: report.html in the first folder.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match (&options.action, &options.file) {
        (Some(Action::Merge(merge)), _) => join(merge)?,
        (None, Some(file)) => sweep(options, file)?,
        (None, None) => bail!("name a scenario file"),
    }
    Ok(ExitCode::SUCCESS)
}

fn sweep(options: &Options, file: &Path) -> anyhow::Result<()> {
    let scenario = Scenario::open(ScenarioFile::load(file)?, options.data.as_deref())?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let folder = options
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{stem}-sweep")));
    let shard = options.shard;
    let cells = scenario.cells(true).len();
    let mine = (0..cells).filter(|index| index % shard.count == shard.index).count();
    let threads = options.threads.unwrap_or_else(cores).max(1);
    let progress = Progress::new(mine);
    let tell = |_: &ScenarioCell, done: Option<CellDone>| progress.tell(done);
    let result = run_sweep(&scenario, &folder, shard, threads, tell);
    progress.finish();
    result?;
    if shard.count > 1 {
        say(&format!(
            "{mine} of {cells} runs in {}; when all shards are done: equipoise sweep merge DIR...",
            folder.display()
        ));
        return Ok(());
    }
    let merged = MergedSweep::read(std::slice::from_ref(&folder))?.of(&scenario);
    write(&folder, merged, None, options.html.as_deref())
}

fn join(options: &Merge) -> anyhow::Result<()> {
    let merged = MergedSweep::read(&options.folders)?;
    let first = options.folders.first().context("name a folder")?;
    write(first, merged, options.out.as_deref(), options.html.as_deref())
}

fn write(folder: &Path, merged: MergedSweep, table: Option<&Path>, html: Option<&Path>) -> anyhow::Result<()> {
    let table = table.map_or_else(|| folder.join("sweep.parquet"), Path::to_owned);
    let html = html.map_or_else(|| folder.join("report.html"), Path::to_owned);
    merged.write(&table)?;
    let runs = merged.runs();
    let report = merged.report();
    write_page(&html, &report)?;
    say(render_report(&report).trim_end());
    say(&format!("\n{runs} runs: {}, {}", table.display(), html.display()));
    Ok(())
}

/// How far it is, on a terminal's error output; a pipe hears nothing.
struct Progress {
    shown: bool,
    cells: usize,
    begun: Instant,
    state: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Cells that need nothing more.
    over: usize,
    /// Cells that this run has simulated.
    run: usize,
}

impl Progress {
    fn new(cells: usize) -> Self {
        Self {
            shown: std::io::stderr().is_terminal(),
            cells,
            begun: Instant::now(),
            state: Mutex::default(),
        }
    }

    fn tell(&self, done: Option<CellDone>) {
        let mut counts = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        counts.over += 1;
        counts.run += usize::from(done.is_some());
        if self.shown {
            let seconds = self.begun.elapsed().as_secs_f64();
            overwrite(&line(counts.over, counts.run, self.cells, seconds));
        }
    }

    fn finish(&self) {
        if self.shown {
            complain("");
        }
    }
}

/// One line: a bar, counts, and what is left by the mean of the cells that were run. Of fewer than three nothing is said.
fn line(over: usize, run: usize, cells: usize, seconds: f64) -> String {
    const WIDTH: usize = 24;
    let full = (WIDTH * over).checked_div(cells).unwrap_or(WIDTH);
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH.saturating_sub(full)));
    let left = if over >= cells {
        format!("done in {}", span(seconds))
    } else if run < 3 {
        "time left: not known yet".to_owned()
    } else {
        format!("about {} left", span(seconds / run as f64 * (cells - over) as f64))
    };
    format!("{bar} {over}/{cells} runs, {left}")
}

fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_only_when_it_is_known() {
        assert!(line(1, 1, 10, 5.0).ends_with("1/10 runs, time left: not known yet"));
        // Cells that were there already say nothing about speed.
        assert!(line(6, 4, 10, 20.0).ends_with("6/10 runs, about 20 s left"));
        assert!(line(10, 4, 10, 200.0).ends_with("10/10 runs, done in 3 min"));
        assert_eq!(span(9000.0), "2.5 h");
    }
}
