//! What routers hear: one another's load, heartbeats, the end.

use crate::harness::{Clients, instance, sample, soon, start, unix_ns};
use equipoise_proto::v1::routing_update::Update;
use equipoise_proto::v1::{InFlight, LedgerReport, ListInstancesRequest, PeerLoad};
use std::collections::BTreeMap;

fn ledger(router: &str, requests: u32) -> LedgerReport {
    let part = InFlight {
        instance: "a".to_owned(),
        requests,
        pending_prefill_tokens: 100,
        pending_decode_tokens: 200,
        ..InFlight::default()
    };
    LedgerReport {
        router: router.to_owned(),
        unix_ns: unix_ns(),
        in_flight: vec![part],
        activity: Vec::new(),
        in_flight_only: false,
    }
}

#[tokio::test]
async fn routers_hear_of_one_another_and_not_of_themselves() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    clients
        .register("n1", vec![instance("a", "p")], 30_000)
        .await
        .expect("registers");
    let mut watched = clients.watch("r1").await;
    let (mine, theirs) = (clients.publish(), clients.publish());
    mine.send(ledger("r1", 50)).await.expect("sends");
    theirs.send(ledger("r2", 7)).await.expect("sends");
    let mut peers: BTreeMap<String, PeerLoad> = BTreeMap::new();
    soon(async {
        loop {
            if let Some(Update::Delta(delta)) = watched.next().await {
                peers.extend(delta.peers.into_iter().map(|load| (load.instance.clone(), load)));
            }
            if peers
                .get("a")
                .is_some_and(|load| load.in_flight == 7 && load.pending_decode_tokens == 200)
            {
                return;
            }
        }
    })
    .await;
    let listed = clients
        .admin
        .list_instances(ListInstancesRequest::default())
        .await
        .expect("lists")
        .into_inner();
    assert_eq!(listed.routers, ["r1", "r2"]);
    // The other goes silent: its load is taken back.
    soon(async {
        loop {
            if let Some(Update::Delta(delta)) = watched.next().await
                && delta
                    .peers
                    .iter()
                    .any(|load| load.instance == "a" && load.in_flight == 0)
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats_and_shutdown_ends_the_streams() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    let lease = clients
        .register("n1", vec![instance("a", "p")], 30_000)
        .await
        .expect("registers");
    let mut telemetry = clients.telemetry(lease.lease_id).await;
    telemetry.send_samples(vec![sample("a")]).await.expect("takes");
    let reports = clients.publish();
    reports.send(ledger("r1", 1)).await.expect("sends");
    let mut watched = clients.watch("r1").await;
    soon(async { while !matches!(watched.next().await, Some(Update::Heartbeat(_))) {} }).await;
    soon(plane.shutdown()).await.expect("drains");
    soon(async { while watched.next().await.is_some() {} }).await;
    telemetry.send_samples(vec![sample("a")]).await.expect_err("ended");
    soon(reports.closed()).await;
}

#[tokio::test]
async fn a_second_process_of_one_name_waits_until_the_first_is_gone() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    let first = clients.watch_as("x", "r1").await.expect("watches");
    let error = clients.watch_as("y", "r1").await.expect_err("taken");
    assert_eq!(error.code(), tonic::Code::AlreadyExists);
    assert!(
        error.message().contains("\"r1\"") && error.message().contains("--name"),
        "{error}"
    );
    let again = clients.watch_as("x", "r1").await.expect("it is the same process");
    clients.watch_as("y", "r2").await.expect("another name is free");
    drop((first, again));
    soon(async {
        while clients.watch_as("y", "r1").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_router_without_a_name_is_refused() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    let error = clients
        .routing
        .watch(equipoise_proto::v1::WatchRequest::default())
        .await
        .expect_err("no name");
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
}
