//! The summary for a terminal: terse.

use std::fmt::Write as _;

use super::summary::{COLUMNS, Column};
use super::{Load, Report, Row};

/// What stands in it, by heading and unit.
const SHOWN: [(&str, &str); 8] = [
    ("not served", "%"),
    ("quality", ""),
    ("TTFT p95", "ms"),
    ("E2E p50", "s"),
    ("E2E p95", "s"),
    ("energy", "J/request"),
    ("cost", "USD/1k"),
    ("in time", "%"),
];

/// A table for each load: a line per arm, means over the seeds with half the width of their intervals.
#[must_use]
pub fn render_report(report: &Report) -> String {
    let mut text = String::new();
    let loads = report.loads();
    for load in &loads {
        if loads.len() > 1 || load.rate_per_s.is_some() {
            _ = writeln!(text, "{}", load.title());
        }
        table(&mut text, load);
        text.push('\n');
    }
    let seeds = loads.iter().flat_map(|load| &load.rows).map(|row| row.runs.len()).max();
    if seeds.unwrap_or(0) > 1 {
        _ = writeln!(
            text,
            "Means over {} seeds, ± half of the 95 % interval.",
            seeds.unwrap_or(0)
        );
    }
    text
}

fn table(text: &mut String, load: &Load<'_>) {
    let shown: Vec<&Column> = SHOWN
        .iter()
        .filter_map(|(heading, unit)| {
            let found = COLUMNS
                .iter()
                .find(|column| (column.heading, column.unit) == (*heading, *unit));
            found.filter(|column| load.rows.iter().any(|row| column.mean(row).is_some()))
        })
        .collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut head = vec!["policy".to_owned()];
    head.extend(shown.iter().map(|column| {
        let parts = [column.heading, column.unit];
        parts.join(" ").trim_end().to_owned()
    }));
    lines.push(head);
    for row in &load.rows {
        let mut line = vec![row.arm.to_owned()];
        line.extend(shown.iter().map(|column| cell(column, row)));
        lines.push(line);
    }
    let columns = shown.len() + 1;
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in &lines {
        _ = write!(text, "{:<width$}", line[0], width = widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
}

fn cell(column: &Column, row: &Row<'_>) -> String {
    match column.mean(row) {
        None => "-".to_owned(),
        Some(mean) if mean.half.is_finite() && mean.half > 0.0 => {
            format!("{} ±{}", (column.text)(mean.mean), (column.text)(mean.half))
        }
        Some(mean) => (column.text)(mean.mean),
    }
}
