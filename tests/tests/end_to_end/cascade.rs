//! Cascades: a first answer that is not sure of itself is never seen, and a better model's comes in its place.

use serde_json::{Value, json};

use crate::client::{CHAT, complete_tokens};
use crate::cluster::{FleetFile, Up};
use crate::process::run;

/// Dollars pick the first model; emulated answers are as sure of themselves as chance has it, from a third to one.
const FLEET: &str = r#"
[scheduler.cascade]
threshold = 0.7

[scheduler.settings.weights]
quality = 0
latency = 0
energy = 0
cost = 1

[[model]]
name = "small"
quality = 0.4
price = { input_usd_per_mtok = 0.1, output_usd_per_mtok = 0.1 }

[[model]]
name = "large"
quality = 0.8
price = { input_usd_per_mtok = 1.0, output_usd_per_mtok = 1.0 }

[[pool]]
name = "small"
model = "small"
service_ms = 2
count = 1

[[pool]]
name = "large"
model = "large"
service_ms = 2
count = 1
"#;

const PROMPTS: usize = 16;

fn body(prompt: usize, more: &Value) -> Value {
    let mut body = json!({
        "model": "auto",
        "messages": [{"role": "user", "content": format!("What is {prompt} times {prompt}?")}],
        "max_tokens": 5,
        "ignore_eos": true,
    });
    for (key, value) in more.as_object().expect("members") {
        body[key] = value.clone();
    }
    body
}

/// Checks what an answer's head says; true where the first answer was replaced.
fn escalated(header: impl Fn(&str) -> String) -> bool {
    let number = |name: &str| header(name).parse::<f64>().expect("a confidence");
    if header("x-equipoise-model") == "small" {
        assert!(number("x-equipoise-confidence") >= 0.7);
        assert_eq!(header("x-equipoise-first-decision-id"), "");
        return false;
    }
    assert!(number("x-equipoise-first-confidence") < 0.7);
    assert_ne!(
        header("x-equipoise-first-decision-id"),
        header("x-equipoise-decision-id")
    );
    assert_ne!(header("x-equipoise-first-decision-id"), "");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsure_answer_is_replaced_before_anybody_sees_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.jsonl");
    let path = log.to_str().expect("UTF-8");
    let fleet = FleetFile::new(FLEET);
    let mut up = Up::start(&["--fleet", fleet.path(), "--record", path]).await;
    let mut replaced = 0;
    for prompt in 0..PROMPTS {
        let whole = up.router.post(CHAT, &[], body(prompt, &json!({})).to_string()).await;
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert_eq!(whole.json()["usage"]["completion_tokens"], 5);
        assert!(whole.json()["choices"][0]["logprobs"].is_null(), "{}", whole.text());
        assert_eq!(whole.json()["model"], whole.header("x-equipoise-model"));
        let first = escalated(|name| whole.header(name).to_owned());

        let mut stream = up
            .router
            .stream(CHAT, &[], &body(prompt, &json!({"stream": true})))
            .await;
        let again = escalated(|name| stream.header(name).to_owned());
        assert_eq!(first, again, "the same prompt, the same answer");
        let events = stream.rest().await.expect("the stream ends well");
        assert_eq!(complete_tokens(&events), Some(5), "{events:#?}");
        assert!(
            events
                .iter()
                .all(|event| !event.contains("\"logprob\"") && !event.contains("usage"))
        );
        replaced += 2 * u32::from(first);
    }
    let total = 2 * PROMPTS as u32;
    assert!(replaced > 0 && replaced < total, "{replaced} of {total}");
    let gated = |outcome: &'static str| {
        let router = up.router.clone();
        async move { router.metric("equipoise_router_gated_total", outcome).await }
    };
    assert_eq!(gated("escalated").await, Some(f64::from(replaced)));
    assert_eq!(gated("passed").await, Some(f64::from(total - replaced)));
    assert_eq!(up.router.metric("equipoise_router_in_flight", "").await, Some(0.0));

    up.process.stop().await;
    let said = run(&["replay", path]).await;
    assert!(said.stdout.contains("identical"), "{said:?}");
    assert!(
        said.stdout.contains(&format!(" {} decisions", total + replaced)),
        "both are decided: {}",
        said.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_shown_to_whoever_asks_and_the_rest_is_as_ever() {
    let fleet = FleetFile::new(FLEET);
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let mut seen_small = false;
    for prompt in 0..PROMPTS {
        let asked = body(prompt, &json!({"logprobs": true}));
        let answer = up.router.post(CHAT, &[], asked.to_string()).await;
        let logprobs = &answer.json()["choices"][0]["logprobs"]["content"];
        assert_eq!(logprobs.as_array().map(Vec::len), Some(5), "{}", answer.text());
        seen_small |= answer.header("x-equipoise-model") == "small";
    }
    assert!(seen_small);
    // A model that was named answers for itself.
    let mut named = body(0, &json!({}));
    named["model"] = "small".into();
    let answer = up.router.post(CHAT, &[], named.to_string()).await;
    assert_eq!((answer.status, answer.header("x-equipoise-confidence")), (200, ""));
}
