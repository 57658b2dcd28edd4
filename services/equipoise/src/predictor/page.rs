//! The results as a part of `docs/predictors.md`, with their diagrams.

use std::path::Path;

use anyhow::{Context as _, ensure};
use equipoise_predict::Kind;
use equipoise_predict::evaluation::Point;

use super::chart::{reliability_diagram, routed_diagram};
use super::evaluate::Evaluation;

const BEGIN: &str = "<!-- results: begin (written by `equipoise predictor eval`) -->";
const END: &str = "<!-- results: end -->";

/// Writes diagrams into `dir` and the tables between the markers of the page beside it (`dir` with `.md`), which is made
/// if it is not there.
pub(super) fn write(dir: &Path, results: &[Evaluation]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let folder = dir
        .file_name()
        .map_or_else(|| ".".into(), |name| name.to_string_lossy());
    let mut text = String::new();
    for result in results {
        let stem = result.title.to_lowercase();
        for row in result.rows.iter().filter(|row| row.name != Kind::Constant.to_string()) {
            let title = format!("{}: {}, ECE {:.3}", result.title, row.name, row.ece);
            put(
                dir,
                &format!("{stem}-reliability-{}.svg", row.name),
                &reliability_diagram(&title, &row.reliability),
            )?;
        }
        let mut curves: Vec<(String, &[Point])> = result
            .rows
            .iter()
            .map(|row| (row.name.clone(), row.curve.points.as_slice()))
            .collect();
        curves.push(("oracle".to_owned(), &result.oracle.points));
        let across = format!("mean cost, from cheapest to dearest model ({})", result.costs.unit);
        put(
            dir,
            &format!("{stem}-routed.svg"),
            &routed_diagram(result.title, &across, &curves),
        )?;
        text.push_str(&section(result, &folder, &stem));
    }
    let page = dir.with_extension("md");
    let before = if page.exists() {
        std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?
    } else {
        format!("# Predictors\n\n{BEGIN}\n{END}\n")
    };
    let after = replaced(&before, &text).with_context(|| format!("in {}", page.display()))?;
    std::fs::write(&page, after).with_context(|| format!("cannot write {}", page.display()))
}

fn put(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// `page` with `text` between the markers.
fn replaced(page: &str, text: &str) -> anyhow::Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("the marker `{BEGIN}` is missing"))?;
    let after = rest.split_once(END).map(|(_, after)| after);
    ensure!(after.is_some(), "the marker `{END}` is missing");
    Ok(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{}",
        text.trim(),
        after.unwrap_or_default()
    ))
}

fn section(result: &Evaluation, folder: &str, stem: &str) -> String {
    let mut text = format!(
        "### {}\n\n{} prompts seen, {} held out. {}\n\n{}\n",
        result.title,
        result.seen,
        result.unseen,
        result.costs.note,
        markdown(&result.table_rows())
    );
    text.push_str(&format!(
        "![accuracy against cost]({folder}/{stem}-routed.svg) ![reliability]({folder}/{stem}-reliability-equipoise.svg)\n\n"
    ));
    text.push_str(
        "Area of ours over each other's on the same held-out prompts; interval by 200 paired resamples of them:\n\n",
    );
    text.push_str(&markdown(&result.lead_rows()));
    text.push('\n');
    if result.resampled.iter().any(|(_, areas)| !areas.is_empty()) {
        text.push_str("Areas on random 70/30 splits of the seen part, the held-out prompts untouched:\n\n");
        text.push_str(&markdown(&result.resampled_rows()));
        text.push('\n');
    }
    text.push_str(
        "Is `quality_sd` right? Quarters of the held-out answers by it; beside it what two predictors that were trained on \
         disjoint halves of the seen part differ by (root mean square of the difference, over √2: the deviation of one of \
         them), and by how much the Brier score is below that of the models' means:\n\n",
    );
    text.push_str(&markdown(&result.spread_rows()));
    text.push('\n');
    let coverage = result.coverage;
    text.push_str(&format!(
        "Lengths: {:.1} % of answers are below p10, {:.1} % below p50, {:.1} % above p90; the median is off by {:.0} % on \
         average, p90 is {:.1} times p10.\n\n",
        100.0 * coverage.below_p10,
        100.0 * coverage.below_p50,
        100.0 * coverage.above_p90,
        100.0 * coverage.relative_error,
        coverage.width
    ));
    text.push_str(&format!(
        "AUC per model:\n\n{}\nBrier score per model:\n\n{}\n",
        markdown(&per_model(result, |(auc, _)| auc)),
        markdown(&per_model(result, |(_, brier)| brier))
    ));
    text
}

/// One row per model, one column per predictor.
fn per_model(result: &Evaluation, of: impl Fn((f64, f64)) -> f64) -> Vec<Vec<String>> {
    let mut head = vec!["model".to_owned(), "accuracy".to_owned()];
    head.extend(result.rows.iter().map(|row| row.name.clone()));
    let mut rows = vec![head];
    for (model, (name, mean)) in result.models.iter().enumerate() {
        let mut row = vec![name.clone(), format!("{mean:.3}")];
        row.extend(result.rows.iter().map(|row| format!("{:.3}", of(row.per_model[model]))));
        rows.push(row);
    }
    rows
}

/// Rows as a Markdown table, the first as its head.
fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
        if index == 0 {
            text.push_str(&format!("|{}\n", " --- |".repeat(row.len())));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        assert_eq!(
            replaced(&page, "new\n").expect("marked"),
            format!("# Title\n{BEGIN}\n\nnew\n\n{END}\nrest\n")
        );
        assert!(replaced("no markers", "new").is_err());
    }

    #[test]
    fn tables_have_a_rule_under_their_head() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["1".to_owned(), "2".to_owned()],
        ];
        assert_eq!(markdown(&rows), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}
