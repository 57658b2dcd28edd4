//! The two ends of a stream: a client that hangs up, and a server that is asked to stop.

use crate::client::{CHAT, Client, complete_tokens, streamed_chat};
use crate::cluster::{ControlPlane, FleetFile, Up, agent, router, settled};
use crate::eventually;
use crate::process::{Process, succeed};

/// Longer than the tests wait for it to be cut off: at the speed of an A30 a minute or more.
const LONG: u32 = 6000;

/// The engine behind an instance, by its own address.
async fn engine(control: &str, instance: &str) -> Client {
    let described = succeed(&["fleet", "describe", instance, "--control", control]).await;
    let endpoint = described.lines().find_map(|line| line.strip_prefix("endpoint"));
    Client::new(endpoint.expect("an endpoint").trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_frees_the_engine() {
    let up = Up::start(&[]).await;
    let mut stream = up.router.stream(CHAT, &[], &streamed_chat("gemma-2-2b", LONG)).await;
    let engine = engine(&up.control, stream.header("x-equipoise-instance")).await;
    stream.next().await.expect("flows").expect("has begun");
    assert_eq!(up.router.metric("equipoise_router_in_flight", "").await, Some(1.0));
    assert_eq!(engine.metric("vllm:num_requests_running", "").await, Some(1.0));
    drop(stream);
    eventually("the router forgets the request", || async {
        (up.router.metric("equipoise_router_in_flight", "").await == Some(0.0)).then_some(())
    })
    .await;
    eventually("the engine stops working on it", || async {
        (engine.metric("vllm:num_requests_running", "").await == Some(0.0)).then_some(())
    })
    .await;
    let aborted = engine
        .metric("vllm:request_success_total", "finished_reason=\"abort\"")
        .await;
    assert_eq!(aborted, Some(1.0), "it was cut off, not answered to the end");
    let cancelled = up
        .router
        .metric("equipoise_router_requests_total", "outcome=\"cancelled\"")
        .await;
    assert_eq!(cancelled, Some(1.0));
}

/// Stops a process under a running stream, which must come to its own end, and the process to a good one.
async fn finishes(process: &mut Process, router: &Client) {
    const TOKENS: u32 = 400;
    let mut stream = router.stream(CHAT, &[], &streamed_chat("gemma-2-2b", TOKENS)).await;
    let first = stream.next().await.expect("flows").expect("has begun");
    process.terminate();
    process.line_with("draining").await;
    let mut events = vec![first];
    events.extend(stream.rest().await.expect("it is not cut off"));
    assert_eq!(complete_tokens(&events), Some(TOKENS as usize));
    let status = process.ended().await;
    assert!(status.success(), "{status}");
    assert!(!process.output().contains("panicked"), "{}", process.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_stream_finish_all_in_one() {
    let mut up = Up::start(&[]).await;
    finishes(&mut up.process, &up.router).await;
}

/// Here nothing but the router itself can hold the stream open.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_stream_finish_router_alone() {
    let fleet = FleetFile::quick("pool", 1);
    let plane = ControlPlane::start("embedded").await;
    let (_agent, (mut process, client)) =
        tokio::join!(agent(&plane.url, "node-a", &fleet), router(&plane.url, "router-a"));
    settled(&plane.url, 1, "router-a").await;
    finishes(&mut process, &client).await;
}
