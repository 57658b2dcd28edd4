//! Answers, streams and errors.

use crate::client::{chat, fixed, physical, start, with};
use equipoise_openai::FinishReason;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[tokio::test]
async fn a_stream_says_the_same_as_a_whole_answer_and_counts_its_tokens() {
    for config in [physical(), fixed(0.02, 4)] {
        let (_running, client) = start(config).await;
        let (status, whole) = client.post(CHAT, &chat("Tell me a story.")).await;
        assert_eq!(status, 200, "{whole}");
        let asked = with(
            chat("Tell me a story."),
            json!({"stream": true, "stream_options": {"include_usage": true}}),
        );
        let stream = client.stream(CHAT, &asked).await;
        assert!(stream.done);
        assert_eq!(
            stream.text(),
            whole["choices"][0]["message"]["content"].as_str().expect("text")
        );
        assert_eq!(stream.chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let last = stream.summaries.last().expect("chunks");
        assert!(last.is_usage_only());
        let usage = last.usage.expect("usage");
        assert_eq!(u64::from(usage.completion_tokens), whole["usage"]["completion_tokens"]);
        assert_eq!(u64::from(usage.prompt_tokens), whole["usage"]["prompt_tokens"]);
        let tokens: u32 = stream.summaries.iter().map(|summary| summary.content_choices).sum();
        assert_eq!(tokens, usage.completion_tokens);
        let finish = stream.summaries[stream.summaries.len() - 2].finish_reason;
        assert_eq!(finish, Some(FinishReason::Stop));
    }
}

#[tokio::test]
async fn max_tokens_cuts_and_min_tokens_and_ignore_eos_stretch() {
    let (_running, client) = start(physical()).await;
    let asked = json!({"model": "m", "prompt": "Once", "max_tokens": 2});
    let (_, cut) = client.post(COMPLETIONS, &asked).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(
        cut["usage"],
        json!({"prompt_tokens": 1, "total_tokens": 3, "completion_tokens": 2,
        "prompt_tokens_details": null, "completion_tokens_details": null})
    );
    let (_, forced) = client
        .post(
            COMPLETIONS,
            &with(asked.clone(), json!({"max_tokens": 30, "ignore_eos": true})),
        )
        .await;
    assert_eq!(forced["usage"]["completion_tokens"], 30);
    let (_, least) = client
        .post(COMPLETIONS, &with(asked, json!({"max_tokens": 40, "min_tokens": 25})))
        .await;
    assert_eq!(
        (
            &least["usage"]["completion_tokens"],
            &least["choices"][0]["finish_reason"]
        ),
        (&json!(25), &json!("stop"))
    );
}

#[tokio::test]
async fn a_stream_without_options_has_no_usage() {
    let (_running, client) = start(fixed(0.001, 4)).await;
    let asked = json!({"model": "m", "prompt": [1, 2, 3], "stream": true});
    let stream = client.stream(COMPLETIONS, &asked).await;
    assert!(stream.done && stream.summaries.iter().all(|summary| summary.usage.is_none()));
    assert_eq!(stream.chunks.len(), 5);
}

#[tokio::test]
async fn tokenize_agrees_with_usage_and_detokenize_with_tokenize() {
    let (_running, client) = start(fixed(0.001, 4)).await;
    let (_, answer) = client.post(CHAT, &chat("How long is this, naïvely?")).await;
    let (_, tokens) = client.post("/tokenize", &chat("How long is this, naïvely?")).await;
    assert_eq!(tokens["count"], answer["usage"]["prompt_tokens"]);
    let text = "Plain text, naïvely 日本.";
    let (_, tokens) = client.post("/tokenize", &json!({"model": "m", "prompt": text})).await;
    assert_eq!(
        tokens["count"].as_u64().map(|count| count as usize),
        tokens["tokens"].as_array().map(Vec::len)
    );
    let (_, back) = client
        .post("/detokenize", &json!({"model": "m", "tokens": tokens["tokens"]}))
        .await;
    assert_eq!(back, json!({"prompt": text}));
}

#[tokio::test]
async fn a_prompt_that_comes_again_is_cached() {
    let (_running, client) = start(physical()).await;
    let prompt = "All work and no play. ".repeat(100);
    let (_, first) = client.post(CHAT, &chat(&prompt)).await;
    let (_, second) = client.post(CHAT, &chat(&prompt)).await;
    assert_eq!(first["usage"]["prompt_tokens_details"], Value::Null);
    let tokens = second["usage"]["prompt_tokens"].as_u64().expect("a count");
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .expect("a count");
    assert!(
        cached > 500 && cached < tokens && cached.is_multiple_of(16),
        "{cached} of {tokens}"
    );
    assert_eq!(client.metric("vllm:prefix_cache_hits_total").await, cached as f64);
    assert_eq!(
        client.metric("vllm:prefix_cache_queries_total").await,
        2.0 * tokens as f64
    );
}

#[tokio::test]
async fn models_version_and_health() {
    let (_running, client) = start(physical()).await;
    let (_, models) = client.text("GET", "/v1/models", "").await;
    let models: Value = serde_json::from_str(&models).expect("JSON");
    assert_eq!(
        (&models["data"][0]["id"], &models["object"]),
        (&json!("m"), &json!("list"))
    );
    assert!(models["data"][0]["max_model_len"].as_u64().expect("a length") > 100_000);
    assert_eq!(client.text("GET", "/health", "").await, (200, String::new()));
    assert_eq!(client.text("POST", "/ping", "").await, (200, String::new()));
    assert!(
        client
            .text("GET", "/version", "")
            .await
            .1
            .starts_with("{\"version\":\"0.")
    );
}

#[tokio::test]
async fn errors_have_vllm_s_shape() {
    let (_running, client) = start(physical()).await;
    let error = |asked: Value, path: &'static str| {
        let client = client.clone();
        async move {
            let (status, body) = client.post(path, &asked).await;
            assert_eq!(body["error"]["code"], status, "{body}");
            (status, body["error"]["message"].as_str().expect("a message").to_owned())
        }
    };
    let (status, message) = error(with(chat("x"), json!({"model": "nope"})), CHAT).await;
    assert_eq!(
        (status, &*message),
        (404, "The model `nope` does not exist. Valid aliases: m.")
    );
    let (status, message) = error(json!({"model": "m", "messages": []}), CHAT).await;
    assert!(status == 400 && message.contains("at least one message"), "{message}");
    for (wish, part) in [
        (
            json!({"max_tokens": 10_000_000}),
            "cannot be greater than max_model_len",
        ),
        (json!({"max_tokens": 0}), "at least 1, got 0"),
        (
            json!({"max_tokens": 2, "min_tokens": 5}),
            "less than or equal to max_tokens=2, got 5",
        ),
        (json!({"max_tokens": "x"}), "expected a whole number"),
        (json!({"n": 2}), "n=2 is not supported"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "only be defined when `stream=True`",
        ),
        (
            json!({"messages": [{"role": "user", "content": "word ".repeat(200_000)}]}),
            "maximum context length",
        ),
    ] {
        let (status, message) = error(with(chat("x"), wish), CHAT).await;
        assert!(status == 400 && message.contains(part), "{status} {message}");
    }
    let (status, message) = error(json!({"model": "m", "prompt": ["a", "b"]}), COMPLETIONS).await;
    assert!(status == 400 && message.contains("takes one"), "{message}");
    let (status, text) = client.text("POST", CHAT, "{\"model\":").await;
    assert!(status == 400 && text.contains("not valid JSON"), "{text}");
    assert_eq!(
        client.text("GET", CHAT, "").await,
        (405, r#"{"detail":"Method Not Allowed"}"#.to_owned())
    );
    assert_eq!(
        client.text("GET", "/nope", "").await,
        (404, r#"{"detail":"Not Found"}"#.to_owned())
    );
}
