//! A sweep: many cells of a scenario, each written when it is done, so that what was begun can go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use equipoise_trace::{TableKind, TableValue, TableWriter, TraceError, read_table};

use crate::{Report, RunOutcome, Scenario, ScenarioCell, ScenarioError, Spread, parallel_map};

/// One of several machines that share a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 0.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `I/N`, I from 0.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(index, count)| Some((index.trim().parse().ok()?, count.trim().parse().ok()?)));
        match parsed {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err(format!(
                "`{text}` is no shard: say I/N, with I from 0 to N - 1, as in 0/4"
            )),
        }
    }
}

/// What happened to a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellDone {
    /// Work of the cell, in requests that were simulated.
    pub requests: u64,
}

/// Why a sweep stopped, or cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A cell does not run.
    #[error("{arm}, seed {seed}: {source}")]
    Cell {
        /// Its arm.
        arm: String,
        /// Its seed.
        seed: u64,
        /// Why.
        source: Box<ScenarioError>,
    },
    /// A part cannot be read or written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part is not what a sweep writes.
    #[error("{}: {problem}; remove it, and the sweep makes it again", .path.display())]
    Part {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to join.
    #[error("no parts of a sweep in {0}: run `equipoise sweep FILE --out` with that folder first")]
    NoParts(String),
    /// Parts of different scenarios.
    #[error("{} belongs to `{found}`, others to `{expected}`: join one scenario at a time", .path.display())]
    Mixed {
        /// Which.
        path: PathBuf,
        /// Its scenario.
        found: String,
        /// That of the others.
        expected: String,
    },
    /// A table.
    #[error(transparent)]
    Table(#[from] TraceError),
}

/// The columns of a part: one row, a run. `outcome` is all of it as JSON.
const COLUMNS: [(&str, TableKind); 29] = [
    ("cell", TableKind::Integer),
    ("fingerprint", TableKind::Text),
    ("scenario", TableKind::Text),
    ("notes", TableKind::Text),
    ("arm", TableKind::Text),
    ("rate_per_s", TableKind::Real),
    ("seed", TableKind::Integer),
    ("offered", TableKind::Integer),
    ("finished", TableKind::Integer),
    ("refused", TableKind::Integer),
    ("quality", TableKind::Real),
    ("ttft_mean_s", TableKind::Real),
    ("ttft_p50_s", TableKind::Real),
    ("ttft_p95_s", TableKind::Real),
    ("ttft_p99_s", TableKind::Real),
    ("e2e_mean_s", TableKind::Real),
    ("e2e_p50_s", TableKind::Real),
    ("e2e_p95_s", TableKind::Real),
    ("e2e_p99_s", TableKind::Real),
    ("joules_per_request", TableKind::Real),
    ("joules_per_request_active", TableKind::Real),
    ("joules_per_output_token", TableKind::Real),
    ("usd_per_1000_requests", TableKind::Real),
    ("prefill_joules", TableKind::Real),
    ("decode_joules", TableKind::Real),
    ("idle_joules", TableKind::Real),
    ("facility_kwh", TableKind::Real),
    ("carbon_g", TableKind::Real),
    ("outcome", TableKind::Text),
];

/// A run with its place in the sweep.
#[derive(Clone, Debug)]
struct Part {
    cell: u64,
    fingerprint: String,
    scenario: String,
    notes: String,
    outcome: RunOutcome,
}

impl Part {
    fn row(&self) -> Vec<TableValue> {
        let (run, figures) = (&self.outcome, &self.outcome.figures);
        let spread = |spread: Option<Spread>| {
            let pick = |pick: fn(Spread) -> f64| TableValue::from(spread.map(pick));
            [
                pick(|spread| spread.mean),
                pick(|spread| spread.p50),
                pick(|spread| spread.p95),
                pick(|spread| spread.p99),
            ]
        };
        let mut row: Vec<TableValue> = vec![
            self.cell.into(),
            self.fingerprint.as_str().into(),
            self.scenario.as_str().into(),
            self.notes.as_str().into(),
            run.arm.as_str().into(),
            run.rate_per_s.into(),
            run.seed.into(),
            figures.offered.into(),
            figures.finished.into(),
            figures.refused.into(),
            figures.quality.into(),
        ];
        row.extend(spread(figures.ttft_s));
        row.extend(spread(figures.e2e_s));
        row.extend([
            figures.joules_per_request.into(),
            figures.joules_per_request_active.into(),
            figures.joules_per_output_token.into(),
            figures.usd_per_1000_requests.into(),
            figures.energy.prefill_joules.into(),
            figures.energy.decode_joules.into(),
            figures.energy.idle_joules.into(),
            figures.facility.map(|facility| facility.kwh).into(),
            figures.facility.and_then(|facility| facility.carbon_g).into(),
            // Strings, numbers and lists always serialise.
            serde_json::to_string(run).unwrap_or_default().as_str().into(),
        ]);
        row
    }

    fn read(path: &Path) -> Result<Vec<Self>, SweepError> {
        let wrong = |problem: String| SweepError::Part {
            path: path.to_owned(),
            problem,
        };
        let (names, rows) = read_table(path).map_err(|error| wrong(error.to_string()))?;
        let column = |name: &str| names.iter().position(|other| other == name);
        let text = |row: &[TableValue], name: &str| match column(name).and_then(|at| row.get(at)) {
            Some(TableValue::Text(text)) => Ok(text.clone()),
            _ => Err(wrong(format!("it has no column `{name}`"))),
        };
        let part = |row: &Vec<TableValue>| {
            let cell = match column("cell").and_then(|at| row.get(at)) {
                Some(TableValue::Integer(cell)) => *cell,
                _ => return Err(wrong("it has no column `cell`".to_owned())),
            };
            let outcome = text(row, "outcome")?;
            Ok(Self {
                cell,
                fingerprint: text(row, "fingerprint")?,
                scenario: text(row, "scenario")?,
                notes: text(row, "notes")?,
                outcome: serde_json::from_str(&outcome).map_err(|error| wrong(error.to_string()))?,
            })
        };
        rows.iter().map(part).collect()
    }
}

fn write_parts(path: &Path, parts: &[Part]) -> Result<(), SweepError> {
    let failed = |source: io::Error| SweepError::Write {
        path: path.to_owned(),
        source,
    };
    // Under another name until it is whole: a sweep may be stopped at any moment, and two may share a folder.
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let file = fs::File::create(&unfinished).map_err(failed)?;
    let mut table = TableWriter::new(BufWriter::new(file), &path.display().to_string(), &COLUMNS)?;
    for part in parts {
        table.write(part.row())?;
    }
    let mut output = table.finish()?;
    output.flush().map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

/// Runs those cells of a scenario that are this shard's and not yet in `folder`, each on one of `threads` threads, and
/// writes each as it is done. `tell` hears of every cell, also of those that are there already (`None`), and says whether to
/// go on.
///
/// # Errors
/// The first cell that does not run, and files that cannot be written. What was done stays done.
pub fn run_sweep(
    scenario: &Scenario,
    folder: &Path,
    shard: Shard,
    threads: usize,
    tell: impl Fn(&ScenarioCell, Option<CellDone>) + Sync,
) -> Result<(), SweepError> {
    fs::create_dir_all(folder).map_err(|source| SweepError::Write {
        path: folder.to_owned(),
        source,
    })?;
    let cells = scenario.cells(true).into_iter();
    let cells: Vec<ScenarioCell> = cells.filter(|cell| cell.index % shard.count == shard.index).collect();
    // Strings always serialise.
    let notes = serde_json::to_string(&scenario.notes()).unwrap_or_default();
    let failed = AtomicBool::new(false);
    let work = |cell: ScenarioCell| {
        if failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let done = run_cell(scenario, &cell, folder, &notes, &tell);
        failed.fetch_or(done.is_err(), Ordering::Relaxed);
        done
    };
    parallel_map(cells, threads, work).into_iter().collect()
}

fn run_cell(
    scenario: &Scenario,
    cell: &ScenarioCell,
    folder: &Path,
    notes: &str,
    tell: &(impl Fn(&ScenarioCell, Option<CellDone>) + Sync),
) -> Result<(), SweepError> {
    let fingerprint = scenario.fingerprint(cell);
    let path = folder.join(format!("cell-{fingerprint}.parquet"));
    // Where the grid has grown, a cell that is there may stand at another place of it.
    let there = path.exists().then(|| Part::read(&path)).transpose()?;
    let name = &scenario.config().name;
    if let Some(part) = there.as_ref().and_then(|parts| parts.first()) {
        let mut part = part.clone();
        let index = cell.index as u64;
        if part.cell != index || part.scenario != *name || part.notes != notes {
            (part.cell, part.scenario, part.notes) = (index, name.clone(), notes.to_owned());
            write_parts(&path, &[part])?;
        }
        tell(cell, None);
        return Ok(());
    }
    let outcome = scenario.run(cell, &mut ()).map_err(|source| SweepError::Cell {
        arm: cell.arm.label.clone(),
        seed: cell.seed,
        source: Box::new(source),
    })?;
    let requests = outcome.figures.offered;
    let part = Part {
        cell: cell.index as u64,
        fingerprint,
        scenario: name.clone(),
        notes: notes.to_owned(),
        outcome,
    };
    write_parts(&path, &[part])?;
    tell(cell, Some(CellDone { requests }));
    Ok(())
}

/// Everything in the parts of a sweep, in the order of its grid.
#[derive(Clone, Debug)]
pub struct MergedSweep {
    parts: Vec<Part>,
}

impl MergedSweep {
    /// Reads the parts in these folders; the same cell twice counts once.
    ///
    /// # Errors
    /// A folder or a part that cannot be read, no parts, or parts of different scenarios.
    pub fn read(folders: &[PathBuf]) -> Result<Self, SweepError> {
        let mut paths = BTreeSet::new();
        for folder in folders {
            let failed = |source| SweepError::Read {
                path: folder.clone(),
                source,
            };
            for entry in fs::read_dir(folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with("cell-") && name.ends_with(".parquet") {
                    paths.insert(path);
                }
            }
        }
        let mut parts: BTreeMap<String, Part> = BTreeMap::new();
        let mut scenario: Option<String> = None;
        for path in paths {
            for part in Part::read(&path)? {
                let expected = scenario.get_or_insert_with(|| part.scenario.clone());
                if *expected != part.scenario {
                    return Err(SweepError::Mixed {
                        path,
                        found: part.scenario,
                        expected: expected.clone(),
                    });
                }
                parts.insert(part.fingerprint.clone(), part);
            }
        }
        if parts.is_empty() {
            let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(SweepError::NoParts(folders.join(", ")));
        }
        let mut parts: Vec<Part> = parts.into_values().collect();
        parts.sort_by(|a, b| (a.cell, &a.fingerprint).cmp(&(b.cell, &b.fingerprint)));
        Ok(Self { parts })
    }

    /// Only the cells of this scenario as it is now: a folder may hold those of an earlier version of its file.
    #[must_use]
    pub fn of(mut self, scenario: &Scenario) -> Self {
        let cells = scenario.cells(true);
        let wanted: BTreeSet<String> = cells.iter().map(|cell| scenario.fingerprint(cell)).collect();
        self.parts.retain(|part| wanted.contains(&part.fingerprint));
        self
    }

    /// How many runs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.parts.len()
    }

    /// All of them as one Parquet table.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SweepError> {
        write_parts(path, &self.parts)
    }

    /// The report.
    #[must_use]
    pub fn report(self) -> Report {
        let first = self.parts.first();
        Report {
            title: first.map(|part| part.scenario.clone()).unwrap_or_default(),
            notes: first
                .and_then(|part| serde_json::from_str(&part.notes).ok())
                .unwrap_or_default(),
            runs: self.parts.into_iter().map(|part| part.outcome).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
