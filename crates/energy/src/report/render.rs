//! The report as an aligned table.

use super::{EnergyFigures, Grouping, Report};
use std::fmt::Write as _;

const HEADS: [&str; 13] = [
    "",
    "measured",
    "J/out tok",
    "Wh/req",
    "requests",
    "out tokens",
    "mean W",
    "used",
    "idle",
    "unattr.",
    "wasted",
    "source",
    "flawed",
];

impl Report {
    /// The table: a row per key, the total, and a last line that states the balance in whole millijoules. Figures per token
    /// and per request divide all measured energy of the row, idle included; "-" where there is nothing to divide by.
    ///
    /// `wasted` is a share of what was attributed (`used`), the other shares are of what was measured. `source` says where the
    /// measured energy comes from: energy counters, power samples or a model.
    #[must_use]
    pub fn render(&self) -> String {
        let mut table = vec![HEADS.map(str::to_owned)];
        table[0][0] = match self.by {
            Grouping::Pool => "pool",
            Grouping::Model => "model",
            Grouping::Gpu => "gpu",
            Grouping::Tenant => "tenant",
        }
        .to_owned();
        table.extend(self.rows.iter().map(|row| cells(&row.key, &row.figures)));
        table.push(cells("total", &self.total));
        let widths: Vec<usize> = (0..HEADS.len())
            .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let rule = "─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
        let mut text = String::new();
        let last = table.len() - 1;
        for (number, row) in table.iter().enumerate() {
            if number == 1 || number == last {
                text.push_str(&rule);
                text.push('\n');
            }
            push_row(&mut text, row, &widths);
        }
        let EnergyFigures {
            measured_mj,
            attributed_mj,
            idle_mj,
            unattributed_mj,
            ..
        } = self.total;
        let (attributed, idle, unattributed, measured) = (
            grouped(attributed_mj),
            grouped(idle_mj),
            grouped(unattributed_mj),
            grouped(measured_mj),
        );
        let equals = if self.total.balances() { "=" } else { "≠" };
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "\nattributed + idle + unattributed {equals} measured: {attributed} + {idle} + {unattributed} {equals} {measured} mJ"
        );
        text
    }
}

/// The first column to the left, numbers to the right.
fn push_row(text: &mut String, row: &[String; 13], widths: &[usize]) {
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        if column == 0 {
            text.push_str(cell);
            text.push_str(&padding);
        } else {
            text.push_str("  ");
            text.push_str(&padding);
            text.push_str(cell);
        }
    }
    text.push('\n');
}

fn cells(key: &str, row: &EnergyFigures) -> [String; 13] {
    let joules = row.measured_mj as f64 / 1e3;
    let share = |part: u64| percent(part, row.measured_mj);
    [
        key.to_owned(),
        energy(joules),
        ratio(joules, row.decode_tokens as f64, 4),
        ratio(joules / 3600.0, row.requests as f64, 4),
        grouped(row.requests),
        grouped(row.decode_tokens),
        ratio(joules, row.span_ns as f64 / 1e9, 1),
        share(row.attributed_mj),
        share(row.idle_mj),
        share(row.unattributed_mj),
        percent(row.wasted_mj, row.attributed_mj),
        source(row),
        grouped(row.flawed_intervals),
    ]
}

/// The sources that gave something, the largest first.
fn source(row: &EnergyFigures) -> String {
    let mut parts = [
        (row.counter_mj, "counter"),
        (row.power_mj, "power"),
        (row.modelled_mj, "model"),
    ];
    parts.sort_by_key(|&(energy, _)| std::cmp::Reverse(energy));
    let given: Vec<_> = parts.into_iter().filter(|&(energy, _)| energy > 0).collect();
    match given[..] {
        [] => "-".to_owned(),
        [(_, name)] => name.to_owned(),
        _ => {
            let shares = given
                .iter()
                .map(|&(energy, name)| format!("{} {name}", percent(energy, row.measured_mj)));
            shares.collect::<Vec<_>>().join(", ")
        }
    }
}

fn ratio(value: f64, by: f64, digits: usize) -> String {
    if by > 0.0 {
        format!("{:.digits$}", value / by)
    } else {
        "-".to_owned()
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.1}%", 100.0 * part as f64 / whole as f64)
    }
}

/// Joules with the prefix that keeps the number short.
fn energy(joules: f64) -> String {
    match joules {
        _ if joules < 1e4 => format!("{joules:.1} J"),
        _ if joules < 1e7 => format!("{:.2} kJ", joules / 1e3),
        _ => format!("{:.3} kWh", joules / 3.6e6),
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
