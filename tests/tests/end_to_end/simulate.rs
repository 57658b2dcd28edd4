//! `equipoise simulate`: the same input, the same bytes.

use crate::process::succeed;

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
