//! `docs/metrics.md` is the catalogue, rendered.

use std::fmt::Write as _;

use equipoise_telemetry::catalogue::{ALL, Entry, Kind};

use crate::repository::root;

const HEAD: &str = "\
# Metrics

Every metric that Equipoise exposes. Routers serve theirs at `/metrics` beside the OpenAI API, the control plane beside
the fleet page. An agent records its own, but serves no page of them yet.

This file is the catalogue in `crates/telemetry`, rendered. After a change there:
`EQUIPOISE_BLESS=1 cargo test -p equipoise-tests --test tidy metrics`.
";

const SECTIONS: &[(&str, &[&str])] = &[
    ("Router", &["equipoise_router_"]),
    (
        "Router: feedback",
        &["equipoise_feedback_", "equipoise_cumulative_regret"],
    ),
    ("Router: gateways", &["equipoise_route_", "equipoise_ext_proc_"]),
    ("Control plane", &["equipoise_control_"]),
    ("Agent", &["equipoise_agent_"]),
];

/// The page as it should be.
fn render() -> String {
    let mut page = HEAD.to_owned();
    for (title, prefixes) in SECTIONS {
        page.push_str(&format!(
            "\n## {title}\n\n| metric | kind | unit | labels | what it says |\n"
        ));
        page.push_str("| --- | --- | --- | --- | --- |\n");
        for entry in ALL.iter().filter(|entry| is_of(entry, prefixes)) {
            row(&mut page, entry);
        }
    }
    page
}

fn is_of(entry: &Entry, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| entry.name.starts_with(prefix))
}

fn row(page: &mut String, entry: &Entry) {
    let Entry { name, unit, help, .. } = entry;
    let kind = match entry.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
    let labels = if labels.is_empty() {
        "none".to_owned()
    } else {
        labels.join(", ")
    };
    writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {help} |").expect("text takes text");
}

#[test]
fn the_page_of_metrics_is_the_catalogue() {
    let path = root().join("docs/metrics.md");
    if std::env::var_os("EQUIPOISE_BLESS").is_some() {
        std::fs::write(&path, render()).expect("docs/metrics.md can be written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == render(),
        "docs/metrics.md is not what the catalogue says; run\n  EQUIPOISE_BLESS=1 cargo test -p equipoise-tests --test tidy metrics"
    );
}

#[test]
fn every_metric_is_in_a_section() {
    let homeless = ALL
        .iter()
        .filter(|entry| !SECTIONS.iter().any(|(_, prefixes)| is_of(entry, prefixes)));
    let names: Vec<String> = homeless.map(|entry| entry.name.to_owned()).collect();
    crate::hold("Give it a section of docs/metrics.md, in SECTIONS:", &names);
}
