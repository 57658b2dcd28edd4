use std::collections::BTreeSet;

use crate::scenario::tests::scenario;
use crate::{PolicyResult, RequestEnding, RequestRecord};

/// Five instances, some of them busy: 300 requests in a minute.
fn run(more: &str) -> PolicyResult {
    run_with(more, "equipoise", "arrivals = \"poisson\"\nrate_per_s = 5", |_| {})
}

fn run_with(more: &str, policy: &str, arrivals: &str, mut see: impl FnMut(&RequestRecord<'_>)) -> PolicyResult {
    let scenario = scenario(&format!(
        "policies = [\"{policy}\"]\n[workload]\n{arrivals}\nrequests = 300\n{more}"
    ));
    let cell = scenario.cells(false).remove(0);
    let (result, _) = scenario.result(&cell, &mut see).expect("runs");
    assert_eq!(result.unfinished, 0, "{:?}", result.refusals);
    assert_eq!(result.finished + result.refused, result.offered);
    assert!(result.energy.is_conserved(), "{:?}", result.energy);
    result
}

fn refused(result: &PolicyResult, reason: &str) -> u64 {
    result.refusals.get(reason).copied().unwrap_or(0)
}

#[test]
fn who_was_not_answered_yet_goes_elsewhere_and_who_was_sees_it_break() {
    let calm = run("");
    assert_eq!(calm.refused, 0, "{:?}", calm.refusals);
    let mut after = BTreeSet::new();
    let fault = "[[fault]]\nkind = \"crash\"\npool = \"a\"\nat_s = 20\n";
    let result = run_with(
        fault,
        "least-requests",
        "arrivals = \"poisson\"\nrate_per_s = 5",
        |record| {
            if record.arrival.as_secs_f64() > 21.0 {
                after.extend(record.instance.map(str::to_owned));
            }
        },
    );
    assert!(refused(&result, "broken_off") > 0, "{:?}", result.refusals);
    assert_eq!(
        result.refused,
        refused(&result, "broken_off"),
        "everybody else is served"
    );
    assert!(
        result.energy.unattributed_mj.0 > 0,
        "the steps that they died in are nobody's"
    );
    assert!(after.iter().all(|instance| instance.starts_with("b-")), "{after:?}");
}

#[test]
fn whoever_comes_back_is_used_again() {
    let mut late = BTreeSet::new();
    let fault = "[[fault]]\nkind = \"crash\"\npool = \"a\"\nat_s = 20\nuntil_s = 25\n";
    run_with(
        fault,
        "least-requests",
        "arrivals = \"poisson\"\nrate_per_s = 5",
        |record| {
            if record.arrival.as_secs_f64() > 30.0 {
                late.extend(record.instance.map(str::to_owned));
            }
        },
    );
    assert!(late.iter().any(|instance| instance.starts_with("a-")), "{late:?}");
}

#[test]
fn a_place_is_well_again_when_its_last_fault_is_over() {
    let mut between = BTreeSet::new();
    let faults = "[[fault]]\nkind = \"crash\"\npool = \"a\"\nat_s = 20\nuntil_s = 25\n\
                  [[fault]]\nkind = \"crash\"\npool = \"a\"\nat_s = 22\nuntil_s = 50\n";
    run_with(
        faults,
        "least-requests",
        "arrivals = \"poisson\"\nrate_per_s = 5",
        |record| {
            if (26.0..45.0).contains(&record.arrival.as_secs_f64()) {
                between.extend(record.instance.map(str::to_owned));
            }
        },
    );
    assert!(
        !between.is_empty() && between.iter().all(|instance| instance.starts_with("b-")),
        "{between:?}"
    );
}

#[test]
fn a_fleet_that_is_gone_refuses_and_does_not_hang() {
    let result = run(
        "[[fault]]\nkind = \"crash\"\npool = \"a\"\nat_s = 20\n[[fault]]\nkind = \"crash\"\npool = \"b\"\nat_s = 20\n",
    );
    assert!(result.refused > 100, "{:?}", result.refusals);
}

#[test]
fn slow_engines_answer_later() {
    let e2e = |more: &str| run(more).e2e_s.expect("some").mean;
    let slow = e2e("[[fault]]\nkind = \"slow\"\npool = \"a\"\nfactor = 3\nat_s = 0\n");
    assert!(slow > 1.2 * e2e(""), "{slow}");
}

#[test]
fn a_lone_router_takes_its_clients_with_it_and_several_take_over() {
    let fault = "[[fault]]\nkind = \"router-away\"\nat_s = 20\nuntil_s = 30\n";
    let alone = run(fault);
    let (away, lost) = (refused(&alone, "router_away"), refused(&alone, "router_lost"));
    assert!((30..70).contains(&away) && lost > 0, "{:?}", alone.refusals);
    assert_eq!(away + lost, alone.refused, "those who came later are served");
    let several = run(&format!("{fault}[network]\nrouters = 3\n"));
    assert_eq!(refused(&several, "router_away"), 0, "{:?}", several.refusals);
    let lost = refused(&several, "router_lost");
    assert_eq!(lost, several.refused, "{:?}", several.refusals);
}

#[test]
fn routers_serve_on_what_they_last_knew() {
    for fault in [
        "[[fault]]\nkind = \"control-plane-away\"\nat_s = 5\n",
        "[[fault]]\nkind = \"telemetry-lost\"\nat_s = 5\nshare = 0.9\n",
        "[[fault]]\nkind = \"telemetry-late\"\nat_s = 5\ndelay_s = 3\n",
    ] {
        for routers in [1, 3] {
            let result = run(&format!("{fault}[network]\nrouters = {routers}\n"));
            assert_eq!(result.refused, 0, "{fault}{routers}: {:?}", result.refusals);
        }
    }
    // A crash under a frozen state: only failures tell.
    let frozen = "[[fault]]\nkind = \"control-plane-away\"\nat_s = 5\n[[fault]]\nkind = \"crash\"\ninstance = \"a-0\"\nat_s = 20\n";
    let result = run_with(
        frozen,
        "least-requests",
        "arrivals = \"poisson\"\nrate_per_s = 5",
        |_| {},
    );
    assert!(result.finished > 280, "{:?}", result.refusals);
}

#[test]
fn a_pool_grows_with_its_load_and_draws_nothing_where_it_is_off() {
    let wave = "arrivals = \"square\"\nrate_per_s = 2\nswing = 0.9\nperiod_s = 80";
    let scaling = "[[autoscaling]]\npool = \"a\"\nmin = 1\ntarget_in_flight = 4\nstart_up_s = 5\ncool_down_s = 5\n\
                   interval_s = 2\n[[autoscaling]]\npool = \"b\"\nmin = 1\ntarget_queue = 1\nstart_up_s = 5\n";
    let steady = run_with("", "least-requests", wave, |_| {});
    let mut used = BTreeSet::new();
    let scaled = run_with(scaling, "least-requests", wave, |record| {
        assert_ne!(record.ending, RequestEnding::Refused("broken_off"), "nobody is cut off");
        used.extend(record.instance.map(str::to_owned));
    });
    let serving = &scaled.timeline.serving;
    let (least, most) = serving.iter().fold((f32::MAX, 0.0_f32), |(least, most), &now| {
        (least.min(now), most.max(now))
    });
    assert!(least < 2.5 && most > 3.0, "{serving:?}");
    assert!(used.contains("a-0") && used.contains("a-1"), "{used:?}");
    assert!(
        scaled.energy.idle_mj < steady.energy.idle_mj,
        "{:?} {:?}",
        scaled.energy,
        steady.energy
    );
    assert!(
        steady
            .timeline
            .serving
            .iter()
            .all(|serving| (serving - 5.0).abs() < 1e-3)
    );
}

#[test]
fn a_rack_stays_below_its_cap() {
    let wave = "arrivals = \"gamma\"\nrate_per_s = 6";
    let free = run_with("", "least-requests", wave, |_| {});
    let highest = |result: &PolicyResult| result.timeline.watts.iter().copied().fold(0.0_f32, f32::max);
    // Five A30s of 165 W: idle they draw a fifth of that.
    let cap = 450.0;
    assert!(highest(&free) > cap, "{}", highest(&free));
    let capped = run_with(
        "[[rack]]\nname = \"r\"\npools = [\"a\", \"b\"]\ncap_watts = 450\n",
        "least-requests",
        wave,
        |_| {},
    );
    assert!(highest(&capped) <= cap * 1.0001, "{}", highest(&capped));
    let mean = |result: &PolicyResult| result.e2e_s.expect("some").mean;
    assert!(mean(&capped) > mean(&free), "{} {}", mean(&capped), mean(&free));
}

#[test]
fn the_same_faults_give_the_same_bytes() {
    let everything = "[network]\nrouters = 2\n[[fault]]\nkind = \"crash\"\ninstance = \"a-1\"\nat_s = 10\nuntil_s = 20\n\
                      [[fault]]\nkind = \"telemetry-lost\"\nat_s = 5\nshare = 0.5\n[[fault]]\nkind = \"router-away\"\n\
                      router = 1\nat_s = 25\nuntil_s = 30\n[[autoscaling]]\npool = \"b\"\nmin = 1\ntarget_in_flight = 4\n\
                      [[rack]]\nname = \"r\"\npools = [\"a\"]\ncap_watts = 300\n";
    assert_eq!(run(everything), run(everything));
}

#[test]
fn years_of_empty_time_pass_at_once() {
    let rare = "arrivals = \"poisson\"\nrate_per_s = 1e-6";
    let result = run_with(
        "[[autoscaling]]\npool = \"b\"\nmin = 1\ntarget_in_flight = 1\ninterval_s = 0.1\n[[rack]]\nname = \"r\"\n\
         pools = [\"a\"]\ncap_watts = 300\ninterval_s = 0.1\n",
        "equipoise",
        rare,
        |_| {},
    );
    assert!(result.duration_s > 1e8, "{}", result.duration_s);
}
