use std::collections::BTreeMap;
use std::time::Duration;

use equipoise_estimate::{Prediction, PriceOfTokens};

use super::*;
use crate::{EngineSample, ModelProfile, PeerLoad};

fn spec(name: &str, model: &str) -> InstanceSpec {
    InstanceSpec {
        name: name.to_owned(),
        pool: "pool".to_owned(),
        model: ModelProfile::named(model),
        gpu: None,
        tensor_parallel: 1,
        endpoint: None,
        limits: LimitsSpec::default(),
        labels: BTreeMap::new(),
        gpus: Vec::new(),
        emulated: false,
        measured: None,
        serving: None,
    }
}

fn sample(running: u32, waiting: u32, age_s: f64) -> EngineSample {
    EngineSample {
        healthy: true,
        running,
        waiting,
        kv_usage: 0.0,
        power: None,
        age_s,
    }
}

fn prediction(fleet: &Fleet, id: InstanceId) -> Prediction {
    let instance = fleet.instance(id).expect("declared");
    let model = fleet.model(instance.model).expect("declared");
    let load = fleet.load(Timestamp::ZERO, instance);
    instance.estimator.predict(
        Timestamp::ZERO,
        100,
        model.length.predict(None),
        model.quality.predict(Timestamp::ZERO),
        PriceOfTokens::default(),
        &load,
    )
}

fn fleet_of_two() -> Fleet {
    let mut fleet = Fleet::new(5.0);
    for name in ["a", "b"] {
        fleet
            .apply(Timestamp::ZERO, FleetDelta::Upsert(spec(name, "m")))
            .expect("applies");
    }
    fleet
}

#[test]
fn an_instance_that_comes_back_keeps_its_id_and_is_trusted_again() {
    let mut fleet = fleet_of_two();
    let id = fleet.id_of("a").expect("declared");
    let now = Timestamp::from_secs_f64(1.0);
    fleet
        .apply(
            now,
            FleetDelta::Sample {
                name: "a".into(),
                sample: EngineSample {
                    healthy: false,
                    ..sample(0, 0, 0.0)
                },
            },
        )
        .expect("applies");
    assert!(!fleet.instance(id).expect("there").is_available(now));
    fleet
        .apply(now, FleetDelta::Remove { name: "a".into() })
        .expect("applies");
    assert!(!fleet.instance(id).expect("there").present);
    fleet.apply(now, FleetDelta::Upsert(spec("a", "m"))).expect("applies");
    assert_eq!(fleet.id_of("a"), Some(id));
    assert!(fleet.instance(id).expect("there").is_available(now));
}

#[test]
fn an_unknown_name_is_an_error_and_changes_nothing() {
    let mut fleet = fleet_of_two();
    let error = fleet.apply(Timestamp::ZERO, FleetDelta::Remove { name: "z".into() });
    assert_eq!(error, Err(FleetError::UnknownInstance("z".into())));
}

#[test]
fn telemetry_shows_what_others_sent_and_own_requests_are_not_counted_twice() {
    let mut fleet = fleet_of_two();
    let id = fleet.id_of("a").expect("declared");
    let prediction = prediction(&fleet, id);
    let now = Timestamp::from_secs_f64(10.0);
    for request in 0..4 {
        assert!(fleet.book(now, RequestId(request), id, 100, false, prediction));
    }
    // Sampled before the four were sent: none of them is in it, one stranger is.
    let later = now + Duration::from_millis(50);
    fleet
        .apply(
            later,
            FleetDelta::Sample {
                name: "a".into(),
                sample: sample(2, 0, 0.1),
            },
        )
        .expect("applies");
    assert_eq!(fleet.load(later, fleet.instance(id).expect("there")).in_flight, 5);
    // Sampled after: all four, and no stranger.
    let later = now + Duration::from_millis(300);
    fleet
        .apply(
            later,
            FleetDelta::Sample {
                name: "a".into(),
                sample: sample(4, 0, 0.1),
            },
        )
        .expect("applies");
    assert_eq!(fleet.load(later, fleet.instance(id).expect("there")).in_flight, 4);
}

#[test]
fn old_reports_are_not_believed() {
    let mut fleet = fleet_of_two();
    let id = fleet.id_of("b").expect("declared");
    let load = PeerLoad {
        in_flight: 7,
        pending_prefill_tokens: 0,
        pending_decode_tokens: 70,
        ..PeerLoad::default()
    };
    let now = Timestamp::from_secs_f64(1.0);
    fleet
        .apply(now, FleetDelta::Peers { name: "b".into(), load })
        .expect("applies");
    let in_flight = |at: Timestamp| fleet.load(at, fleet.instance(id).expect("there")).in_flight;
    assert_eq!(in_flight(now), 7);
    assert_eq!(in_flight(now + Duration::from_secs(4)), 0);
}

#[test]
fn a_declaration_that_cannot_work_is_kept_with_its_reason() {
    let mut fleet = Fleet::new(5.0);
    let mut wrong = spec("a", "m");
    wrong.gpu = Some("Abacus".into());
    wrong.model.architecture = Some("Llama-3.1-8B".into());
    fleet
        .apply(Timestamp::ZERO, FleetDelta::Upsert(wrong))
        .expect("applies");
    let instance = fleet.iter().next().expect("declared");
    assert!(
        instance
            .physics_error
            .as_deref()
            .is_some_and(|error| error.contains("Abacus")),
        "{instance:?}"
    );
}

proptest::proptest! {
    // Deltas of one report come instance by instance: in which order changes nothing.
    #[test]
    fn the_order_of_the_peers_deltas_does_not_matter(
        reports in proptest::collection::vec((0_u32..40, 0_u32..9, 0.0..4.0_f64, 0.0..1.0_f64), 1..8),
        turn in 0_usize..8,
    ) {
        let fleet_of = |backwards: bool, turn: usize| {
            let mut fleet = Fleet::new(5.0);
            for index in 0..reports.len() {
                fleet.apply(Timestamp::ZERO, FleetDelta::Upsert(spec(&index.to_string(), "m"))).expect("applies");
            }
            let now = Timestamp::from_secs_f64(10.0);
            let mut order: Vec<usize> = (0..reports.len()).collect();
            if backwards {
                order.reverse();
                let turn = turn % order.len();
                order.rotate_left(turn);
            }
            for index in order {
                let (in_flight, routers, price, age_s) = reports[index];
                let load = PeerLoad { in_flight, routers, price, age_s, ..PeerLoad::default() };
                fleet.apply(now, FleetDelta::Peers { name: index.to_string(), load }).expect("applies");
            }
            fleet.advance(now);
            let view = |instance: &Instance| (fleet.load(now, instance), fleet.peers(now, instance));
            fleet.iter().map(view).collect::<Vec<_>>()
        };
        proptest::prop_assert_eq!(fleet_of(false, 0), fleet_of(true, turn));
    }
}

#[test]
fn a_router_that_is_alone_has_no_view_of_peers() {
    let mut fleet = fleet_of_two();
    let now = Timestamp::from_secs_f64(1.0);
    let view = |fleet: &mut Fleet, at: Timestamp| {
        fleet.advance(at);
        fleet.peers(at, fleet.iter().next().expect("there"))
    };
    assert_eq!(view(&mut fleet, now), PeerView::default());
    let load = PeerLoad {
        in_flight: 2,
        price: 0.5,
        ..PeerLoad::default()
    };
    // A control plane that does not say how many routers there are.
    fleet
        .apply(now, FleetDelta::Peers { name: "a".into(), load })
        .expect("applies");
    let seen = view(&mut fleet, now);
    assert_eq!((seen.routers, seen.staying), (1, 2));
    assert!((seen.price - 0.5).abs() < f64::EPSILON);
    assert_eq!(view(&mut fleet, now + Duration::from_secs(4)), PeerView::default());
}
