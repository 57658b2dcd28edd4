use super::*;
use equipoise_proto::v1::{EngineSample, Instance};
use equipoise_store::{Entry, Versioned};
use prost::Message as _;

const TICK: Duration = Duration::from_millis(100);

fn put_instance(routing: &mut Routing, name: &str, version: u64) {
    let instance = Instance {
        name: name.to_owned(),
        node: "n1".to_owned(),
        ..Instance::default()
    };
    let versioned = Versioned {
        value: instance.encode_to_vec().into(),
        version,
        lease: None,
    };
    routing.fleet.apply_put(&Entry {
        key: format!("instances/{name}"),
        versioned,
    });
}

fn report(router: &str, instance: &str, requests: u32, unix_ns: u64) -> LedgerReport {
    let part = InFlight {
        instance: instance.to_owned(),
        requests,
        pending_prefill_tokens: 10,
        pending_decode_tokens: 20,
        prefilling: 1,
        overdue_s: f64::from(requests) / 10.0,
    };
    LedgerReport {
        router: router.to_owned(),
        unix_ns,
        in_flight: vec![part],
        activity: Vec::new(),
        in_flight_only: false,
    }
}

fn received(updates: &mut mpsc::Receiver<RoutingUpdate>) -> Vec<RoutingUpdate> {
    std::iter::from_fn(|| updates.try_recv().ok()).collect()
}

fn delta(update: &RoutingUpdate) -> &Delta {
    match &update.update {
        Some(Update::Delta(delta)) => delta,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_then_deltas_then_heartbeats_with_rising_revisions() {
    let mut now = Instant::now();
    let mut routing = Routing::new(7);
    put_instance(&mut routing, "a", 1);
    let mut updates = routing.watch("r1".to_owned(), String::new(), now).expect("free");
    routing.tick(now);
    put_instance(&mut routing, "b", 2);
    routing.tick(now + TICK);
    let seen = received(&mut updates);
    assert!(matches!(&seen[0].update, Some(Update::Snapshot(snapshot)) if snapshot.instances.len() == 1));
    assert_eq!(delta(&seen[1]).upserted.len(), 1);
    assert!(seen[1].revision > seen[0].revision && seen.iter().all(|update| update.epoch == 7));
    for _ in 0..25 {
        now += TICK;
        routing.tick(now);
    }
    let beats = received(&mut updates);
    assert!((1..=3).contains(&beats.len()), "one each second: {beats:?}");
    assert!(
        beats
            .iter()
            .all(|beat| matches!(beat.update, Some(Update::Heartbeat(_))))
    );
}

#[test]
fn a_slow_watcher_gets_a_snapshot_instead_of_a_backlog() {
    let now = Instant::now();
    let mut routing = Routing::new(1);
    let mut updates = routing.watch("r1".to_owned(), String::new(), now).expect("free");
    let mut overflows = 0;
    for version in 1..=40 {
        put_instance(&mut routing, &format!("i{version}"), version);
        overflows += routing.tick(now).overflowed;
    }
    assert_eq!(overflows, 1, "counted once, not at every tick");
    assert_eq!(received(&mut updates).len(), WATCH_QUEUE);
    routing.tick(now);
    let seen = received(&mut updates);
    assert!(matches!(&seen[..], [RoutingUpdate { update: Some(Update::Snapshot(s)), .. }] if s.instances.len() == 40));
    drop(updates);
    assert_eq!(routing.tick(now).watchers, 0);
}

#[test]
fn peers_leave_out_the_watcher_itself_and_what_is_old() {
    let start = Instant::now();
    let mut routing = Routing::new(1);
    put_instance(&mut routing, "a", 1);
    let mut updates = routing.watch("r1".to_owned(), String::new(), start).expect("free");
    routing.tick(start);
    routing.take_ledger(report("r1", "a", 5, 100), start);
    routing.take_ledger(report("r2", "a", 3, 90), start);
    routing.take_ledger(report("r3", "a", 1, 80), start + TICK);
    routing.tick(start + TICK);
    let seen = received(&mut updates);
    let peers = &delta(&seen[1]).peers;
    assert_eq!(
        (
            peers.len(),
            peers[0].in_flight,
            peers[0].pending_decode_tokens,
            peers[0].oldest_unix_ns
        ),
        (1, 4, 40, 80)
    );
    assert_eq!((peers[0].routers, peers[0].prefilling, peers[0].overdue_s), (2, 2, 0.3));
    assert_eq!(routing.routers(start + TICK), ["r1", "r2", "r3"]);
    // Nothing new: nothing is sent again. Then the reports grow old, and that is said once.
    routing.tick(start + 2 * TICK);
    assert!(received(&mut updates).is_empty());
    let later = start + LEDGER_LIFE + 2 * TICK;
    assert_eq!(routing.tick(later).routers, 0);
    let seen = received(&mut updates);
    assert_eq!((seen.len(), delta(&seen[0]).peers[0].in_flight), (1, 0));
    routing.tick(later);
    assert!(received(&mut updates).is_empty());
}

#[test]
fn samples_are_coalesced() {
    let now = Instant::now();
    let mut routing = Routing::new(1);
    put_instance(&mut routing, "a", 1);
    let mut updates = routing.watch("r1".to_owned(), String::new(), now).expect("free");
    routing.tick(now);
    for unix_ns in 1..=5 {
        let sample = EngineSample {
            instance: "a".to_owned(),
            unix_ns,
            ..EngineSample::default()
        };
        routing.fleet.take_sample("n1", sample, now);
    }
    routing.tick(now);
    let seen = received(&mut updates);
    assert_eq!(
        (
            seen.len(),
            delta(&seen[1]).samples.len(),
            delta(&seen[1]).samples[0].unix_ns
        ),
        (2, 1, 5)
    );
}

/// A sample each second: `waiting` beside eight that run.
fn sampled(routing: &mut Routing, now: Instant, seconds: std::ops::Range<u64>, waiting: u32) {
    for second in seconds {
        let sample = EngineSample {
            instance: "a".to_owned(),
            unix_ns: second * 1_000_000_000,
            healthy: true,
            running: 8,
            waiting,
            ..EngineSample::default()
        };
        assert!(routing.fleet.take_sample("n1", sample, now));
    }
}

#[test]
fn a_queue_has_its_price_where_several_routers_are_and_it_is_gone_with_the_queue() {
    let now = Instant::now();
    let mut routing = Routing::new(1);
    put_instance(&mut routing, "a", 1);
    let mut updates = routing.watch("r1".to_owned(), String::new(), now).expect("free");
    sampled(&mut routing, now, 1..4, 8);
    routing.tick(now);
    routing.tick(now);
    let alone = received(&mut updates);
    assert!(
        alone
            .iter()
            .all(|update| !matches!(&update.update, Some(Update::Delta(delta)) if !delta.peers.is_empty())),
        "a router that is alone is not told"
    );
    routing.take_ledger(report("r2", "b", 3, 90), now);
    routing.tick(now);
    let seen = received(&mut updates);
    let price = |update: &RoutingUpdate| {
        let of_a = delta(update).peers.iter().find(|load| load.instance == "a").cloned();
        of_a.map(|load| (load.price, load.in_flight, load.routers, load.oldest_unix_ns))
    };
    let (dear, in_flight, routers, oldest) = price(&seen[0]).expect("a price although nothing is in flight");
    assert!(dear > 0.5 && (in_flight, routers, oldest) == (0, 1, 90), "{dear}");
    sampled(&mut routing, now, 4..60, 0);
    routing.tick(now);
    assert_eq!(price(&received(&mut updates)[0]).map(|(price, ..)| price), Some(0.0));
}
