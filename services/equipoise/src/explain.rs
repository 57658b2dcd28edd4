//! `equipoise explain`: why a router decided as it did.

use std::time::Duration;

use anyhow::{Context as _, bail};
use equipoise_backend::{EngineClient, EngineClientConfig};
use serde_json::Value;

use crate::cli;
use crate::terminal::{say, table};

pub(crate) async fn run(options: cli::Explain) -> anyhow::Result<()> {
    let client = EngineClient::new(&options.router, EngineClientConfig::default()).with_context(|| {
        format!(
            "--router `{}` is no address; write http://127.0.0.1:8080",
            options.router
        )
    })?;
    let path = format!("/v1/decisions/{}", options.decision);
    let answer = client
        .get(&path, Duration::from_secs(5))
        .await
        .with_context(|| format!("no router answers at {}; name another with --router", options.router))?;
    let body: Value = serde_json::from_slice(answer.body()).context("the router's answer is no JSON")?;
    if !answer.status().is_success() {
        bail!("{}", body["error"]["message"].as_str().unwrap_or("the router refused"));
    }
    say(&if options.json {
        serde_json::to_string_pretty(&body)?
    } else {
        render(&body)
    });
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A figure with so many decimals.
fn figure(value: &Value, decimals: usize) -> String {
    value
        .as_f64()
        .map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

fn render(body: &Value) -> String {
    let none = Vec::new();
    let head = [
        "",
        "instance",
        "model",
        "score",
        "quality",
        "± sd",
        "from",
        "out tok",
        "queue s",
        "TTFT s",
        "below",
        "E2E s",
        "below",
        "joules",
        "below",
        "with",
        "USD",
        "price",
        "in flight",
    ];
    let mut candidates: Vec<&Value> = body["candidates"].as_array().unwrap_or(&none).iter().collect();
    let score = |candidate: &Value| candidate["score"].as_f64().unwrap_or(f64::NEG_INFINITY);
    candidates.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for candidate in candidates {
        let full = if candidate["saturated"] == Value::Bool(true) {
            " full"
        } else {
            ""
        };
        rows.push(vec![
            if candidate["chosen"] == Value::Bool(true) {
                "►"
            } else {
                ""
            }
            .to_owned(),
            text(&candidate["instance"]),
            text(&candidate["model"]),
            figure(&candidate["score"], 4),
            figure(&candidate["quality"], 3),
            figure(&candidate["quality_sd"], 3),
            text(&candidate["quality_from"]),
            figure(&candidate["output_tokens"], 0),
            figure(&candidate["queue_s"], 2),
            figure(&candidate["ttft_s"], 3),
            figure(&candidate["ttft_bound_s"], 3),
            figure(&candidate["e2e_s"], 2),
            figure(&candidate["e2e_bound_s"], 2),
            figure(&candidate["joules"], 1),
            figure(&candidate["joules_bound"], 1),
            figure(&candidate["confidence"], 3),
            figure(&candidate["cost_usd"], 6),
            figure(&candidate["price"], 2),
            format!("{}/{}{full}", candidate["in_flight"], candidate["slots"]),
        ]);
    }
    let mut lines = vec![
        format!(
            "decision {} by policy {}: {}{}",
            text(&body["decision"]),
            text(&body["policy"]),
            text(&body["chosen"]),
            if body["explored"] == Value::Bool(true) {
                ", to learn about its model"
            } else {
                ""
            }
        ),
        String::new(),
        table(&rows),
    ];
    let ruled_out = body["ruled_out"].as_array().unwrap_or(&none);
    if !ruled_out.is_empty() {
        lines.push(String::new());
        lines.push("ruled out:".to_owned());
        let rows: Vec<Vec<String>> = ruled_out
            .iter()
            .map(|ruled| vec![format!("  {}", text(&ruled["instance"])), text(&ruled["constraint"])])
            .collect();
        lines.push(table(&rows));
    }
    lines.join("\n")
}
