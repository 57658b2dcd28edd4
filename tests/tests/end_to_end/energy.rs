//! The energy bill of a live run: not a millijoule is lost, and everybody pays their own.

use serde_json::Value;

use crate::cluster::Up;
use crate::eventually;
use crate::load::{Asking, Load};
use crate::process::succeed;

const ASKING: Asking = Asking {
    model: "auto",
    max_tokens: 16,
    streams: true,
    tenants: &["acme", "globex"],
};

async fn report(control: &str, by: &str) -> Value {
    let json = succeed(&["report", "energy", "--json", "--by", by, "--control", control]).await;
    serde_json::from_str(&json).expect("JSON")
}

fn number(row: &Value, member: &str) -> u64 {
    row[member].as_u64().unwrap_or_else(|| panic!("`{member}` in {row}"))
}

/// attributed + idle + unattributed = measured, exactly.
fn adds_up(row: &Value) {
    let parts = number(row, "attributed_mj") + number(row, "idle_mj") + number(row, "unattributed_mj");
    assert_eq!(parts, number(row, "measured_mj"), "{row}");
}

fn keys(report: &Value) -> Vec<&str> {
    report["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| row["key"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_report_adds_up_and_names_who_used_what() {
    let up = Up::start(&[]).await;
    let load = Load::start(&up.router, 8, &ASKING);
    load.more(80).await;
    let answered = load.stop_without_loss().await.len() as u64;

    eventually("every request is on the bill", || async {
        let total = report(&up.control, "tenant").await["total"].clone();
        (number(&total, "requests") == answered).then_some(())
    })
    .await;
    for (by, expected) in [
        ("pool", &["edge", "expert", "general", "reasoning"][..]),
        ("model", &["gemma-2-27b", "gemma-2-2b", "gemma-2-9b", "llama-3.1-8b"]),
        ("gpu", &["A100-80G", "A30", "H100", "L40S"]),
        ("tenant", &["-", "acme", "globex"]),
    ] {
        let report = report(&up.control, by).await;
        assert_eq!(keys(&report), expected, "by {by}");
        adds_up(&report["total"]);
        assert!(number(&report["total"], "attributed_mj") > 0, "{report}");
        let rows = report["rows"].as_array().expect("rows");
        rows.iter().for_each(adds_up);
        for member in [
            "measured_mj",
            "attributed_mj",
            "idle_mj",
            "unattributed_mj",
            "requests",
            "decode_tokens",
        ] {
            let sum: u64 = rows.iter().map(|row| number(row, member)).sum();
            assert_eq!(sum, number(&report["total"], member), "{member} by {by}");
        }
        for row in rows.iter().filter(|row| by == "tenant" && row["key"] != "-") {
            assert!(number(row, "attributed_mj") > 0 && number(row, "requests") > 0, "{row}");
        }
    }
}
