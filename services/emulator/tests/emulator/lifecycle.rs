//! Clients that go away, full queues, ports in use, and the end.

use crate::client::{Client, chat, fixed, physical, read_stream, start, with};
use equipoise_emulator::{Emulator, StartError};
use http_body_util::BodyExt as _;
use serde_json::json;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const RUNNING: &str = "vllm:num_requests_running";
const WAITING: &str = "vllm:num_requests_waiting{";
const ABORTED: &str = "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\"";

/// A request that would take minutes.
fn endless() -> serde_json::Value {
    with(chat("Go on."), json!({"max_tokens": 30_000, "ignore_eos": true}))
}

#[tokio::test]
async fn a_client_that_stops_reading_a_stream_frees_the_engine() {
    let (_running, client) = start(physical()).await;
    let response = client
        .send("POST", CHAT, &with(endless(), json!({"stream": true})).to_string())
        .await;
    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("no error");
    assert!(first.is_data());
    assert_eq!(client.metric(RUNNING).await, 1.0);
    drop(body);
    client.until(RUNNING, 0.0).await;
    assert_eq!(client.metric(ABORTED).await, 1.0);
    assert_eq!(client.metric("vllm:kv_cache_usage_perc").await, 0.0);
}

#[tokio::test]
async fn clients_that_leave_before_an_answer_free_the_engine_and_its_queue() {
    let (_running, client) = start(fixed(600.0, 1)).await;
    let leaving: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.send("POST", CHAT, &endless().to_string()).await })
        })
        .collect();
    client.until(RUNNING, 1.0).await;
    client.until(WAITING, 2.0).await;
    for request in &leaving {
        request.abort();
    }
    client.until(RUNNING, 0.0).await;
    client.until(WAITING, 0.0).await;
    assert_eq!(client.metric(ABORTED).await, 3.0);
}

#[tokio::test]
async fn a_fixed_box_serves_as_many_at_once_as_it_has_slots() {
    let (_running, client) = start(fixed(0.5, 8)).await;
    let requests: Vec<_> = (0..9)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.post(CHAT, &chat("x")).await.0 })
        })
        .collect();
    client.until(WAITING, 1.0).await;
    assert_eq!(client.metric(RUNNING).await, 8.0);
    for request in requests {
        assert_eq!(request.await.expect("no panic"), 200);
    }
    assert_eq!(client.metric("vllm:e2e_request_latency_seconds_count").await, 9.0);
    let total = client.metric("vllm:request_inference_time_seconds_sum").await;
    assert!(total > 4.49, "nine times half a second of service, not {total}");
}

#[tokio::test]
async fn a_full_queue_is_refused_with_503() {
    let mut config = fixed(600.0, 1);
    config.max_waiting = 1;
    let (_running, client) = start(config).await;
    let ask = |client: Client| tokio::spawn(async move { client.send("POST", CHAT, &chat("x").to_string()).await });
    let first = ask(client.clone());
    client.until(RUNNING, 1.0).await;
    let second = ask(client.clone());
    client.until(WAITING, 1.0).await;
    let (status, body) = client.post(CHAT, &chat("x")).await;
    assert_eq!(
        (status, &body["error"]["type"]),
        (503, &json!("ServiceUnavailableError"))
    );
    assert_eq!(client.metric("vllm:admission_rejections_total").await, 1.0);
    first.abort();
    second.abort();
}

#[tokio::test]
async fn shutdown_lets_answers_finish() {
    let (running, client) = start(fixed(0.3, 4)).await;
    let addr = running.addr();
    let asked = with(chat("x"), json!({"stream": true}));
    let response = client.send("POST", CHAT, &asked.to_string()).await;
    let stopping = tokio::spawn(running.shutdown());
    let stream = read_stream(response.into_body()).await;
    assert!(stream.done);
    tokio::time::timeout(Duration::from_secs(20), stopping)
        .await
        .expect("it ends")
        .expect("no panic");
    assert!(
        tokio::net::TcpStream::connect(addr).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_dropped_emulator_breaks_its_streams() {
    let (running, client) = start(physical()).await;
    let response = client
        .send("POST", CHAT, &with(endless(), json!({"stream": true})).to_string())
        .await;
    drop(running);
    let ended = tokio::time::timeout(Duration::from_secs(20), response.into_body().collect())
        .await
        .expect("it ends");
    assert!(ended.is_err(), "a stream without its end is an error");
}

#[tokio::test]
async fn a_taken_port_and_bad_settings_are_named() {
    let (running, _client) = start(fixed(0.1, 1)).await;
    let mut config = fixed(0.1, 1);
    config.addr = running.addr();
    let error = Emulator::start(config).await.expect_err("taken");
    assert!(error.to_string().contains(&running.addr().to_string()), "{error}");
    let mut config = fixed(0.1, 1);
    config.output_lengths.mean_tokens = f64::NAN;
    assert!(matches!(
        Emulator::start(config).await,
        Err(StartError::OutputLengths { .. })
    ));
}
