//! More clients than places: who has none is told at once, in OpenAI's words, and when to come back.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::cluster::{ControlPlane, FleetFile, agent, available, router_under, settled};
use crate::eventually;
use crate::process::Process;

/// 64 slots of half a second, and 32 places in the queue.
const FLEET: &str = "[scheduler]\nqueue_limit = 32\n\n[[model]]\nname = \"m\"\n\n[[pool]]\nname = \"box\"\nmodel = \"m\"\n\
                     service_ms = 500\nlimits = { max_num_seqs = 16 }\ncount = 4\n";

/// The router's client once it knows all of them, and what must live as long.
async fn fleet() -> (Client, (ControlPlane, Process, Process, FleetFile)) {
    let fleet = FleetFile::new(FLEET);
    let plane = ControlPlane::start("embedded").await;
    let (agent, (router, client)) = tokio::join!(
        agent(&plane.url, "node-a", &fleet),
        router_under(&plane.url, "router-a", &fleet)
    );
    settled(&plane.url, 4, "router-a").await;
    available(&client, 4).await;
    (client, (plane, agent, router, fleet))
}

async fn ask(router: Client) -> (u16, Duration) {
    let started = Instant::now();
    let answer = router.chat("m", 4, &[]).await;
    let elapsed = started.elapsed();
    if answer.status != 200 {
        let message = answer.error(429, "queue_full");
        assert!(message.contains("retry in"), "{message}");
        let retry_after: u32 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=5).contains(&retry_after));
    }
    (answer.status, elapsed)
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_clients_for_ninety_six_places() {
    let (client, _fleet) = fleet().await;

    let asking: Vec<_> = (0..400).map(|_| tokio::spawn(ask(client.clone()))).collect();
    eventually("the queue is seen from outside", || async {
        let (length, age) = (
            client.metric("equipoise_router_queue_length", "").await?,
            client.metric("equipoise_router_queue_age_seconds", "").await?,
        );
        (length > 0.0 && age > 0.0).then_some(())
    })
    .await;
    let mut refused = Vec::new();
    for one in asking {
        let (status, elapsed) = one.await.expect("a client ends well");
        if status == 429 {
            refused.push(elapsed);
        }
    }
    refused.sort_unstable();
    // Slots that free while the last clients still connect serve some more.
    assert!(
        !refused.is_empty() && refused.len() <= 400 - 96,
        "{} of 400 were refused",
        refused.len()
    );
    eprintln!(
        "400 clients, 64 slots, 32 places: {} refused, the median after {:?}, the last after {:?}",
        refused.len(),
        refused[refused.len() / 2],
        refused[refused.len() - 1]
    );
    let metric = |name: &'static str, label: &'static str| async { client.metric(name, label).await };
    assert_eq!(
        metric("equipoise_router_refused_total", "queue_full").await,
        Some(refused.len() as f64)
    );
    assert_eq!(metric("equipoise_router_queue_length", "").await, Some(0.0));
    assert_eq!(metric("equipoise_router_queue_age_seconds", "").await, Some(0.0));
    assert!(metric("equipoise_router_queue_wait_seconds_count", "").await >= Some(32.0));
    assert_eq!(metric("equipoise_router_in_flight", "").await, Some(0.0));
}

/// What an engine finds wrong with a request is the request's fault, however often.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_ask_nonsense_open_no_breaker() {
    let (client, _fleet) = fleet().await;
    // Longer than the box's context, which the router is not told.
    let long = "word ".repeat(60_000);
    let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": long}], "max_tokens": 4});
    for _ in 0..30 {
        let answer = client.post(crate::client::CHAT, &[], body.to_string()).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert_eq!(client.metric("equipoise_router_breaker", "").await, Some(0.0));
    assert_eq!(client.get("/health").await.json()["available"], 4);
    assert_eq!(client.chat("m", 1, &[]).await.status, 200);
}
