use super::*;
use equipoise_store::Versioned;

fn entry(key: &str, message: &impl prost::Message, version: Revision) -> Entry {
    let value = message.encode_to_vec().into();
    Entry {
        key: key.to_owned(),
        versioned: Versioned {
            value,
            version,
            lease: None,
        },
    }
}

fn instance(name: &str, node: &str) -> Instance {
    Instance {
        name: name.to_owned(),
        node: node.to_owned(),
        ..Instance::default()
    }
}

fn fleet() -> Fleet {
    let mut fleet = Fleet::default();
    fleet.apply_put(&entry("instances/a", &instance("a", "n1"), 1));
    fleet.apply_put(&entry("instances/b", &instance("b", "n2"), 2));
    fleet.drain_changes();
    fleet
}

fn sample(instance: &str, unix_ns: u64) -> EngineSample {
    EngineSample {
        instance: instance.to_owned(),
        unix_ns,
        healthy: true,
        ..EngineSample::default()
    }
}

#[test]
fn late_echoes_undo_nothing() {
    let mut fleet = fleet();
    fleet.apply_put(&entry(
        "admin/a",
        &InstanceAdmin {
            draining: true,
            weight: None,
        },
        9,
    ));
    fleet.apply_put(&entry("admin/a", &InstanceAdmin::default(), 5));
    fleet.apply_delete("admin/a", 6);
    fleet.apply_listing(
        WISHES,
        &Listing {
            entries: Vec::new(),
            revision: 7,
        },
    );
    assert!(fleet.state("a").expect("known").admin.expect("set").draining);
    fleet.apply_listing(
        WISHES,
        &Listing {
            entries: Vec::new(),
            revision: 9,
        },
    );
    assert!(!fleet.state("a").expect("known").admin.expect("set").draining);
}

#[test]
fn changes_come_once_and_samples_alone_are_light() {
    let mut fleet = fleet();
    let now = Instant::now();
    assert!(fleet.take_sample("n1", sample("a", 10), now));
    assert!(
        !fleet.take_sample("n1", sample("b", 10), now),
        "another node's instance"
    );
    assert!(!fleet.take_sample(
        "n1",
        EngineSample {
            kv_usage: f64::NAN,
            ..sample("a", 11)
        },
        now
    ));
    assert!(
        fleet.take_sample("n1", sample("a", 9), now),
        "older: taken, but not kept"
    );
    let changes = fleet.drain_changes().expect("sampled");
    assert_eq!((changes.samples.len(), changes.samples[0].unix_ns), (1, 10));
    assert!(changes.upserted.is_empty());
    assert_eq!(fleet.drain_changes(), None);
    // An echo with the same content changes nothing.
    fleet.apply_put(&entry("instances/a", &instance("a", "n1"), 8));
    assert_eq!(fleet.drain_changes(), None);
    fleet.apply_delete("instances/a", 20);
    fleet.apply_delete("instances/unknown", 21);
    assert_eq!(fleet.drain_changes().expect("removed").removed, ["a"]);
    assert_eq!(fleet.counts(now), (1, 0));
}

#[test]
fn the_meter_gives_watts_and_joules_per_token() {
    let mut fleet = fleet();
    let start = Instant::now();
    for second in 0..5_u64 {
        let now = start + Duration::from_secs(second);
        let mut engine = sample("a", second);
        engine.generation_tokens_total = 100 * second;
        fleet.take_sample("n1", engine, now);
        let (start_unix_ns, end_unix_ns) = (second * 1_000_000_000, (second + 1) * 1_000_000_000);
        let energy = EnergySample {
            instance: "a".to_owned(),
            start_unix_ns,
            end_unix_ns,
            measured_mj: 250_000,
            ..EnergySample::default()
        };
        fleet.take_energy(&energy, now);
    }
    let draw = fleet.draw("a", start + Duration::from_secs(5)).expect("metered");
    assert!((draw.watts - 250.0).abs() < 1e-9, "{draw:?}");
    assert!((draw.joules_per_token.expect("tokens") - 2.5).abs() < 1e-9, "{draw:?}");
    assert_eq!(fleet.draw("a", start + Duration::from_secs(60)), None, "too long ago");
    assert_eq!(fleet.draw("b", start), None);
}
