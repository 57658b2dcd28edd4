//! Feedback on answers: what it changes, what it refuses, what the metrics say.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::cluster::{FleetFile, Up};
use crate::process::run;

const FEEDBACK: &str = "/v1/feedback";

/// Two models that no predictor knows, with what their operator believes of them; only quality counts.
fn fleet(scheduler: &str) -> FleetFile {
    FleetFile::new(&format!(
        r#"
[scheduler]
{scheduler}

[scheduler.settings.weights]
quality = 1
latency = 0
energy = 0
cost = 0

[[model]]
name = "praised"
quality = 0.8

[[model]]
name = "modest"
quality = 0.6

[[pool]]
name = "praised"
model = "praised"
service_ms = 2
count = 1

[[pool]]
name = "modest"
model = "modest"
service_ms = 2
count = 1
"#
    ))
}

async fn judge(router: &Client, body: &Value) -> Answer {
    router.post(FEEDBACK, &[], body.to_string()).await
}

/// Asks, and gives the model that answered and the decision.
async fn ask(router: &Client) -> (String, String) {
    let answer = router.chat("auto", 1, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let header = |name: &str| answer.header(name).to_owned();
    (header("x-equipoise-model"), header("x-equipoise-decision-id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_disappoints_loses_its_traffic() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.jsonl");
    let path = log.to_str().expect("UTF-8");
    let fleet = fleet("");
    let mut up = Up::start(&["--fleet", fleet.path(), "--record", path]).await;
    let (mut taken, mut moved) = (0, false);
    while !moved && taken < 60 {
        let (model, decision) = ask(&up.router).await;
        let said = judge(
            &up.router,
            &json!({"decision_id": decision, "passed": model == "modest"}),
        )
        .await;
        assert_eq!(said.status, 200, "{}", said.text());
        assert_eq!(said.json()["model"], model.as_str());
        taken += 1;
        moved = model == "modest";
    }
    assert!(moved && taken > 1, "after {taken} judgements");
    for _ in 0..5 {
        assert_eq!(ask(&up.router).await.0, "modest");
    }
    let metric = |name: &'static str, label: &'static str| {
        let router = up.router.clone();
        async move { router.metric(name, label).await.unwrap_or(f64::NAN) }
    };
    let bad = f64::from(taken - 1);
    assert_eq!(metric("equipoise_feedback_total", "taken").await, f64::from(taken));
    assert_eq!(metric("equipoise_feedback_answers_total", "praised").await, bad);
    assert_eq!(
        metric("equipoise_feedback_realised_quality_total", "praised").await,
        0.0
    );
    assert!(metric("equipoise_feedback_predicted_quality_total", "praised").await > 0.55 * bad);
    assert!(metric("equipoise_feedback_shift", "praised").await < -0.5);
    assert!(metric("equipoise_cumulative_regret", "").await >= 0.0);

    let explained = run(&[
        "explain",
        &ask(&up.router).await.1,
        "--router",
        &format!("http://{}", up.router.address()),
    ])
    .await;
    assert!(explained.stdout.contains("declared"), "{explained:?}");
    up.process.stop().await;
    let replayed = run(&["replay", path]).await;
    assert!(replayed.stdout.contains("identical"), "{replayed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_makes_no_sense_is_refused_and_changes_nothing() {
    let fleet = fleet("");
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let (_, decision) = ask(&up.router).await;
    for body in [
        json!({"decision_id": decision}),
        json!({"decision_id": decision, "score": 1.5}),
        json!({"decision_id": decision, "score": -0.1}),
        json!({"decision_id": decision, "score": "good"}),
        json!({"decision_id": decision, "score": 1, "passed": true}),
        json!({"decision_id": decision, "passed": true, "why": "because"}),
        json!({"score": 1}),
        json!([1]),
    ] {
        judge(&up.router, &body).await.error(400, "invalid_feedback");
    }
    for unknown in [
        "router-0-999",
        "router-0-",
        "router-1-0",
        "",
        "router-0-18446744073709551616",
    ] {
        let body = json!({"decision_id": unknown, "passed": true});
        judge(&up.router, &body).await.error(404, "unknown_decision");
    }
    assert_eq!(up.router.get(FEEDBACK).await.status, 405);
    let body = json!({"decision_id": decision, "score": 0.5});
    assert_eq!(judge(&up.router, &body).await.status, 200);
    judge(&up.router, &body).await.error(409, "duplicate_feedback");
    let total = |outcome: &'static str| {
        let router = up.router.clone();
        async move { router.metric("equipoise_feedback_total", outcome).await }
    };
    assert_eq!(total("taken").await, Some(1.0));
    assert_eq!(total("invalid").await, Some(8.0));
    assert_eq!(total("unknown").await, Some(5.0));
    assert_eq!(total("duplicate").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn exploring_is_asked_for_marked_and_bounded() {
    let fleet = fleet("exploration = { share = 1.0, budget_per_hour = 0.5 }");
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let mut explored = 0;
    for _ in 0..6 {
        let answer = up.router.chat("auto", 1, &[]).await;
        let model = answer.header("x-equipoise-model");
        let marked = answer.header("x-equipoise-explored") == "1";
        assert_eq!(marked, model == "modest", "{model}");
        explored += u32::from(marked);
        let decision = answer.header("x-equipoise-decision-id");
        let explained = up.router.get(&format!("/v1/decisions/{decision}")).await.json();
        assert_eq!(explained["explored"], marked);
    }
    // Each costs 0.2. Hours are those since the start, so that none ends during the test.
    assert_eq!(explored, 2);
    let counted = up.router.metric("equipoise_router_explored_total", "").await;
    assert_eq!(counted, Some(2.0));
}
