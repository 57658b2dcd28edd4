//! `equipoise trace`: files made, looked at, converted and scaled, and then simulated.

use std::path::Path;

use crate::process::succeed;

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().expect("UTF-8").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_every_subcommand_and_into_a_simulation() {
    let folder = tempfile::tempdir().expect("a folder");
    let [lines, parquet, back, scaled] =
        ["a.jsonl", "a.parquet", "b.jsonl", "c.parquet"].map(|name| path(folder.path(), name));
    let generate = [
        "trace",
        "generate",
        &lines,
        "--arrivals",
        "gamma",
        "--cv",
        "2",
        "--requests",
        "3000",
    ];
    succeed(&generate).await;
    let summary = succeed(&["trace", "stat", &lines, "--json"]).await;
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["requests"], 3000);
    assert!(
        (summary["gap_cv"].as_f64().expect("a number") / 2.0 - 1.0).abs() < 0.15,
        "{summary}"
    );

    succeed(&["trace", "convert", &lines, &parquet]).await;
    succeed(&["trace", "convert", &parquet, &back]).await;
    let read = |file: &str| std::fs::read(file).expect("it was written");
    assert!(read(&lines) == read(&back), "a round trip loses something");

    succeed(&["trace", "scale", &parquet, &scaled, "--to-rate", "2.5"]).await;
    let table = succeed(&["trace", "stat", &scaled]).await;
    assert!(
        table.contains("format      parquet") && table.contains("rate        2."),
        "{table}"
    );
    assert!(
        std::fs::read_dir(folder.path()).expect("a folder").count() == 4,
        "something is left behind"
    );

    let short = path(folder.path(), "short.parquet");
    succeed(&["trace", "convert", &scaled, &short, "--limit", "100"]).await;
    let table = succeed(&["simulate", "--trace", &short, "--policy", "random"]).await;
    assert!(table.contains("random"), "{table}");
}
