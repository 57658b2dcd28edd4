//! Registrations, leases and wishes.

use crate::harness::{Clients, config, instance, sample, soon, start, start_on};
use equipoise_control_plane::ControlPlane;
use equipoise_proto::v1::routing_update::Update;
use equipoise_proto::v1::{
    DeregisterRequest, DescribeInstanceRequest, GetConfigRequest, ListInstancesRequest, SetDrainingRequest,
    SetWeightRequest,
};
use equipoise_store::open;
use tonic::Code;

#[tokio::test]
async fn an_instance_lives_as_long_as_its_lease() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    let mut router = clients.watch("r1").await;
    assert!(matches!(router.next().await, Some(Update::Snapshot(snapshot)) if snapshot.instances.is_empty()));

    let lease = clients
        .register("n1", vec![instance("a", "p"), instance("b", "p")], 1)
        .await
        .expect("registers");
    assert_eq!(
        (lease.lease_ttl_ms, lease.telemetry_interval_ms),
        (1000, 500),
        "clamped to a second"
    );
    router.until(|seen| seen.instances.len() == 2).await;
    assert_eq!(router.instances["a"].instance.as_ref().expect("set").node, "n1");

    let mut telemetry = clients.telemetry(lease.lease_id).await;
    // Twice the lease's life: the batches keep it.
    for _ in 0..20 {
        telemetry
            .send_samples(vec![sample("a"), sample("not-mine")])
            .await
            .expect("the lease is alive");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    router.until(|seen| seen.instances["a"].sample.is_some()).await;
    assert_eq!(router.instances["a"].sample.as_ref().expect("sampled").running, 3);
    assert_eq!(router.instances.len(), 2);

    // Silence: the lease ends.
    router.until(|seen| seen.instances.is_empty()).await;
    let gone = telemetry
        .send_samples(vec![sample("a")])
        .await
        .expect_err("the lease is gone");
    assert_eq!(gone.code(), Code::NotFound);
    plane.shutdown().await.expect("drains");
}

#[tokio::test]
async fn registering_again_replaces_and_deregistering_removes() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    let mut router = clients.watch("r1").await;
    let first = clients
        .register("n1", vec![instance("a", "p"), instance("b", "p")], 30_000)
        .await
        .expect("registers");
    router.until(|seen| seen.instances.len() == 2).await;
    let second = clients
        .register("n1", vec![instance("b", "q"), instance("c", "q")], 30_000)
        .await
        .expect("again");
    assert_ne!(first.lease_id, second.lease_id);
    router.until(|seen| seen.instances.keys().eq(["b", "c"])).await;
    let stale = clients
        .telemetry(first.lease_id)
        .await
        .send_samples(vec![sample("b")])
        .await
        .expect_err("replaced");
    assert_eq!(stale.code(), Code::NotFound);
    clients
        .agents
        .deregister(DeregisterRequest {
            lease_id: second.lease_id,
        })
        .await
        .expect("deregisters");
    router.until(|seen| seen.instances.is_empty()).await;
}

#[tokio::test]
async fn two_nodes_cannot_claim_one_name() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    clients
        .register("n1", vec![instance("a", "p")], 30_000)
        .await
        .expect("registers");
    let error = clients
        .register("n2", vec![instance("b", "p"), instance("a", "p")], 30_000)
        .await
        .expect_err("taken");
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(
        error.message().contains("\"n1\"") && error.message().contains("\"a\""),
        "{error}"
    );
    let listed = clients
        .admin
        .list_instances(ListInstancesRequest::default())
        .await
        .expect("lists")
        .into_inner();
    assert_eq!(listed.instances.len(), 1, "half a registration is none");
    let bad = clients
        .register("n2", vec![instance("A", "p")], 30_000)
        .await
        .expect_err("a bad name");
    assert_eq!(bad.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_node_belongs_to_the_agent_whose_lease_is_alive() {
    let store = open("embedded").await.expect("opens");
    let (one, two) = (start_on(store.clone()).await, start_on(store).await);
    let (mut of_one, mut of_two) = (Clients::of(&one).await, Clients::of(&two).await);
    let first = of_one
        .register_as("x", "node-0", vec![instance("a", "p")], 30_000)
        .await
        .expect("registers");
    // A second agent of that name, over either control plane, with the same instances or others.
    for clients in [&mut of_one, &mut of_two] {
        for name in ["a", "b"] {
            let error = clients
                .register_as("y", "node-0", vec![instance(name, "p")], 30_000)
                .await
                .expect_err("held");
            assert_eq!(error.code(), Code::AlreadyExists);
            assert!(
                error.message().contains("\"node-0\"") && error.message().contains("--node"),
                "{error}"
            );
        }
    }
    let mut telemetry = of_one.telemetry(first.lease_id).await;
    telemetry
        .send_samples(vec![sample("a")])
        .await
        .expect("the first keeps its lease");
    // The first itself may come again, with a life so short that it soon is as if it had been killed.
    let again = of_two
        .register_as("x", "node-0", vec![instance("a", "p")], 1)
        .await
        .expect("it is the same agent");
    assert_ne!(again.lease_id, first.lease_id);
    soon(async {
        while of_one
            .register_as("y", "node-0", vec![instance("a", "p")], 30_000)
            .await
            .is_err()
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    // Without an id, as agents of old: let in.
    let nameless = of_one
        .register("node-0", vec![instance("a", "p")], 30_000)
        .await
        .expect("is let in");
    of_one
        .agents
        .deregister(DeregisterRequest {
            lease_id: nameless.lease_id,
        })
        .await
        .expect("deregisters");
    of_two
        .register_as("z", "node-0", vec![instance("a", "p")], 30_000)
        .await
        .expect("a name that was given back is free");
}

#[tokio::test]
async fn a_restart_keeps_instances_leases_and_wishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("store.redb").display());
    let store = open(&url).await.expect("opens");
    let plane = start_on(store.clone()).await;
    let mut clients = Clients::of(&plane).await;
    let lease = clients
        .register("n1", vec![instance("a", "p"), instance("b", "p")], 10_000)
        .await
        .expect("registers");
    let name = || "a".to_owned();
    clients
        .admin
        .set_draining(SetDrainingRequest {
            name: name(),
            draining: true,
        })
        .await
        .expect("drains");
    let state = clients
        .admin
        .set_weight(SetWeightRequest {
            name: name(),
            weight: 0.25,
        })
        .await
        .expect("weighs");
    assert!(
        state.into_inner().admin.expect("set").draining,
        "one wish does not undo the other"
    );
    let mut router = clients.watch("r1").await;
    router.until(|seen| seen.instances.len() == 2).await;
    let before = router.epoch;
    plane.shutdown().await.expect("drains");
    while router.next().await.is_some() {}
    store.close().await.expect("closes");

    let plane = start_on(open(&url).await.expect("opens again")).await;
    let mut clients = Clients::of(&plane).await;
    let mut router = clients.watch("r1").await;
    assert!(matches!(router.next().await, Some(Update::Snapshot(snapshot)) if snapshot.instances.len() == 2));
    assert_ne!(router.epoch, before);
    let admin = router.instances["a"].admin.expect("set");
    assert_eq!((admin.draining, admin.weight), (true, Some(0.25)));
    // The agent goes on with the lease it has.
    clients
        .telemetry(lease.lease_id)
        .await
        .send_samples(vec![sample("b")])
        .await
        .expect("the lease is alive");
    router.until(|seen| seen.instances["b"].sample.is_some()).await;
    // The wish outlives the registration, too.
    clients
        .agents
        .deregister(DeregisterRequest {
            lease_id: lease.lease_id,
        })
        .await
        .expect("deregisters");
    router.until(|seen| seen.instances.is_empty()).await;
    clients
        .register("n2", vec![instance("a", "p")], 10_000)
        .await
        .expect("registers");
    router
        .until(|seen| {
            seen.instances
                .get("a")
                .is_some_and(|state| state.admin.expect("set").draining)
        })
        .await;
}

#[tokio::test]
async fn control_planes_over_one_store_agree() {
    let store = open("embedded").await.expect("opens");
    let (one, two) = (start_on(store.clone()).await, start_on(store).await);
    let (mut of_one, mut of_two) = (Clients::of(&one).await, Clients::of(&two).await);
    let (mut seen_by_one, mut seen_by_two) = (of_one.watch("r1").await, of_two.watch("r2").await);
    let lease = of_one
        .register("n1", vec![instance("a", "p")], 30_000)
        .await
        .expect("registers");
    seen_by_two.until(|seen| seen.instances.contains_key("a")).await;
    let taken = of_two
        .register("n2", vec![instance("a", "p")], 30_000)
        .await
        .expect_err("taken");
    assert_eq!(taken.code(), Code::AlreadyExists);
    of_two
        .admin
        .set_draining(SetDrainingRequest {
            name: "a".to_owned(),
            draining: true,
        })
        .await
        .expect("drains");
    seen_by_one
        .until(|seen| {
            seen.instances
                .get("a")
                .is_some_and(|state| state.admin.expect("set").draining)
        })
        .await;
    // The agent moves over with its lease.
    of_two
        .telemetry(lease.lease_id)
        .await
        .send_samples(vec![sample("a")])
        .await
        .expect("the lease is known");
    of_two
        .agents
        .deregister(DeregisterRequest {
            lease_id: lease.lease_id,
        })
        .await
        .expect("deregisters");
    seen_by_one.until(|seen| seen.instances.is_empty()).await;
}

#[tokio::test]
async fn operators_get_clear_answers() {
    let plane = start().await;
    let mut clients = Clients::of(&plane).await;
    clients
        .register(
            "n1",
            vec![instance("pool-a/0", "pool-a"), instance("pool-b/0", "pool-b")],
            30_000,
        )
        .await
        .expect("registers");
    let wrong = DescribeInstanceRequest {
        name: "pool-a/O".to_owned(),
    };
    let error = clients.admin.describe_instance(wrong).await.expect_err("no such name");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("did you mean pool-a/0"), "{error}");
    for weight in [f64::NAN, f64::INFINITY, -1.0] {
        let wish = SetWeightRequest {
            name: "pool-a/0".to_owned(),
            weight,
        };
        assert_eq!(
            clients.admin.set_weight(wish).await.expect_err("no weight").code(),
            Code::InvalidArgument
        );
    }
    let only = ListInstancesRequest {
        pool: "pool-b".to_owned(),
    };
    let listed = clients.admin.list_instances(only).await.expect("lists").into_inner();
    assert_eq!(listed.instances.len(), 1);
    let config = clients
        .admin
        .get_config(GetConfigRequest {})
        .await
        .expect("tells")
        .into_inner();
    assert_eq!((config.store.as_str(), config.telemetry_interval_ms), ("embedded", 500));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let plane = start().await;
    let store = open("embedded").await.expect("opens");
    let taken = equipoise_control_plane::ControlPlaneConfig {
        grpc_addr: plane.grpc_addr(),
        ..config()
    };
    let error = ControlPlane::start(taken, store)
        .await
        .expect_err("is taken")
        .to_string();
    assert!(
        error.contains(&plane.grpc_addr().to_string()) && error.contains("another address"),
        "{error}"
    );
    soon(plane.shutdown()).await.expect("drains");
}
