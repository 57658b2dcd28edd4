//! Endpoints beside chats and completions.

use crate::client::{physical, start};
use serde_json::{Value, json};

#[tokio::test]
async fn vectors_scores_and_classes_are_made_up_but_always_the_same() {
    let (_running, client) = start(physical()).await;
    let asked = json!({"model": "m", "input": ["a cat", "a cat", "quantum flux"], "dimensions": 8});
    let (status, first) = client.post("/v1/embeddings", &asked).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["data"][0]["embedding"], first["data"][1]["embedding"]);
    assert_ne!(first["data"][0]["embedding"], first["data"][2]["embedding"]);
    assert_eq!(first["data"][2]["embedding"].as_array().map(Vec::len), Some(8));
    assert!(first["usage"]["prompt_tokens"].as_u64() > Some(0));
    let (_, encoded) = client
        .post(
            "/v1/embeddings",
            &json!({"model": "m", "input": "a cat", "encoding_format": "base64"}),
        )
        .await;
    // 256 numbers of four bytes.
    assert_eq!(encoded["data"][0]["embedding"].as_str().map(str::len), Some(1368));

    let rank = json!({"model": "m", "query": "a cat", "documents": ["quantum flux", "the cat"], "top_n": 1});
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let (status, ranked) = client.post(path, &rank).await;
        assert_eq!((status, &ranked["results"][0]["index"]), (200, &json!(1)), "{ranked}");
        assert_eq!(ranked["results"].as_array().map(Vec::len), Some(1));
    }
    let (status, scored) = client
        .post(
            "/v1/score",
            &json!({"model": "m", "text_1": "a cat", "text_2": ["a cat", "flux"]}),
        )
        .await;
    assert_eq!(status, 200);
    assert!(scored["data"][0]["score"].as_f64() > scored["data"][1]["score"].as_f64());
    let (status, _) = client
        .post(
            "/score",
            &json!({"model": "m", "queries": ["a", "b"], "documents": ["a", "b", "c"]}),
        )
        .await;
    assert_eq!(status, 400);
    let (status, classes) = client.post("/classify", &json!({"model": "m", "input": "fine"})).await;
    assert_eq!((status, &classes["data"][0]["num_classes"]), (200, &json!(2)));
    let (status, pooled) = client.post("/pooling", &json!({"model": "m", "input": "fine"})).await;
    assert_eq!((status, &pooled["data"][0]["object"]), (200, &json!("pooling")));
    let (status, refused) = client.post("/rerank", &json!({"model": "m", "query": "a"})).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("documents")));
}

#[tokio::test]
async fn a_response_is_kept_and_its_stream_says_the_same() {
    let (_running, client) = start(physical()).await;
    let (status, whole) = client
        .post("/v1/responses", &json!({"model": "m", "input": "Tell me a story."}))
        .await;
    assert_eq!((status, &whole["object"]), (200, &json!("response")), "{whole}");
    let text = whole["output"][0]["content"][0]["text"].as_str().expect("text");
    let stream = client
        .stream(
            "/v1/responses",
            &json!({"model": "m", "input": "Tell me a story.", "stream": true}),
        )
        .await;
    let types = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    let numbers: Vec<u64> = stream
        .chunks
        .iter()
        .filter_map(|event| event["sequence_number"].as_u64())
        .collect();
    assert_eq!(numbers, (0..stream.chunks.len() as u64).collect::<Vec<_>>());
    let deltas: String = stream
        .chunks
        .iter()
        .filter(|event| types(event) == "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(deltas, text);
    let last = stream.chunks.last().expect("events");
    assert_eq!(types(last), "response.completed");
    assert_eq!(
        last["response"]["usage"]["output_tokens"],
        whole["usage"]["output_tokens"]
    );
    let id = whole["id"].as_str().expect("an id");
    let (status, again) = client.text("GET", &format!("/v1/responses/{id}"), "").await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&again).expect("JSON")),
        (200, whole.clone())
    );
    assert_eq!(client.text("GET", "/v1/responses/resp_x", "").await.0, 404);
    let asked = json!({"model": "m", "input": "And then?", "previous_response_id": id});
    assert_eq!(client.post("/v1/responses", &asked).await.0, 200);
    let asked = json!({"model": "m", "input": "And then?", "previous_response_id": "resp_x"});
    assert_eq!(client.post("/v1/responses", &asked).await.0, 404);
}
