//! The tables of `docs/fidelity.md`: between markers, so that what people wrote around them stays.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::score::{Comparison, Half, errors, percent, summary};
use super::vllm_run::{RunFigure, rows};

const BEGIN: &str = "<!-- equipoise calibrate report: begin -->";
const END: &str = "<!-- equipoise calibrate report: end -->";

/// Replaces what is between the markers.
pub(super) fn write(path: &Path, runs: &[RunFigure], all: &[Comparison]) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("{} has no line `{BEGIN}`", path.display()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{} has no line `{END}`", path.display()))?;
    let page = format!("{before}{BEGIN}\n{}{END}{after}", tables(runs, all));
    std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn tables(runs: &[RunFigure], all: &[Comparison]) -> String {
    let mut text = String::new();
    let mut section = |title: &str, rows: &[Vec<String>]| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n### {title}\n\n{}", markdown(rows));
    };
    section("Against the targets, held-out half", &targets(all));
    section("Two vLLM runs, replayed request by request", &rows(runs));
    section("By set, held-out half", &summary(all, Half::HeldOut));
    section("By set, the half that was fitted on", &summary(all, Half::Fitted));
    text.push('\n');
    text
}

/// One line for each target: what it asks and what is reached over all sets.
fn targets(all: &[Comparison]) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["target", "asked", "reached", "p90", "rows"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (name, sets, figure, asked) in [
        ("silicon sample, dense: TPOT, median", "", "TPOT", 0.08),
        ("silicon sample, dense: TTFT, median", "", "TTFT", 0.15),
        ("ML.ENERGY v3, dense: J/token, median", "dense", "J/token", 0.10),
        ("ML.ENERGY v3, dense: W, median", "dense", "W", 0.06),
        ("ML.ENERGY v3, dense: step time, median", "dense", "step time", 0.06),
        ("ML.ENERGY v3, mixtures: J/token, median", "mixtures", "J/token", 0.10),
        ("ML.ENERGY v3, mixtures: W, median", "mixtures", "W", 0.06),
        (
            "ML.ENERGY v3, mixtures: step time, median",
            "mixtures",
            "step time",
            0.10,
        ),
        (
            "ML.ENERGY v3, dense: J/token, calibrated",
            "dense",
            "J/token, calibrated",
            0.02,
        ),
        (
            "ML.ENERGY v3, mixtures: J/token, calibrated",
            "mixtures",
            "J/token, calibrated",
            0.06,
        ),
        ("splitwise: prompt time, median", "", "prompt time", 0.08),
        ("splitwise: token time, median", "", "token time", 0.08),
    ] {
        let wanted = |row: &Comparison| row.half == Half::HeldOut && row.figure == figure && row.set.contains(sets);
        let reached = errors(all, wanted);
        if let Some(reached) = reached {
            rows.push(vec![
                name.to_owned(),
                format!("≤ {}", percent(asked)),
                percent(reached.median),
                percent(reached.p90),
                reached.rows.to_string(),
            ]);
        }
    }
    rows
}

fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let path = std::env::temp_dir().join(format!("equipoise-fidelity-{}.md", std::process::id()));
        std::fs::write(&path, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).expect("writable");
        write(&path, &[], &[]).expect("markers are there");
        let page = std::fs::read_to_string(&path).expect("written");
        std::fs::remove_file(&path).expect("it is there");
        assert!(page.starts_with("before\n") && page.ends_with("\nafter\n") && !page.contains("old"));
        assert!(page.contains("### Two vLLM runs"));
    }
}
