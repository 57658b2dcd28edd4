//! What an OpenAI client sees of `equipoise up`.

use serde_json::json;

use crate::client::{CHAT, COMPLETIONS, chat, complete_tokens, streamed_chat};
use crate::cluster::Up;

#[tokio::test(flavor = "multi_thread")]
async fn chats_and_completions_are_answered_whole_and_streamed() {
    let up = Up::start(&[]).await;
    let completion = |model: &str| json!({"model": model, "prompt": "Once", "max_tokens": 4, "ignore_eos": true});
    for model in ["auto", "llama-3.1-8b"] {
        let answer = up.router.chat(model, 4, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.json()["choices"][0]["message"]["content"].is_string());
        let answer = up.router.post(COMPLETIONS, &[], completion(model).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["usage"]["completion_tokens"], 4);

        let mut streamed = completion(model);
        streamed["stream"] = true.into();
        for (path, body) in [(CHAT, streamed_chat(model, 4)), (COMPLETIONS, streamed)] {
            let mut stream = up.router.stream(path, &[], &body).await;
            assert!(stream.header("content-type").starts_with("text/event-stream"));
            let events = stream.rest().await.expect("the stream ends well");
            assert_eq!(complete_tokens(&events), Some(4), "{path}: {events:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_was_decided() {
    let up = Up::start(&[]).await;
    let mut decisions = Vec::new();
    for _ in 0..3 {
        let answer = up.router.chat("llama-3.1-8b", 1, &[("x-request-id", "mine")]).await;
        assert!(answer.instance().starts_with("general-"), "{}", answer.instance());
        assert_eq!(answer.header("x-equipoise-model"), "llama-3.1-8b");
        assert_eq!(answer.header("x-request-id"), "mine");
        decisions.push(answer.header("x-equipoise-decision-id").to_owned());
    }
    let stream = up.router.stream(CHAT, &[], &streamed_chat("auto", 1)).await;
    assert!(!stream.header("x-equipoise-model").is_empty());
    decisions.push(stream.header("x-equipoise-decision-id").to_owned());
    decisions.sort();
    decisions.dedup();
    assert_eq!(
        decisions.len(),
        4,
        "every decision has a name of its own: {decisions:?}"
    );
    assert!(decisions.iter().all(|name| !name.is_empty()));
}

/// The router always asks the engine for the counts; only who asked as well gets to see them.
#[tokio::test(flavor = "multi_thread")]
async fn the_counts_of_a_stream_are_hidden_unless_asked_for() {
    let up = Up::start(&[]).await;
    let mut asking = streamed_chat("auto", 3);
    let mut stream = up.router.stream(CHAT, &[], &asking).await;
    let events = stream.rest().await.expect("ends well");
    assert!(
        !events.iter().any(|event| event.contains("\"completion_tokens\"")),
        "{events:#?}"
    );

    asking["stream_options"] = json!({"include_usage": true});
    let mut stream = up.router.stream(CHAT, &[], &asking).await;
    let events = stream.rest().await.expect("ends well");
    let [.., counts, done] = events.as_slice() else {
        panic!("too short: {events:#?}")
    };
    let counts: serde_json::Value = serde_json::from_str(counts).expect("JSON");
    assert_eq!(
        (&counts["choices"], &counts["usage"]["completion_tokens"]),
        (&json!([]), &json!(3))
    );
    assert_eq!(done, "[DONE]");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_health_and_metrics_tell_of_the_fleet() {
    let up = Up::start(&[]).await;
    let models = up.router.get("/v1/models").await.json();
    let mut names: Vec<&str> = models["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|m| m["id"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["auto", "gemma-2-27b", "gemma-2-2b", "gemma-2-9b", "llama-3.1-8b"]
    );

    let health = up.router.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json(), json!({"status": "ok", "instances": 6, "available": 6}));

    for _ in 0..2 {
        assert_eq!(
            up.router
                .post(CHAT, &[], chat("gemma-2-9b", 2).to_string())
                .await
                .status,
            200
        );
    }
    let answered = up
        .router
        .metric(
            "equipoise_router_requests_total",
            "model=\"gemma-2-9b\",outcome=\"answered\"",
        )
        .await;
    assert_eq!(answered, Some(2.0));
    assert_eq!(up.router.metric("equipoise_router_in_flight", "").await, Some(0.0));
    assert_eq!(
        up.router.metric("equipoise_router_control_plane_connected", "").await,
        Some(1.0)
    );
    assert_eq!(up.page.metric("equipoise_control_instances", "").await, Some(6.0));
    let page = up.page.get("/").await;
    assert!(page.header("content-type").starts_with("text/html") && page.text().contains("Equipoise"));
}
