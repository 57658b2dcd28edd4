//! What `deploy/` says is true.

use equipoise_telemetry::catalogue::{ALL, Kind};

use crate::hold;
use crate::repository::{files, text};

/// Every word of a file that looks like a metric of ours.
fn metrics_in(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("equipoise_")).collect()
}

/// The names under which a scrape has them.
fn scraped() -> Vec<String> {
    let names = ALL.iter().flat_map(|entry| match entry.kind {
        Kind::Counter | Kind::Gauge => vec![entry.name.to_owned()],
        Kind::Histogram => ["bucket", "sum", "count"]
            .map(|part| format!("{}_{part}", entry.name))
            .to_vec(),
    });
    names.collect()
}

#[test]
fn every_metric_that_is_used_exists() {
    let known = scraped();
    let mut used = 0;
    let mut offenders = Vec::new();
    for file in files().into_iter().filter(|file| file.starts_with("deploy/")) {
        for metric in metrics_in(&text(&file).unwrap_or_default()) {
            used += 1;
            if !known.iter().any(|name| name == metric) {
                offenders.push(format!("{file} uses {metric}"));
            }
        }
    }
    hold("No such metric; docs/metrics.md lists those there are:", &offenders);
    assert!(used > 30, "only {used} uses were found");
}

#[test]
fn the_dashboard_is_json() {
    let text = text("deploy/grafana-dashboard.json").expect("text");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() >= 10));
}
