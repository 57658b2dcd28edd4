//! Fleets whose pools are served in other ways than the default: those that ship, and sleep.

use super::*;
use crate::Scenario;
use equipoise_config::ScenarioFile;

fn shipped(folder: &str) -> Vec<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(folder);
    let files = std::fs::read_dir(folder)
        .expect("it ships")
        .map(|file| file.expect("readable").path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 2);
    files
}

#[test]
fn every_fleet_that_ships_serves() {
    let records = workload(300, 4.0);
    for path in shipped("fleets") {
        let fleet = FleetFile::load(&path).expect("ships");
        // Engines of whom only the address is known cannot be simulated.
        if fleet.instances.iter().any(|instance| instance.step_model().is_err()) {
            continue;
        }
        let result = &simulate(&fleet, &records, &one("least-requests")).expect("runs")[0];
        let name = path.display();
        assert_eq!(result.unfinished, 0, "{name}");
        assert!(result.finished > 290, "{name}: {:?}", result.refusals);
        assert!(result.energy.is_conserved(), "{name}: {:?}", result.energy);
        let used = result.instances.iter().filter(|instance| instance.requests > 0).count();
        assert!(
            2 * used > result.instances.len(),
            "{name}: {used} of {}",
            result.instances.len()
        );
    }
}

#[test]
fn every_scenario_that_ships_and_needs_no_data_runs() {
    for path in shipped("scenarios") {
        let config = ScenarioFile::load(&path).expect("ships");
        let Ok(scenario) = Scenario::open(config, None) else {
            continue;
        };
        for cell in scenario.cells(false).into_iter().take(2) {
            let outcome = scenario.run(&cell, &mut |_: &RequestRecord<'_>| ()).expect("runs");
            let figures = &outcome.figures;
            assert!(figures.finished > 0, "{}, {}", path.display(), outcome.arm);
            assert!(figures.finished + figures.refused <= figures.offered);
        }
    }
}

const DAY_S: f64 = 86_400.0;

fn with_sleep(sleep: &str) -> FleetConfig {
    parse(&format!(
        "[[pool]]\nname = \"a\"\nmodel = \"fam-7b\"\ngpu = \"H100\"\ncount = 1\n{sleep}\n"
    ))
}

/// One request after each of the pauses.
fn after(pauses_s: &[f64]) -> Vec<WorkloadRecord> {
    let mut now_s = 0.0;
    let record = |pause_s: &f64| {
        now_s += pause_s;
        WorkloadRecord {
            arrival: Timestamp::from_secs_f64(now_s),
            prompt_tokens: 300,
            output_tokens: 100,
            ..WorkloadRecord::default()
        }
    };
    pauses_s.iter().map(record).collect()
}

fn run(fleet: &FleetConfig, records: &[WorkloadRecord]) -> (PolicyResult, Vec<f64>) {
    let options = SimulationOptions {
        hop_s: 0.0,
        ..one("least-requests")
    };
    let mut ttft = vec![f64::NAN; records.len()];
    let mut sink = |record: &RequestRecord<'_>| ttft[record.id.0 as usize] = record.ttft_s.expect("answered");
    let result = simulate_stream(fleet, records.iter().cloned().map(Ok), &options, &mut sink).expect("runs");
    (result, ttft)
}

#[test]
fn whoever_wakes_an_engine_waits_and_whoever_comes_meanwhile_waits_the_rest() {
    let awake = with_sleep("");
    let asleep = with_sleep("sleep = { level = \"off\", after_s = 60, wake_s = 30 }");
    // Within the minute; an hour later, and ten seconds into the waking; and once more within the minute.
    let records = after(&[30.0, 3600.0, 10.0, 40.0]);
    let ((calm, always), (result, ttft)) = (run(&awake, &records), run(&asleep, &records));
    assert_eq!((result.finished, result.instances[0].wakes), (4, 1));
    assert_eq!(calm.instances[0].wakes, 0);
    let late: Vec<f64> = ttft.iter().zip(&always).map(|(ttft, always)| ttft - always).collect();
    assert!(late[0].abs() < 1e-9 && late[3].abs() < 1e-9, "{late:?}");
    assert!((late[1] - 30.0).abs() < 0.2 && (late[2] - 20.0).abs() < 0.2, "{late:?}");
    assert!(result.energy.is_conserved() && result.energy.unattributed_mj.0 == 0);
}

#[test]
fn what_sleep_saves_is_what_the_levels_draw() {
    let records = after(&[60.0, DAY_S, DAY_S]);
    let joules = |sleep: &str| {
        let fleet = with_sleep(sleep);
        let (result, _) = run(&fleet, &records);
        (
            result.energy.idle_mj.as_joules().0,
            fleet.instances[0].step_model().expect("physics"),
            result,
        )
    };
    let (awake, model, _) = joules("");
    let (nap, _, napped) = joules("sleep = { level = \"offload\", after_s = 300 }");
    let (off, _, stopped) = joules("sleep = { level = \"off\", after_s = 300 }");
    let rest = model.rest();
    assert_eq!((napped.instances[0].wakes, stopped.instances[0].wakes), (2, 2));
    assert!(
        (stopped.instances[0].asleep_share - 1.0).abs() < 0.01,
        "{}",
        stopped.instances[0].asleep_share
    );
    // The process stays: the context goes on drawing, and waking costs a little more.
    let loading = 2.0 * (rest.loading.0 - rest.loaded.0);
    assert!(
        (nap - awake - loading * rest.wake_offloaded_s).abs() < 500.0,
        "{nap} {awake}"
    );
    // Stopped: bare boards for two days less the times awake, and two starts.
    let slept_s = 2.0 * (DAY_S - 300.0);
    let expected = awake - slept_s * (rest.loaded.0 - rest.bare.0) + loading * rest.start_s;
    assert!((off / expected - 1.0).abs() < 1e-3, "{off} {expected}");
}

#[test]
fn sleepers_are_the_same_step_by_step_and_under_every_policy() {
    let pools = [
        pool(
            "a",
            "fam-7b",
            "gpu = \"H100\"\ncount = 2\nsleep = { level = \"off\", after_s = 5, wake_s = 3 }",
        ),
        pool(
            "b",
            "fam-3b",
            "gpu = \"A30\"\ncount = 2\nsleep = { level = \"offload\", after_s = 2 }",
        ),
    ];
    let fleet = parse(&pools.concat());
    let records = workload(200, 0.4);
    for policy in equipoise_policy::names() {
        let fast = &simulate(&fleet, &records, &one(policy)).expect("runs")[0];
        let slow = SimulationOptions {
            step_by_step: true,
            ..one(policy)
        };
        let slow = &simulate(&fleet, &records, &slow).expect("runs")[0];
        assert_eq!(
            to_json(std::slice::from_ref(fast)),
            to_json(std::slice::from_ref(slow)),
            "{policy}"
        );
        assert_eq!(
            (fast.finished, fast.unfinished),
            (200, 0),
            "{policy}: {:?}",
            fast.refusals
        );
        assert!(fast.energy.is_conserved());
        assert!(
            fast.instances.iter().map(|instance| instance.wakes).sum::<u32>() > 0,
            "{policy}"
        );
    }
}
