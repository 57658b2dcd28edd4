//! The results as a table for a terminal.

use std::fmt::Write as _;

use crate::{Percentiles, PolicyResult};

/// A column: two lines of heading, and what stands in each row.
struct Column {
    group: &'static str,
    heading: &'static str,
    cell: fn(&PolicyResult) -> String,
}

const NOTHING: &str = "-";
/// No line is longer, characters.
const LINE_WIDTH: usize = 120;
/// A longer name of two parts takes two lines, so that the figures keep their place.
const NAME_WIDTH: usize = 16;

fn fixed(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.digits$}"))
}

/// Three significant digits or so, for quantities that span many magnitudes.
fn short(value: Option<f64>) -> String {
    let digits = match value.map(f64::abs) {
        Some(size) if size >= 100.0 => 0,
        Some(size) if size >= 10.0 => 1,
        Some(size) if size >= 1.0 => 2,
        Some(_) => 3,
        None => 0,
    };
    fixed(value, digits)
}

fn ms(percentiles: Option<Percentiles>, pick: fn(&Percentiles) -> f64) -> String {
    fixed(percentiles.as_ref().map(|percentiles| 1e3 * pick(percentiles)), 0)
}

fn seconds(percentiles: Option<Percentiles>, pick: fn(&Percentiles) -> f64) -> String {
    short(percentiles.as_ref().map(pick))
}

const COLUMNS: [Column; 15] = [
    Column {
        group: "requests",
        heading: "done",
        cell: |result| result.finished.to_string(),
    },
    Column {
        group: "",
        heading: "refused",
        cell: |result| result.refused.to_string(),
    },
    Column {
        group: "mean",
        heading: "quality",
        cell: |result| fixed(result.quality_mean, 3),
    },
    Column {
        group: "TTFT, ms",
        heading: "p50",
        cell: |result| ms(result.ttft_s, |ttft| ttft.p50),
    },
    Column {
        group: "",
        heading: "p95",
        cell: |result| ms(result.ttft_s, |ttft| ttft.p95),
    },
    Column {
        group: "",
        heading: "p99",
        cell: |result| ms(result.ttft_s, |ttft| ttft.p99),
    },
    Column {
        group: "E2E, s",
        heading: "p50",
        cell: |result| seconds(result.e2e_s, |e2e| e2e.p50),
    },
    Column {
        group: "",
        heading: "p95",
        cell: |result| seconds(result.e2e_s, |e2e| e2e.p95),
    },
    Column {
        group: "",
        heading: "p99",
        cell: |result| seconds(result.e2e_s, |e2e| e2e.p99),
    },
    Column {
        group: "output",
        heading: "tok/s",
        cell: |result| short(Some(result.output_tokens_per_s)),
    },
    Column {
        group: "J/request",
        heading: "active",
        cell: |result| short(result.joules_per_request_active),
    },
    Column {
        group: "",
        heading: "+idle",
        cell: |result| short(result.joules_per_request_loaded),
    },
    Column {
        group: "J/token",
        heading: "active",
        cell: |result| short(result.joules_per_output_token_active),
    },
    Column {
        group: "",
        heading: "+idle",
        cell: |result| short(result.joules_per_output_token_loaded),
    },
    Column {
        group: "USD per",
        heading: "1k req",
        cell: |result| fixed(result.usd_per_1000_requests, 3),
    },
];

/// Renders the results: a line per policy, then who answered how much, then what the figures mean.
#[must_use]
pub fn render_table(results: &[PolicyResult]) -> String {
    let names: Vec<(Option<&str>, &str)> = results.iter().map(|result| in_parts(&result.policy)).collect();
    let widths = names.iter().flat_map(|(first, last)| [first.unwrap_or_default(), last]);
    let name_width = widths
        .chain(["policy"])
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    let mut group_line = " ".repeat(name_width);
    let mut heading_line = format!("{:<name_width$}", "policy");
    let mut lines: Vec<String> = names.iter().map(|(_, last)| format!("{last:<name_width$}")).collect();
    for (index, column) in COLUMNS.iter().enumerate() {
        let cells: Vec<String> = results.iter().map(column.cell).collect();
        // A group's heading may reach over the columns that follow without one of their own.
        let alone = COLUMNS.get(index + 1).is_none_or(|next| !next.group.is_empty()) && !column.group.is_empty();
        let group_width = if alone { column.group.len() } else { 0 };
        let widths = cells.iter().map(|cell| cell.chars().count());
        let width = widths.chain([column.heading.len(), group_width]).max().unwrap_or(0);
        // Columns of a group stand closer together.
        let gap = if column.group.is_empty() { " " } else { "  " };
        if !column.group.is_empty() {
            let pad = if alone { width - column.group.len() } else { 0 };
            let start = heading_line.len() + gap.len() + pad;
            _ = write!(
                group_line,
                "{:width$}{}",
                "",
                column.group,
                width = start.saturating_sub(group_line.len())
            );
        }
        _ = write!(heading_line, "{gap}{:>width$}", column.heading);
        for (line, cell) in lines.iter_mut().zip(&cells) {
            _ = write!(line, "{gap}{cell:>width$}");
        }
    }
    let mut table = format!("{}\n{heading_line}\n", group_line.trim_end());
    for ((first, _), line) in names.iter().zip(&lines) {
        for line in first.iter().copied().chain([line.trim_end()]) {
            table.push_str(line);
            table.push('\n');
        }
    }
    table.push('\n');
    table.push_str(&shares(results));
    table.push_str(&footnotes(results));
    table
}

/// `best-route` and `+shortest-queue`, where the whole is too long for a line.
fn in_parts(name: &str) -> (Option<&str>, &str) {
    match name.find('+') {
        Some(at) if name.chars().count() > NAME_WIDTH => (Some(&name[..at]), &name[at..]),
        _ => (None, name),
    }
}

/// Who answered how much: `3b 58 % · 7b 11 %`.
fn shares(results: &[PolicyResult]) -> String {
    let widths = results.iter().map(|result| result.policy.chars().count());
    let name_width = widths.max().unwrap_or(0);
    let names: Vec<&str> = results
        .iter()
        .flat_map(|result| &result.models)
        .map(|share| share.model.as_str())
        .collect();
    let common = common_prefix(&names);
    let mut text = String::new();
    for result in results {
        let mut line = format!("{:<name_width$}  ", result.policy);
        let mut width = name_width + 2;
        for (index, share) in result.models.iter().enumerate() {
            let part = format!("{} {:.0} %", &share.model[common..], 100.0 * share.share);
            // With the dot that may follow.
            let needed = part.chars().count() + 2;
            if index > 0 && width + 1 + needed > LINE_WIDTH {
                _ = write!(line, " ·\n{:indent$}", "", indent = name_width + 2);
                width = name_width + 2;
            } else if index > 0 {
                line.push_str(" · ");
                width += 1;
            }
            line.push_str(&part);
            width += needed;
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Length of what all names begin with, up to a dash: `qwen2.5-3b` and `qwen2.5-72b` differ after `qwen2.5-`.
fn common_prefix(names: &[&str]) -> usize {
    let Some(first) = names.first() else { return 0 };
    let shared = |other: &&str| first.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let length = names.iter().map(shared).min().unwrap_or(0);
    let whole_word = first.as_bytes()[..length]
        .iter()
        .rposition(|&byte| byte == b'-')
        .map_or(0, |at| at + 1);
    if names.iter().all(|name| name.len() > whole_word) {
        whole_word
    } else {
        0
    }
}

fn footnotes(results: &[PolicyResult]) -> String {
    let mut text = String::new();
    match results.iter().filter_map(|result| result.quality_ci95).reduce(f64::max) {
        Some(half) => {
            _ = writeln!(
                text,
                "\nQuality: mean label of the answers given, ± {half:.3} at most (95 %). Prompts and answers of a graded set, joined\n\
                 to these arrivals: each model's answer has its own length."
            );
        }
        None => text.push_str(
            "\nQuality: the declared quality of the model that answered, not a judgement of answers. Answers have the trace's\n\
             length whichever model gives them.\n",
        ),
    }
    text.push_str("Active energy: engine steps; +idle: with the draw between steps. Times from arrival.\n");
    if let Some(routers) = results.first().and_then(|result| result.routers) {
        _ = writeln!(
            text,
            "{} routers, each with its own part of the requests; state {:.0} ms old, every {:.0} ms.",
            routers.count,
            1e3 * routers.state_age_s,
            1e3 * routers.state_interval_s
        );
    }
    let refused = |result: &PolicyResult| {
        let reasons = result
            .refusals
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"));
        reasons.collect::<Vec<_>>().join(", ")
    };
    let alike = results.len() > 1 && results.windows(2).all(|pair| pair[0].refusals == pair[1].refusals);
    if let Some(first) = results.first().filter(|first| alike && first.refused > 0) {
        _ = writeln!(text, "Each refused: {}.", refused(first));
    }
    for result in results {
        if let Some(slo) = &result.slo {
            _ = writeln!(text, "{} SLO: {}.", result.policy, slo.line());
        }
        if result.refused > 0 && !alike {
            _ = writeln!(text, "{} refused: {}.", result.policy, refused(result));
        }
        if result.preemptions > 0 {
            _ = writeln!(text, "{}: {} preemptions.", result.policy, result.preemptions);
        }
        if result.cached_prompt_tokens > 0 {
            let share = 100.0 * result.cached_prompt_tokens as f64 / result.prompt_tokens as f64;
            _ = writeln!(
                text,
                "{}: {share:.0} % of prompt tokens came from prefix caches.",
                result.policy
            );
        }
        if result.escalated > 0 {
            let share = 100.0 * result.escalated as f64 / result.finished as f64;
            _ = writeln!(
                text,
                "{}: {share:.0} % of first answers were replaced by a better model's.",
                result.policy
            );
        }
        if result.truncated > 0 {
            _ = writeln!(
                text,
                "{}: {} answers cut at the end of the context.",
                result.policy, result.truncated
            );
        }
        if result.unfinished > 0 {
            _ = writeln!(
                text,
                "{}: {} requests never ended: please report this.",
                result.policy, result.unfinished
            );
        }
    }
    text
}
