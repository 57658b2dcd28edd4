use equipoise_config::{FleetConfig, FleetFile};
use equipoise_trace::{EventLogReader, WorkloadGenerator, WorkloadRecord};

use super::*;
use crate::{
    PolicyResult, SimulationError, SimulationOptions, render_table, replay, simulate, simulate_recorded, to_json,
};

/// Six equal boxes of 50 ms and four slots: the state is older than what it tells of.
fn boxes() -> FleetConfig {
    let text = "
        [[model]]
        name = \"m\"
        [[pool]]
        name = \"p\"
        model = \"m\"
        service_ms = 50
        count = 6
        limits = { max_num_seqs = 4 }
    ";
    FleetFile::parse(text, "test").expect("a good fleet")
}

/// 400 a second: 83 % of what the boxes can do.
fn workload(requests: usize) -> Vec<WorkloadRecord> {
    let generator = WorkloadGenerator {
        requests,
        rate_per_s: 400.0,
        ..WorkloadGenerator::default()
    };
    generator.generate().expect("a workload").records
}

fn options(policy: &str, count: u32) -> SimulationOptions {
    SimulationOptions {
        policies: vec![policy.to_owned()],
        routers: RouterOptions {
            count,
            ..RouterOptions::default()
        },
        ..SimulationOptions::default()
    }
}

fn run(policy: &str, count: u32, requests: usize) -> PolicyResult {
    let results = simulate(&boxes(), &workload(requests), &options(policy, count));
    results.expect("runs").remove(0)
}

#[test]
fn several_routers_answer_everything_and_the_same_inputs_give_the_same_bytes() {
    for policy in ["equipoise", "least-requests", "round-robin"] {
        let (first, second) = (run(policy, 5, 2000), run(policy, 5, 2000));
        assert_eq!(to_json(std::slice::from_ref(&first)), to_json(&[second]), "{policy}");
        assert_eq!(
            (first.finished, first.refused, first.unfinished),
            (2000, 0, 0),
            "{policy}"
        );
        assert!(first.energy.is_conserved());
        let table = render_table(&[first]);
        assert!(table.contains("5 routers") && table.contains("100 ms old"), "{table}");
    }
}

#[test]
fn one_router_is_what_it_was() {
    let alone = run("equipoise", 1, 500);
    assert!(
        !to_json(std::slice::from_ref(&alone)).contains("routers"),
        "nothing new is said of it"
    );
    // It draws nothing at random: another seed changes nothing.
    let other = SimulationOptions {
        seed: 77,
        ..options("equipoise", 1)
    };
    let other = simulate(&boxes(), &workload(500), &other).expect("runs").remove(0);
    assert_eq!((alone.e2e_s, alone.instances), (other.e2e_s, other.instances));
}

#[test]
fn routers_that_know_little_of_one_another_do_not_herd() {
    let p99 = |policy: &str, count: u32| run(policy, count, 6000).e2e_s.expect("some").p99;
    let (alone, two, eight) = (p99("equipoise", 1), p99("equipoise", 2), p99("equipoise", 8));
    // When routers took old reports for the present, this was seconds.
    assert!(two < 1.25 * alone && eight < 1.25 * alone, "{alone} {two} {eight}");
    // Nor do simple rules, since what they are shown is the same.
    let (alone, eight) = (p99("least-requests", 1), p99("least-requests", 8));
    assert!(eight < 1.5 * alone, "{alone} {eight}");
}

#[test]
fn a_router_that_comes_last_gets_its_share_of_a_full_fleet() {
    // Twice what the fleet can do, for four seconds: everybody waits, and nobody waits for ever.
    let mut records = workload(4000);
    for record in &mut records {
        record.arrival = Timestamp(record.arrival.0 * 5 / 12);
    }
    let mut options = options("equipoise", 8);
    let fleet = {
        let mut fleet = boxes();
        fleet.scheduler.queue_timeout_s = 3600.0;
        fleet.scheduler.queue_limit = 10_000;
        fleet
    };
    options.seed = 5;
    let result = simulate(&fleet, &records, &options).expect("runs").remove(0);
    assert_eq!(result.finished, 4000);
    // 8.33 s of work and the overhead of what is not known.
    assert!(result.duration_s < 9.5, "{}", result.duration_s);
    assert!(result.e2e_s.expect("some").max < 7.5, "{:?}", result.e2e_s);
}

#[test]
fn the_first_routers_log_replays() {
    let mut log = Vec::new();
    let records = workload(600);
    simulate_recorded(&boxes(), &records, &options("equipoise", 3), &mut log, "test").expect("runs");
    let report = replay(&mut EventLogReader::new(log.as_slice(), "log").expect("a log")).expect("reads");
    assert!(report.is_identical(), "{report:?}");
    let text = String::from_utf8(log).expect("text");
    assert!(text.contains("Peers") && text.contains("\"routers\":2"));
}

#[test]
fn nonsense_is_refused() {
    let check = |change: fn(&mut RouterOptions)| {
        let mut options = options("equipoise", 8);
        change(&mut options.routers);
        simulate(&boxes(), &workload(1), &options).map(|_| ())
    };
    assert!(check(|_| {}).is_ok());
    for count in [0, 1000] {
        let mut options = options("equipoise", 8);
        options.routers.count = count;
        let error = simulate(&boxes(), &workload(1), &options).expect_err("nonsense");
        assert!(matches!(error, SimulationError::Routers { .. }), "{error}");
    }
    let error = check(|routers| routers.state_interval_s = 0.0).expect_err("nonsense");
    assert!(error.to_string().contains("state_interval_s is 0"), "{error}");
    assert!(check(|routers| routers.state_age_s = f64::NAN).is_err());
    assert!(check(|routers| routers.state_age_s = -1.0).is_err());
}
