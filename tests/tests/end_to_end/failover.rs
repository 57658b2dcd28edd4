//! An engine is killed and comes back, under load.

use std::time::Instant;

use crate::cluster::{ControlPlane, Engines, agent, available, router_with, settled};
use crate::eventually;
use crate::load::{Asking, Load};

/// Whole answers only: a stream that has begun cannot go elsewhere.
const ASKING: Asking = Asking {
    model: "gemma-2-2b",
    max_tokens: 24,
    streams: false,
    tenants: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_and_comes_back_costs_no_answer_and_gets_work_again() {
    let head = "[[model]]\nname = \"gemma-2-2b\"\n";
    let mut engines = Engines::start(head, "model = \"gemma-2-2b\"\ngpu = \"H100\"", 3).await;
    let plane = ControlPlane::start("embedded").await;
    let (_agent, (_router, client)) = tokio::join!(
        agent(&plane.url, "node-a", &engines.real),
        router_with(&plane.url, "router-a", "round-robin")
    );
    settled(&plane.url, 3, "router-a").await;
    available(&client, 3).await;
    let load = Load::start(&client, 8, &ASKING);
    load.more(60).await;
    for round in 0..2 {
        engines.processes[1].kill();
        load.more(60).await;
        if round == 0 {
            available(&client, 2).await;
        }
        engines.restart(1).await;
        let (back, engine) = (Instant::now(), engines.client(1));
        eventually("it works again", || async {
            (engine.metric("vllm:request_success_total", "").await? > 0.0).then_some(())
        })
        .await;
        eprintln!("round {round}: it had answered {:?} after it listened", back.elapsed());
        load.more(60).await;
    }
    load.stop_without_loss().await;
    assert_eq!(client.metric("equipoise_router_in_flight", "").await, Some(0.0));
}

/// One client, under a policy that would leave a spare engine asleep: what is back is tried all the same. Also where it was
/// away for so short that no probe saw it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_of_requests_reaches_an_engine_that_is_back() {
    let head = "[[model]]\nname = \"gemma-2-2b\"\n";
    let mut engines = Engines::start(head, "model = \"gemma-2-2b\"\ngpu = \"H100\"", 3).await;
    let plane = ControlPlane::start("embedded").await;
    let (_agent, (_router, client)) = tokio::join!(
        agent(&plane.url, "node-a", &engines.real),
        router_with(&plane.url, "router-a", "equipoise")
    );
    settled(&plane.url, 3, "router-a").await;
    available(&client, 3).await;
    let mut delays = Vec::new();
    for round in 0..6 {
        engines.processes[1].kill();
        if round % 2 == 0 {
            available(&client, 2).await;
        }
        engines.restart(1).await;
        let back = Instant::now();
        // What was away unseen has failed nothing, and is owed nothing.
        let owed = round % 2 == 0;
        loop {
            let answer = client.chat("gemma-2-2b", 2, &[]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            if answer.instance() == "engine-1" || (!owed && back.elapsed().as_secs() > 1) {
                break;
            }
            assert!(back.elapsed() < crate::PATIENCE, "it never got a request");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        if owed {
            delays.push(back.elapsed());
        }
    }
    eprintln!("from listening to the first answer through the router: {delays:?}");
    assert_eq!(client.metric("equipoise_router_in_flight", "").await, Some(0.0));
}
