//! The metrics page.

use crate::client::{Client, chat, physical, start, with};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn the_names_are_vllm_s() {
    let (_running, client) = start(physical()).await;
    let response = client.send("GET", "/metrics", "").await;
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=1.0.0; charset=utf-8"
    );
    let (_, page) = client.text("GET", "/metrics", "").await;
    for family in [
        "vllm:num_requests_running gauge",
        "vllm:num_requests_waiting gauge",
        "vllm:kv_cache_usage_perc gauge",
        "vllm:prompt_tokens_total counter",
        "vllm:generation_tokens_total counter",
        "vllm:num_preemptions_total counter",
        "vllm:request_success_total counter",
        "vllm:prefix_cache_queries_total counter",
        "vllm:prefix_cache_hits_total counter",
        "vllm:time_to_first_token_seconds histogram",
        "vllm:inter_token_latency_seconds histogram",
        "vllm:e2e_request_latency_seconds histogram",
        "vllm:request_queue_time_seconds histogram",
        "vllm:cache_config_info gauge",
        "equipoise_emulator_energy_millijoules_total counter",
        "equipoise_emulator_idle_millijoules_total counter",
        "equipoise_emulator_power_watts gauge",
    ] {
        assert!(
            page.contains(&format!("# TYPE {family}\n")),
            "{family} is missing in\n{page}"
        );
    }
}

#[tokio::test]
async fn counters_add_up_with_what_clients_were_told() {
    let (_running, client) = start(physical()).await;
    let (mut prompt, mut completion) = (0.0, 0.0);
    for text in ["one", "a longer prompt than that", "three"] {
        let (_, answer) = client.post("/v1/chat/completions", &chat(text)).await;
        prompt += answer["usage"]["prompt_tokens"].as_f64().expect("a count");
        completion += answer["usage"]["completion_tokens"].as_f64().expect("a count");
    }
    assert_eq!(client.metric("vllm:prompt_tokens_total").await, prompt);
    assert_eq!(client.metric("vllm:generation_tokens_total").await, completion);
    assert_eq!(client.metric("vllm:time_to_first_token_seconds_count").await, 3.0);
    assert_eq!(
        client.metric("vllm:inter_token_latency_seconds_count").await,
        completion - 3.0
    );
    assert_eq!(
        client
            .metric("vllm:request_success_total{engine=\"0\",finished_reason=\"stop\"")
            .await,
        3.0
    );
    assert_eq!(client.metric("vllm:request_generation_tokens_sum").await, completion);
}

/// Energy, idle energy (both from one page) and power.
async fn meter(client: &Client) -> (u64, u64, f64) {
    let (_, page) = client.text("GET", "/metrics", "").await;
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).expect("the metric");
        line.rsplit(' ').next().expect("a value").to_owned()
    };
    let whole = |name: &str| value(name).parse().expect("whole millijoules");
    (
        whole("equipoise_emulator_energy_millijoules_total"),
        whole("equipoise_emulator_idle_millijoules_total"),
        value("equipoise_emulator_power_watts").parse().expect("a number"),
    )
}

#[tokio::test]
async fn energy_rises_while_idle_and_faster_while_busy_and_is_never_below_idle() {
    let (_running, client) = start(physical()).await;
    let idle_watts = physical().step_model.idle_watts().0;
    let (mut energy, mut idle, power) = meter(&client).await;
    assert_eq!(power, idle_watts);
    let mut check = |(next_energy, next_idle, _): (u64, u64, f64)| {
        assert!(next_energy >= energy && next_idle >= idle && next_energy >= next_idle);
        (energy, idle) = (next_energy, next_idle);
    };
    tokio::time::sleep(Duration::from_millis(30)).await;
    let at_rest = meter(&client).await;
    assert!(at_rest.0 > 0 && at_rest.0 == at_rest.1, "idle time is idle energy");
    check(at_rest);
    let asked = with(
        chat("Go on."),
        json!({"max_tokens": 40, "ignore_eos": true, "stream": true}),
    );
    let answering = tokio::spawn({
        let client = client.clone();
        async move { client.stream("/v1/chat/completions", &asked).await }
    });
    let mut most_watts = 0.0_f64;
    while !answering.is_finished() {
        let now = meter(&client).await;
        most_watts = most_watts.max(now.2);
        check(now);
    }
    assert!(answering.await.expect("no panic").done);
    assert!(most_watts > idle_watts, "{most_watts}");
    let after = meter(&client).await;
    check(after);
    assert!(after.0 > after.1, "work cost something");
    assert_eq!(after.2, idle_watts);
}
