//! A node dies, with its agent and its engines; or leaves in good order.

use crate::client::{CHAT, streamed_chat};
use crate::cluster::{ControlPlane, FleetFile, FleetList, agent, available, router, router_with, settled};
use crate::eventually;
use crate::load::{Asking, Load};

/// Whole answers only: a stream that has begun cannot go elsewhere.
const ASKING: Asking = Asking {
    model: "gemma-2-2b",
    max_tokens: 24,
    streams: false,
    tenants: &[],
};

async fn vanished(control: &str, pool: &str) {
    eventually(&format!("{pool} is gone from the fleet"), || async {
        let fleet = FleetList::ask(control).await?;
        (!fleet.instances.iter().any(|row| row.name.starts_with(pool))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_that_die_under_load_cost_no_whole_answer() {
    let (doomed, steady) = (FleetFile::quick("doomed", 1), FleetFile::quick("steady", 1));
    let plane = ControlPlane::start("embedded").await;
    let (mut dying, _living, (_router, client)) = tokio::join!(
        agent(&plane.url, "node-doomed", &doomed),
        agent(&plane.url, "node-steady", &steady),
        // Each in turn: a policy that saves energy may leave one of two idle instances asleep.
        router_with(&plane.url, "router-a", "round-robin")
    );
    settled(&plane.url, 2, "router-a").await;

    let load = Load::start(&client, 8, &ASKING);
    load.more(60).await;
    // In the middle of something, for certain.
    eventually("the doomed engine is at work", || async {
        let in_flight = client
            .metric("equipoise_router_in_flight", "instance=\"doomed-0\"")
            .await;
        in_flight.filter(|&requests| requests > 0.0)
    })
    .await;
    dying.kill();
    load.more(60).await;
    vanished(&plane.url, "doomed").await;
    available(&client, 1).await;
    load.more(20).await;
    let answered = load.stop_without_loss().await;

    let by = |name: &str| answered.iter().filter(|instance| *instance == name).count();
    assert!(by("doomed-0") > 0 && by("steady-0") > 0, "both worked: {answered:?}");
    let retries = client.metric("equipoise_router_retries_total", "").await;
    assert!(
        retries >= Some(1.0),
        "what ran on the dead engine was asked again: {retries:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instances_of_a_dead_node_end_with_its_lease() {
    let fleet = FleetFile::quick("lone", 1);
    let plane = ControlPlane::start("embedded").await;
    let (mut node, (_router, client)) =
        tokio::join!(agent(&plane.url, "node-a", &fleet), router(&plane.url, "router-a"));
    settled(&plane.url, 1, "router-a").await;
    assert_eq!(client.chat("gemma-2-2b", 1, &[]).await.status, 200);

    node.kill();
    vanished(&plane.url, "lone").await;
    available(&client, 0).await;
    let answer = client.chat("gemma-2-2b", 1, &[]).await;
    let message = answer.error(503, "unavailable");
    assert!(message.contains("gone"), "{message}");

    // The node comes back, and so does its work.
    let _node = agent(&plane.url, "node-a", &fleet).await;
    settled(&plane.url, 1, "router-a").await;
    available(&client, 1).await;
    assert_eq!(client.chat("gemma-2-2b", 1, &[]).await.status, 200);
}

/// What was shown cannot be taken back: the client is told that the rest will not come.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_engine_dies_ends_with_an_error() {
    let fleet = FleetFile::quick("doomed", 1);
    let plane = ControlPlane::start("embedded").await;
    let (mut node, (_router, client)) =
        tokio::join!(agent(&plane.url, "node-a", &fleet), router(&plane.url, "router-a"));
    settled(&plane.url, 1, "router-a").await;
    let mut stream = client.stream(CHAT, &[], &streamed_chat("gemma-2-2b", 6000)).await;
    stream.next().await.expect("flows").expect("has begun");
    node.kill();
    let events = stream.rest().await.expect("the router ends it in good order");
    let last: serde_json::Value = serde_json::from_str(events.last().expect("a last word")).expect("JSON");
    assert!(
        last["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("broke off")),
        "{last}"
    );
    assert_eq!(
        client
            .metric("equipoise_router_requests_total", "outcome=\"failed\"")
            .await,
        Some(1.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_stop_leaves_at_once() {
    let fleet = FleetFile::quick("lone", 2);
    let plane = ControlPlane::start("embedded").await;
    let mut node = agent(&plane.url, "node-a", &fleet).await;
    eventually("it has registered", || async {
        (FleetList::ask(&plane.url).await?.instances.len() == 2).then_some(())
    })
    .await;
    node.stop().await;
    let fleet = FleetList::ask(&plane.url).await.expect("a list");
    assert!(fleet.instances.is_empty(), "deregistered before it ended: {fleet:?}");
}
