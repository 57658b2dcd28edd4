//! `equipoise simulate`: the same input, the same bytes.

use crate::process::{run, succeed};

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_give_the_same_bytes() {
    let arguments = [
        "simulate",
        "--requests",
        "300",
        "--seed",
        "7",
        "--policy",
        "equipoise,random",
        "--json",
        "-",
    ];
    let first = succeed(&arguments).await;
    assert!(serde_json::from_str::<serde_json::Value>(&first).is_ok(), "{first}");
    assert!(
        first == succeed(&arguments).await,
        "the results differ from one run to the next"
    );

    let mut other = arguments;
    other[4] = "8";
    assert!(first != succeed(&other).await, "the seed changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_has_a_row_for_every_policy() {
    const POLICIES: [&str; 7] = [
        "round-robin",
        "random",
        "least-requests",
        "power-of-two",
        "least-kv",
        "routebalance",
        "equipoise",
    ];
    let table = succeed(&["simulate", "--requests", "200", "--policy", &POLICIES.join(",")]).await;
    // The first paragraph; the second one tells who got what share of the requests.
    let rows: Vec<&str> = table
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for policy in POLICIES {
        let rows = rows.iter().filter(|first| **first == policy).count();
        assert_eq!(rows, 1, "{policy} in\n{table}");
    }
}

/// What a simulation decided, a replay decides again.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_simulation_replays_identically() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.jsonl");
    let log = log.to_str().expect("UTF-8");
    succeed(&["simulate", "--requests", "200", "--record", log]).await;
    let said = succeed(&["replay", log]).await;
    assert!(said.contains("identical"), "{said}");
}

/// The report stands alone, and a line per request is beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_and_every_request_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (page, requests) = (path("report.html"), path("requests.parquet"));
    let arguments = [
        "simulate",
        "--requests",
        "200",
        "--policy",
        "equipoise,random",
        "--html",
        &page,
        "--requests-out",
        &requests,
    ];
    let table = succeed(&arguments).await;
    assert!(table.contains("equipoise"), "{table}");
    let html = std::fs::read_to_string(&page).expect("a page");
    assert!(html.starts_with("<!doctype html>") && html.contains("Energy by cause"));
    assert!(
        !html.contains("<script") && !html.contains("src="),
        "it needs nothing else"
    );
    let bytes = std::fs::read(&requests).expect("a table");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
}

const SCENARIO: &str = r#"
name = "End to end"
policies = ["least-requests", "equipoise"]
seeds = [1, 2]
[[fleet.model]]
name = "qwen2.5-3b"
quality = 0.3
[[fleet.pool]]
name = "a"
model = "qwen2.5-3b"
gpu = "A30"
count = 3
[workload]
arrivals = "poisson"
rate_per_s = 4
requests = 150
[[fault]]
kind = "crash"
instance = "a-1"
at_s = 10
until_s = 20
[sweep]
rates_per_s = [2, 5]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_file_is_run_and_a_mistake_in_it_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("s.toml");
    std::fs::write(&file, SCENARIO).expect("written");
    let path = file.to_str().expect("UTF-8");
    let table = succeed(&["simulate", "--scenario", path]).await;
    assert!(
        table.contains("least-requests") && table.contains("Means over 2 seeds"),
        "{table}"
    );
    std::fs::write(&file, SCENARIO.replace("at_s = 10", "at = 10")).expect("written");
    let said = run(&["simulate", "--scenario", path]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("s.toml:20:1: unknown field `at`"), "{said:?}");
}

/// One machine or two, begun once or twice: the same report.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_on_where_it_was_and_shards_join() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let file = path("s.toml");
    std::fs::write(&file, SCENARIO).expect("written");
    let whole = path("whole");
    let said = succeed(&["sweep", &file, "--out", &whole]).await;
    assert!(said.contains("8 runs"), "{said}");
    let report = std::fs::read(folder.path().join("whole/report.html")).expect("a page");
    let again = succeed(&["sweep", &file, "--out", &whole]).await;
    assert_eq!(said, again, "nothing is run again, and nothing changes");
    let (one, two) = (path("one"), path("two"));
    succeed(&["sweep", &file, "--out", &one, "--shard", "0/2"]).await;
    succeed(&["sweep", &file, "--out", &two, "--shard", "1/2"]).await;
    succeed(&["sweep", "merge", &one, &two]).await;
    let joined = std::fs::read(folder.path().join("one/report.html")).expect("a page");
    assert!(joined == report, "two shards give another report");
}
