//! Whole runs: what must hold whatever the policy does.

use super::*;
use equipoise_config::FleetFile;
use equipoise_trace::{EventLogReader, Lengths, ReadOptions, Workload, WorkloadGenerator};
use equipoise_types::Timestamp;
use proptest::prelude::*;

mod identity;
mod queueing;
mod servers;
mod serving;

const MODELS: &str = "
    [[model]]
    name = \"fam-3b\"
    architecture = \"Qwen2.5-3B\"
    quality = 0.3
    context_tokens = 8192
    price = { input_usd_per_mtok = 0.06, output_usd_per_mtok = 0.06 }
    [[model]]
    name = \"fam-7b\"
    architecture = \"Qwen2.5-7B\"
    quality = 0.5
    context_tokens = 8192
    price = { input_usd_per_mtok = 0.07, output_usd_per_mtok = 0.07 }
";

fn pool(name: &str, model: &str, keys: &str) -> String {
    format!("[[pool]]\nname = \"{name}\"\nmodel = \"{model}\"\n{keys}\nlimits = {{ max_num_seqs = 32 }}\n")
}

fn parse(pools: &str) -> FleetConfig {
    FleetFile::parse(&format!("{MODELS}{pools}"), "test").expect("a good fleet")
}

fn mixed_fleet() -> FleetConfig {
    let pools = [
        pool("a", "fam-3b", "gpu = \"A30\"\ncount = 2"),
        pool("b", "fam-7b", "gpu = \"H100\"\ncount = 1"),
        pool("c", "fam-3b", "service_ms = 300\ncount = 1"),
    ];
    parse(&pools.concat())
}

fn workload(requests: usize, rate_per_s: f64) -> Vec<WorkloadRecord> {
    WorkloadGenerator {
        requests,
        rate_per_s,
        ..WorkloadGenerator::default()
    }
    .generate()
    .expect("a workload")
    .records
}

fn all_policies() -> SimulationOptions {
    let policies = equipoise_policy::names()
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    SimulationOptions {
        policies,
        ..SimulationOptions::default()
    }
}

fn one(policy: &str) -> SimulationOptions {
    SimulationOptions {
        policies: vec![policy.to_owned()],
        ..SimulationOptions::default()
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (fleet, records) = (mixed_fleet(), workload(150, 10.0));
    let first = simulate(&fleet, &records, &all_policies()).expect("runs");
    let second = simulate(&fleet, &records, &all_policies()).expect("runs");
    assert_eq!(to_json(&first), to_json(&second));
    assert_eq!(render_table(&first), render_table(&second));
    let names: Vec<&str> = first.iter().map(|result| result.policy.as_str()).collect();
    assert_eq!(names, equipoise_policy::names(), "in the order asked for");
    let alone = simulate(&fleet, &records, &one("random")).expect("runs");
    assert_eq!(first[1], alone[0], "who runs beside does not matter");
    let other = simulate(
        &fleet,
        &records,
        &SimulationOptions {
            seed: 2,
            ..one("random")
        },
    )
    .expect("runs");
    assert_ne!(alone[0].instances, other[0].instances, "another seed draws otherwise");
}

#[test]
fn every_request_ends_once_and_every_millijoule_is_accounted_for() {
    let fleet = mixed_fleet();
    // Light, and far beyond what the fleet can do.
    for rate_per_s in [2.0, 200.0] {
        for result in simulate(&fleet, &workload(300, rate_per_s), &all_policies()).expect("runs") {
            let name = &result.policy;
            assert_eq!((result.offered, result.unfinished), (300, 0), "{name}");
            assert_eq!(result.finished + result.refused, 300, "{name}");
            assert_eq!(result.refusals.values().sum::<u64>(), result.refused, "{name}");
            assert_eq!(
                result.instances.iter().map(|instance| instance.requests).sum::<u64>(),
                result.finished
            );
            assert_eq!(
                result.models.iter().map(|model| model.requests).sum::<u64>(),
                result.finished
            );
            assert!(result.energy.is_conserved(), "{name}: {:?}", result.energy);
            assert!(
                result.instances.iter().all(|instance| instance.energy.is_conserved()),
                "{name}"
            );
            assert!(
                result.energy.attributed_mj.0 > 0 && result.energy.idle_mj.0 > 0,
                "{name}"
            );
            assert_eq!(result.energy.unattributed_mj.0, 0, "{name}: no step runs for nobody");
            let (ttft, e2e) = (result.ttft_s.expect("some"), result.e2e_s.expect("some"));
            assert!(
                ttft.p50 <= e2e.p50 && e2e.p50 <= e2e.p95 && e2e.p95 <= e2e.p99,
                "{name}"
            );
        }
    }
}

#[test]
fn the_ledger_agrees_with_the_meter() {
    let (fleet, records, options) = (mixed_fleet(), workload(100, 5.0), SimulationOptions::default());
    let config = fleet.scheduler.clone();
    let driver = Driver::<_, _, ()>::new(&fleet, config, of_slice(&records), &options, NoSink);
    let mut driver = driver.expect("a good fleet");
    driver.run_to_end().expect("in order");
    for instance in &driver.instances {
        let metered = instance.joules_until(driver.now);
        let (attributed, idle) = instance.totals(driver.now);
        let difference = (attributed + idle).as_joules().0 - metered;
        assert!(difference.abs() < 0.002, "{}: {difference} J off", instance.spec.name);
    }
}

#[test]
fn more_replicas_differ_and_are_not_worse() {
    let few = parse(&pool("a", "fam-7b", "gpu = \"A30\"\ncount = 1"));
    let many = parse(&pool("a", "fam-7b", "gpu = \"A30\"\ncount = 50"));
    let records = workload(400, 20.0);
    for policy in equipoise_policy::names() {
        let few = &simulate(&few, &records, &one(policy)).expect("runs")[0];
        let many = &simulate(&many, &records, &one(policy)).expect("runs")[0];
        assert!(many.finished >= few.finished, "{policy}");
        assert_eq!(many.finished, 400, "{policy}");
        let (few, many) = (few.e2e_s.expect("some"), many.e2e_s.expect("some"));
        assert!(
            many.p99 < 0.5 * few.p99 && many.p50 < few.p50,
            "{policy}: {many:?} against {few:?}"
        );
    }
}

#[test]
fn alone_on_an_instance_the_times_are_the_physics() {
    let fleet = parse(&pool("a", "fam-7b", "gpu = \"A30\"\ncount = 1"));
    // One request, and another long after it.
    let record = |arrival_s: f64| WorkloadRecord {
        arrival: Timestamp::from_secs_f64(arrival_s),
        prompt_tokens: 1500,
        output_tokens: 100,
        ..WorkloadRecord::default()
    };
    let options = SimulationOptions {
        hop_s: 0.0,
        ..one("equipoise")
    };
    let result = &simulate(&fleet, &[record(1.0), record(60.0)], &options).expect("runs")[0];
    let model = fleet.instances[0].step_model().expect("physics");
    let prefill_s = model.prefill_seconds(1500, 0, 0, 0);
    let ttft = result.ttft_s.expect("two");
    assert!(
        (ttft.max / prefill_s - 1.0).abs() < 0.02,
        "{} against {prefill_s}",
        ttft.max
    );
    let step_s = model.decode_step_seconds(1, 1550);
    let tpot = result.tpot_s.expect("two");
    assert!((tpot.p50 / step_s - 1.0).abs() < 0.02, "{} against {step_s}", tpot.p50);
    let hops = SimulationOptions {
        hop_s: 0.005,
        ..options
    };
    let later = &simulate(&fleet, &[record(1.0), record(60.0)], &hops).expect("runs")[0];
    assert!(
        (later.ttft_s.expect("two").max - ttft.max - 0.01).abs() < 1e-6,
        "there and back"
    );
}

/// M/D/1: one server with a fixed time s, Poisson arrivals at utilisation rho: the mean wait is rho s / (2 (1 - rho))
/// (Pollaczek and Khinchine). A queue at the router and one in the engine must both give it.
#[test]
fn the_mean_wait_is_that_of_queueing_theory() {
    let pool =
        "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\ncount = 1\nservice_ms = 10\nlimits = { max_num_seqs = 1 }\n";
    let mut fleet = parse(pool);
    fleet.scheduler.queue_limit = 100_000;
    let short = Lengths {
        mean: 10.0,
        sigma: 0.0,
        most: 10,
    };
    let generator = WorkloadGenerator {
        requests: 20_000,
        rate_per_s: 70.0,
        prompt: short,
        ..WorkloadGenerator::default()
    };
    let records = generator.generate().expect("a workload").records;
    let options = SimulationOptions {
        hop_s: 0.0,
        ..one("least-requests")
    };
    let expected = 0.010 + 0.7 * 0.010 / (2.0 * 0.3);
    for late_binding in [true, false] {
        fleet.scheduler.late_binding = late_binding;
        let result = &simulate(&fleet, &records, &options).expect("runs")[0];
        assert_eq!(
            result.finished, 20_000,
            "late binding {late_binding}: {:?}, {}",
            result.refusals, result.unfinished
        );
        assert_eq!(result.queued > 0, late_binding);
        let mean = result.e2e_s.expect("some").mean;
        assert!(
            (mean / expected - 1.0).abs() < 0.05,
            "{mean} against {expected}, late binding {late_binding}"
        );
    }
}

fn arriving_at(arrivals_s: &[f64]) -> Vec<WorkloadRecord> {
    let record = |arrival_s: &f64| WorkloadRecord {
        arrival: Timestamp::from_secs_f64(*arrival_s),
        prompt_tokens: 1500,
        output_tokens: 100,
        ..WorkloadRecord::default()
    };
    arrivals_s.iter().map(record).collect()
}

/// Events that the scheduler was given in a run.
fn events_of(fleet: &FleetConfig, records: &[WorkloadRecord], options: &SimulationOptions) -> (PolicyResult, u64) {
    let mut log = Vec::new();
    let result = simulate_recorded(fleet, records, options, &mut log, "log").expect("runs");
    let report = replay(&mut EventLogReader::new(log.as_slice(), "log").expect("a log")).expect("reads");
    assert!(report.is_identical(), "{report}");
    (result, report.events)
}

#[test]
fn nothing_happens_in_empty_time() {
    let fleet = mixed_fleet();
    for policy in equipoise_policy::names() {
        // Three requests in a lifetime, and the same three within three minutes.
        let (rare, events) = events_of(&fleet, &arriving_at(&[0.0, 1e9, 2e9]), &one(policy));
        let (near, _) = events_of(&fleet, &arriving_at(&[0.0, 60.0, 120.0]), &one(policy));
        assert_eq!((rare.finished, rare.unfinished), (3, 0), "{policy}");
        assert!(events < 3000, "{policy}: {events} events");
        let same = |a: Option<Percentiles>, b: Option<Percentiles>| {
            let (a, b) = (a.expect("three"), b.expect("three"));
            assert!(
                (a.mean - b.mean).abs() < 1e-6 && (a.max - b.max).abs() < 1e-6,
                "{policy}: {a:?}, {b:?}"
            );
        };
        same(rare.e2e_s, near.e2e_s);
        same(rare.ttft_s, near.ttft_s);
        assert!(rare.energy.is_conserved(), "{policy}");
    }
}

#[test]
fn a_box_that_takes_an_hour_is_not_watched_meanwhile() {
    let fleet = parse(
        "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\ncount = 1\nservice_ms = 3600000\nlimits = { max_num_seqs = 2 }\n",
    );
    let options = SimulationOptions {
        hop_s: 0.0,
        ..one("least-requests")
    };
    // Two at a time; the third waits in the engine for the first to end.
    let mut early = fleet.clone();
    early.scheduler.late_binding = false;
    let (result, events) = events_of(&early, &arriving_at(&[0.0, 600.0, 1200.0, 1e6]), &options);
    let e2e = result.e2e_s.expect("some");
    assert_eq!(result.finished, 4, "{:?}", result.refusals);
    assert!((e2e.max - 6000.0).abs() < 1e-3, "{e2e:?}");
    assert!((e2e.mean - (3.0 * 3600.0 + 6000.0) / 4.0).abs() < 1e-3, "{e2e:?}");
    assert!(events < 1000, "{events} events");
    // Or it waits at the router, until that gives up.
    let (result, events) = events_of(&fleet, &arriving_at(&[0.0, 600.0, 1200.0, 1e6]), &options);
    assert_eq!((result.finished, result.refused), (3, 1), "{:?}", result.refusals);
    assert!(events < 5000, "{events} events");
}

#[test]
fn the_published_trace_runs_on_the_papers_fleet() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let data = std::env::var("EQUIPOISE_DATA").unwrap_or_else(|_| format!("{root}/../shared/data"));
    let path = std::path::Path::new(&data).join("traces/azure_2023_conv.csv");
    if !path.exists() {
        eprintln!("SKIPPED: no trace at {} (set EQUIPOISE_DATA)", path.display());
        return;
    }
    let options = ReadOptions {
        limit: Some(3000),
        ..ReadOptions::default()
    };
    let workload = Workload::load(&path, &options).expect("reads");
    let fleet = std::path::Path::new(root).join("deploy/fleets/routebalance-13.toml");
    let fleet = FleetFile::load(&fleet).expect("ships");
    for result in simulate(&fleet, &workload.records, &all_policies()).expect("runs") {
        // 28 GPUs have room for 5.4 requests a second: whoever is refused fits no context.
        assert_eq!(
            result.refused,
            result.refusals.get("infeasible").copied().unwrap_or(0),
            "{:?}",
            result.refusals
        );
        assert_eq!(
            (result.unfinished, result.finished + result.refused),
            (0, 3000),
            "{}",
            result.policy
        );
        assert!(result.energy.is_conserved(), "{}", result.policy);
        // No policy leaves the band of its models.
        let quality = result.quality_mean.expect("declared");
        assert!((0.2999..0.4501).contains(&quality), "{}: {quality}", result.policy);
    }
}

#[test]
fn what_fits_nowhere_is_refused_and_counted() {
    let fleet = mixed_fleet();
    let mut records = workload(20, 5.0);
    records[3].prompt_tokens = 100_000;
    records[7].prompt_tokens = 8000;
    records[7].output_tokens = 1000;
    // The opaque box has no context of its own: leave it out.
    let fleet = FleetConfig {
        instances: fleet.instances[..3].to_vec(),
        ..fleet
    };
    for result in simulate(&fleet, &records, &all_policies()).expect("runs") {
        assert_eq!((result.finished, result.refused), (19, 1), "{}", result.policy);
        assert_eq!(result.refusals.get("infeasible"), Some(&1), "{:?}", result.refusals);
        assert_eq!(
            result.truncated, 1,
            "an engine ends an answer at the end of its context"
        );
        assert!(render_table(&[result]).contains("1 infeasible"));
    }
}

#[test]
fn a_prompt_seen_before_is_answered_sooner() {
    let fleet = parse(&pool("a", "fam-7b", "gpu = \"A30\"\ncount = 1"));
    let record = |arrival_s: f64, prefix_blocks: Option<Vec<u64>>| WorkloadRecord {
        arrival: Timestamp::from_secs_f64(arrival_s),
        prompt_tokens: 2048,
        output_tokens: 10,
        prefix_blocks,
        ..WorkloadRecord::default()
    };
    let same = [
        record(0.0, Some(vec![1, 2, 3, 4])),
        record(60.0, Some(vec![1, 2, 3, 5])),
    ];
    let run = |records: &[WorkloadRecord], prefix_cache: bool| {
        simulate(
            &fleet,
            records,
            &SimulationOptions {
                prefix_cache,
                ..one("equipoise")
            },
        )
        .expect("runs")
        .remove(0)
    };
    let cached = run(&same, true);
    assert_eq!(cached.cached_prompt_tokens, 3 * 512);
    assert!(render_table(std::slice::from_ref(&cached)).contains("38 % of prompt tokens"));
    let cold = run(&same, false);
    assert_eq!(cold.cached_prompt_tokens, 0);
    let best = |result: &PolicyResult| 2.0 * result.ttft_s.expect("two").mean - result.ttft_s.expect("two").max;
    assert!(
        best(&cached) < 0.5 * best(&cold),
        "{} against {}",
        best(&cached),
        best(&cold)
    );
    assert!(cached.joules_per_request_active < cold.joules_per_request_active);
    assert_eq!(
        run(&[record(0.0, None), record(60.0, None)], true),
        cold,
        "without ids nothing is shared"
    );
}

#[test]
fn a_model_can_be_asked_for() {
    let options = SimulationOptions {
        target: equipoise_scheduler::Target::Model("fam-7b".to_owned()),
        ..all_policies()
    };
    for result in simulate(&mixed_fleet(), &workload(50, 2.0), &options).expect("runs") {
        assert_eq!(result.models[1].requests, 50, "{}", result.policy);
        assert_eq!(result.quality_mean, Some(0.5));
    }
}

#[test]
fn a_replay_decides_the_same_bytes() {
    let (fleet, records) = (mixed_fleet(), workload(120, 30.0));
    for policy in equipoise_policy::names() {
        let mut log = Vec::new();
        let recorded = simulate_recorded(&fleet, &records, &one(policy), &mut log, "log").expect("runs");
        let unrecorded = &simulate(&fleet, &records, &one(policy)).expect("runs")[0];
        assert_eq!(recorded, *unrecorded, "recording changes nothing");
        let report = replay(&mut EventLogReader::new(log.as_slice(), "log").expect("a log")).expect("reads");
        assert!(report.is_identical(), "{report}");
        assert!(
            report.dispatches >= recorded.finished && report.events > report.dispatches,
            "{report}"
        );
    }
}

#[test]
fn a_changed_decision_is_found_and_shown() {
    let mut log = Vec::new();
    let options = one("least-requests");
    simulate_recorded(&mixed_fleet(), &workload(30, 5.0), &options, &mut log, "log").expect("runs");
    let text = String::from_utf8(log).expect("JSON is UTF-8");
    let line = text
        .lines()
        .position(|line| line.contains("\"Dispatch\""))
        .expect("a decision");
    let tampered: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(index, text)| {
            if index == line {
                text.replacen("\"decision\":0", "\"decision\":9", 1)
            } else {
                text.to_owned()
            }
        })
        .collect();
    let tampered = tampered.join("\n");
    let report = replay(&mut EventLogReader::new(tampered.as_bytes(), "log").expect("a log")).expect("reads");
    assert_eq!(report.differing, 1, "{report}");
    let first = report.first.as_ref().expect("one");
    assert_eq!(first.line, line as u64 + 1);
    assert!(
        first.event.contains("Arrived") && first.recorded.contains("\"decision\":9"),
        "{report}"
    );
    assert!(
        first.replayed.contains("\"decision\":0") && !first.before.is_empty(),
        "{report}"
    );
    assert!(report.to_string().contains("answered differently"), "{report}");
}

#[test]
fn what_cannot_run_says_why() {
    let (fleet, records) = (mixed_fleet(), workload(3, 1.0));
    let error = |fleet: &FleetConfig, records: &[WorkloadRecord], options: &SimulationOptions| {
        simulate(fleet, records, options).expect_err("wrong").to_string()
    };
    assert!(error(&fleet, &[], &one("random")).contains("no request"));
    assert!(error(&fleet, &records, &one("magic")).contains("magic"));
    let empty = FleetConfig {
        instances: Vec::new(),
        ..fleet.clone()
    };
    assert!(error(&empty, &records, &one("random")).contains("no instance"));
    let twice = FleetConfig {
        instances: vec![fleet.instances[0].clone(); 2],
        ..fleet.clone()
    };
    assert!(error(&twice, &records, &one("random")).contains("two instances are called `a-0`"));
    let backwards: Vec<WorkloadRecord> = records.iter().rev().cloned().collect();
    assert!(error(&fleet, &backwards, &one("random")).contains("sort the workload"));
    let never = error(&fleet, &arriving_at(&[0.0, 1e10]), &one("random"));
    assert!(
        never.starts_with("request 1 of the workload arrives after 317 years"),
        "{never}"
    );
    let slow = SimulationOptions {
        hop_s: f64::NAN,
        ..one("random")
    };
    assert!(error(&fleet, &records, &slow).contains("hop_s"));
    let never = SimulationOptions {
        telemetry_interval_s: 0.0,
        ..one("random")
    };
    assert!(error(&fleet, &records, &never).contains("telemetry_interval_s"));
    let real = FleetFile::parse(
        "[[model]]\nname = \"x\"\n[[pool]]\nname = \"a\"\nmodel = \"x\"\nendpoints = [\"http://h:1\"]\n",
        "test",
    )
    .expect("good");
    assert!(error(&real, &records, &one("random")).contains("architecture"));
}

#[test]
fn the_table_is_aligned_and_fits_a_terminal() {
    let table = render_table(&simulate(&mixed_fleet(), &workload(100, 5.0), &all_policies()).expect("runs"));
    let lines: Vec<&str> = table.lines().collect();
    let widths: Vec<usize> = lines[1..=1 + 7].iter().map(|line| line.chars().count()).collect();
    assert!(
        widths.iter().all(|&width| width == widths[0] && width <= 120),
        "{table}"
    );
    assert!(lines[0].chars().count() <= widths[0], "{table}");
    assert!(table.contains("3b ") && table.contains(" · 7b "), "{table}");
    assert!(table.contains("TTFT, ms") && table.contains("J/request"), "{table}");
}

#[test]
fn the_table_of_every_policy_on_the_papers_fleet_fits_a_terminal() {
    let fleet = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/fleets/routebalance-13.toml");
    let fleet = FleetFile::load(&fleet).expect("ships");
    let mut options = all_policies();
    let decoupled = equipoise_policy::Decoupled::names();
    options.policies.extend(decoupled.iter().map(|name| (*name).to_owned()));
    // Far beyond what it can do: large figures.
    let results = simulate(&fleet, &workload(1500, 60.0), &options).expect("runs");
    let table = render_table(&results);
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    for name in &options.policies {
        assert!(table.contains(name), "{name} is missing in\n{table}");
    }
    assert!(
        table.contains("Each refused: ") && table.contains(" preemptions.\n"),
        "{table}"
    );
    // A fleet of many models.
    let mut crowd = results[0].clone();
    let share = crowd.models[0].clone();
    crowd.models = (0..40)
        .map(|index| ModelShare {
            model: format!("model-of-number-{index}"),
            ..share.clone()
        })
        .collect();
    let table = render_table(&[crowd]);
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    for index in 0..40 {
        assert!(
            table.contains(&format!("{index} {:.0} %", 100.0 * share.share)),
            "{table}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_workload_loses_a_request(
        seed in any::<u64>(),
        requests in 1..60_usize,
        rate_per_s in 0.5..500.0_f64,
        prompt_mean in 1.0..9000.0_f64,
        output_mean in 1.0..400.0_f64,
        policy in 0..7_usize,
    ) {
        let generator = WorkloadGenerator {
            requests,
            rate_per_s,
            prompt: Lengths { mean: prompt_mean, sigma: 1.0, most: 20_000 },
            output: Lengths { mean: output_mean, sigma: 1.0, most: 3000 },
            seed,
        };
        let options = SimulationOptions { seed, ..one(equipoise_policy::names()[policy]) };
        let result = &simulate(&mixed_fleet(), &generator.generate().expect("a workload").records, &options).expect("runs")[0];
        prop_assert_eq!(result.unfinished, 0);
        prop_assert_eq!(result.finished + result.refused, requests as u64);
        prop_assert!(result.energy.is_conserved());
    }
}

#[test]
fn a_line_is_not_held_up_by_its_first() {
    // Six equal engines at four fifths of what they can do, with short answers: to wait for a busy one saves energy, and
    // that is right for the first in line only.
    let fleet =
        parse(&pool("a", "fam-7b", "gpu = \"A100-80G\"\ncount = 6").replace("max_num_seqs = 32", "max_num_seqs = 8"));
    let generator = WorkloadGenerator {
        requests: 6000,
        rate_per_s: 120.0,
        prompt: Lengths {
            mean: 200.0,
            sigma: 0.8,
            most: 2000,
        },
        output: Lengths {
            mean: 20.0,
            sigma: 0.7,
            most: 200,
        },
        ..WorkloadGenerator::default()
    };
    let records = generator.generate().expect("a workload").records;
    let p99 = |policy: &str| {
        let result = simulate(&fleet, &records, &one(policy)).expect("runs").remove(0);
        assert_eq!((result.finished, result.refused), (6000, 0), "{policy}");
        result.e2e_s.expect("some").p99
    };
    let (ours, simple) = (p99("equipoise"), p99("least-requests"));
    assert!(ours < 1.3 * simple, "{ours} {simple}");
}

#[test]
fn a_sink_hears_of_every_request_once() {
    let (fleet, records) = (mixed_fleet(), workload(300, 200.0));
    let mut heard = vec![0; records.len()];
    let (mut energy, mut refused) = (0, 0);
    let mut sink = |record: &RequestRecord<'_>| {
        heard[record.id.0 as usize] += 1;
        energy += record.energy.0;
        refused += u64::from(matches!(record.ending, RequestEnding::Refused(_)));
        assert_eq!(record.e2e_s.is_some(), record.ending == RequestEnding::Finished);
    };
    let stream = records.iter().cloned().map(Ok);
    let result = simulate_stream(&fleet, stream, &one("equipoise"), &mut sink).expect("runs");
    let mut kept = simulate(&fleet, &records, &one("equipoise")).expect("runs").remove(0);
    assert_eq!(std::mem::take(&mut kept.sent_to).len(), records.len());
    assert_eq!(result, kept);
    assert!(heard.iter().all(|times| *times == 1));
    assert_eq!((energy, refused), (result.energy.attributed_mj.0, result.refused));
}
