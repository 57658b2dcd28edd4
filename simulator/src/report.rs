//! A report of runs: arms compared over seeds and loads, as a page of its own and as a table for a terminal.

mod curves;
mod frontier;
mod page;
mod style;
mod summary;
mod terminal;

pub use terminal::render_report;

use equipoise_types::Mean;

use crate::RunOutcome;

/// What a report is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Its title.
    pub title: String,
    /// What was simulated: one line each.
    pub notes: Vec<String>,
    /// Every run.
    pub runs: Vec<RunOutcome>,
}

/// A figure of a run, if it has it.
pub(crate) type Figure = fn(&RunOutcome) -> Option<f64>;

/// All runs of one arm at one load, seed by seed.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) arm: &'a str,
    pub(crate) runs: Vec<&'a RunOutcome>,
}

/// One load with its arms, in the order in which they first came.
#[derive(Clone, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) rows: Vec<Row<'a>>,
}

impl Row<'_> {
    /// A figure's mean over the seeds, with its interval; `None` where a run has none.
    pub(crate) fn mean(&self, figure: impl Fn(&RunOutcome) -> Option<f64>) -> Option<Mean> {
        let values: Option<Vec<f64>> = self.runs.iter().map(|run| figure(run)).collect();
        values
            .filter(|values| !values.is_empty())
            .map(|values| Mean::of(&values))
    }
}

impl Load<'_> {
    /// `12 requests/s`.
    pub(crate) fn title(&self) -> String {
        self.rate_per_s.map_or_else(
            || "The workload as it comes".to_owned(),
            |rate| format!("{rate} requests/s"),
        )
    }
}

impl Report {
    /// The page: one file without scripts that needs nothing else.
    #[must_use]
    pub fn html(&self) -> String {
        page::page(self)
    }

    /// The loads, least first.
    pub(crate) fn loads(&self) -> Vec<Load<'_>> {
        let mut loads: Vec<Load<'_>> = Vec::new();
        for run in &self.runs {
            let load = match loads.iter().position(|load| load.rate_per_s == run.rate_per_s) {
                Some(index) => &mut loads[index],
                None => {
                    loads.push(Load {
                        rate_per_s: run.rate_per_s,
                        rows: Vec::new(),
                    });
                    let last = loads.len() - 1;
                    &mut loads[last]
                }
            };
            match load.rows.iter_mut().find(|row| row.arm == run.arm) {
                Some(row) => row.runs.push(run),
                None => load.rows.push(Row {
                    arm: &run.arm,
                    runs: vec![run],
                }),
            }
        }
        loads.sort_by(|a, b| {
            let rate = |load: &Load<'_>| load.rate_per_s.unwrap_or(0.0);
            rate(a).total_cmp(&rate(b))
        });
        loads
    }

    /// Every arm, in the order in which they first came: an arm's colour is its place here.
    pub(crate) fn arms(&self) -> Vec<&str> {
        let mut arms: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !arms.contains(&run.arm.as_str()) {
                arms.push(&run.arm);
            }
        }
        arms
    }
}

/// A figure in three significant digits or so.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests;
