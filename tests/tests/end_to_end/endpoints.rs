//! Endpoints beside chats and completions, through the router: each goes to one instance by the same decision, and what the
//! engine says comes back.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Up;
use crate::eventually;

const RESPONSES: &str = "/v1/responses";

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_placed_and_its_answer_comes_back() {
    let up = Up::start(&[]).await;
    let cases = [
        ("/v1/embeddings", json!({"input": ["a", "b"]}), "/data/1/embedding/0"),
        ("/pooling", json!({"input": "a"}), "/data/0/data/0"),
        ("/classify", json!({"input": "a"}), "/data/0/label"),
        ("/score", json!({"text_1": "a", "text_2": "b"}), "/data/0/score"),
        (
            "/v1/score",
            json!({"queries": "a", "documents": ["b"]}),
            "/data/0/score",
        ),
        ("/rerank", json!({"query": "a", "documents": ["b"]}), "/results/0/index"),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b"]}),
            "/results/0/index",
        ),
        (
            "/v2/rerank",
            json!({"query": "a", "documents": ["b"]}),
            "/results/0/index",
        ),
        ("/tokenize", json!({"prompt": "hello"}), "/tokens/0"),
        ("/detokenize", json!({"tokens": [104]}), "/prompt"),
        (
            RESPONSES,
            json!({"input": "hello", "max_output_tokens": 3}),
            "/output/0/content/0/text",
        ),
    ];
    for (path, mut body, place) in cases {
        for (model, pool) in [("gemma-2-9b", "reasoning-0"), ("auto", "")] {
            body["model"] = model.into();
            let answer = up.router.post(path, &[], body.to_string()).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert!(answer.instance().starts_with(pool), "{path}: {}", answer.instance());
            assert!(!answer.header("x-equipoise-decision-id").is_empty());
            assert!(answer.json().pointer(place).is_some(), "{path}: {}", answer.text());
        }
        let answer = up.router.exchange(Method::GET, path, &[], "").await.expect("an answer");
        answer.error(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), "POST");
    }
    eventually("nothing is left in flight", || async {
        (up.router.metric("equipoise_router_in_flight", "").await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_stays_with_the_instance_that_made_it() {
    let up = Up::start(&[]).await;
    let ask = |members: Value| {
        let mut body = json!({"model": "auto", "input": "hello", "max_output_tokens": 4});
        body.as_object_mut()
            .expect("an object")
            .extend(members.as_object().cloned().unwrap_or_default());
        body.to_string()
    };
    let first = up
        .router
        .post(RESPONSES, &[("x-equipoise-labels", "class=premium")], ask(json!({})))
        .await;
    assert_eq!((first.status, first.instance()), (200, "expert-0"), "{}", first.text());
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    let again = up.router.get(&format!("{RESPONSES}/{id}")).await;
    assert_eq!(
        (again.status, again.instance(), again.json()),
        (200, "expert-0", first.json())
    );
    // However cheap the others are.
    for _ in 0..3 {
        let headers = [("x-equipoise-minimize", "cost")];
        let next = up
            .router
            .post(RESPONSES, &headers, ask(json!({"previous_response_id": id})))
            .await;
        assert_eq!((next.status, next.instance()), (200, "expert-0"), "{}", next.text());
    }
    // The id of a stream is in its first event.
    let mut stream = up
        .router
        .stream(
            RESPONSES,
            &[],
            &json!({"model": "auto", "input": "hello", "max_output_tokens": 4, "stream": true}),
        )
        .await;
    let (status, instance) = (stream.status, stream.header("x-equipoise-instance").to_owned());
    let mut events = Vec::new();
    while let Some(event) = stream.next_data().await.expect("flows") {
        events.push(serde_json::from_str::<Value>(&event).expect("JSON"));
    }
    assert_eq!(status, 200);
    let last = events.last().expect("events");
    assert!(
        last["type"] == "response.incomplete" && last["response"]["usage"]["output_tokens"] == 4,
        "{last}"
    );
    let id = events[0]["response"]["id"].as_str().expect("an id");
    let again = up.router.get(&format!("{RESPONSES}/{id}")).await;
    assert_eq!((again.status, again.instance()), (200, instance.as_str()));

    let unknown = up.router.get("/v1/responses/resp_unknown").await;
    unknown.error(404, "response_not_found");
    let unknown = up
        .router
        .post(RESPONSES, &[], ask(json!({"previous_response_id": "resp_unknown"})))
        .await;
    unknown.error(404, "response_not_found");
    assert_eq!(unknown.json()["error"]["param"], "previous_response_id");
    let other = up.router.get(&format!("{RESPONSES}/{id}/anything")).await;
    other.error(404, "not_found");
}
