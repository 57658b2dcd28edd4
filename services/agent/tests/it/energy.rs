//! Energy: what is sent is what the counters counted, whatever happens on the way.

use crate::control::Control;
use crate::{config, engine, eventually, instance};
use equipoise_agent::{Agent, AgentConfig, AgentError, NvmlMode};
use equipoise_proto::v1::{EnergyFlaw, EnergySample, EnergySource, GpuSample, Instance};
use http::StatusCode;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn double(script: &str) -> (tempfile::TempDir, NvmlMode) {
    let folder = tempfile::tempdir().expect("a folder");
    let library = nvml_double::install(folder.path(), script).expect("the double is built with this test");
    (folder, NvmlMode::Path(library))
}

fn with_gpus(control: &Control, instances: Vec<Instance>, nvml: NvmlMode) -> AgentConfig {
    AgentConfig {
        nvml,
        ..config(&control.uri(), instances)
    }
}

/// Rounds of both GPUs that came whole: the time of the later reading and the sum of the counters.
fn rounds(control: &Control) -> Vec<(u64, u64)> {
    let batches = control.memory.batches.lock().expect("whole");
    let sum = |gpus: &[GpuSample]| match gpus {
        [first, second] => Some((second.unix_ns.max(first.unix_ns), first.energy_mj? + second.energy_mj?)),
        _ => None,
    };
    batches.iter().filter_map(|batch| sum(&batch.gpus)).collect()
}

/// Compares every pair of neighbouring counter readings at bounds of intervals with the energy sent for the time between;
/// returns how many.
fn assert_conserved(rounds: &[(u64, u64)], energy: &[EnergySample]) -> usize {
    for pair in energy.windows(2) {
        assert_eq!(
            pair[0].end_unix_ns, pair[1].start_unix_ns,
            "intervals follow one another"
        );
    }
    let bounds: BTreeSet<u64> = energy
        .iter()
        .flat_map(|sample| [sample.start_unix_ns, sample.end_unix_ns])
        .collect();
    let known: Vec<_> = rounds.iter().filter(|(at, _)| bounds.contains(at)).collect();
    for pair in known.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let sent: u64 = energy
            .iter()
            .filter(|sample| sample.start_unix_ns >= *from && sample.end_unix_ns <= *to)
            .map(|sample| sample.measured_mj)
            .sum();
        assert_eq!(sent, after - before, "between {from} and {to}");
    }
    known.len().saturating_sub(1)
}

#[tokio::test]
async fn what_is_sent_is_what_the_counters_counted_through_restarts_and_lost_leases() {
    let mut control = Control::start();
    let (_folder, nvml) = double("gpus 2; watts 300; gpu 1 watts 123.4; start 5000000; limit 400");
    let instances = vec![instance("a", "http://127.0.0.1:1", &["0", "1"])];
    let agent = Agent::start(with_gpus(&control, instances, nvml))
        .await
        .expect("starts");
    let more = async |control: &Control| {
        let before = control.memory.energy("a").len();
        eventually("more energy is told", || control.memory.energy("a").len() > before + 5).await;
    };
    more(&control).await;
    // Batches that came without being acknowledged are sent again, those that were lost too.
    for fault in [&control.memory.clone().silent, &control.memory.clone().deaf] {
        fault.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        control.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        fault.store(false, Ordering::SeqCst);
        control.revive();
        more(&control).await;
    }
    control.memory.forget_lease();
    more(&control).await;
    agent.shutdown().await;

    let energy = control.memory.energy("a");
    let compared = assert_conserved(&rounds(&control), &energy);
    assert!(compared >= 10, "only {compared} pairs");
    assert!(
        energy
            .iter()
            .all(|sample| sample.source() == EnergySource::Counter && sample.flaws.is_empty()),
        "{energy:?}"
    );
}

#[tokio::test]
async fn faults_of_gpus_are_flagged_and_the_other_instance_goes_on() {
    let control = Control::start();
    let (_folder, nvml) =
        double("gpus 4; clock 50; watts 200; gpu 0 after 4 reset; gpu 1 after 4 lost; gpu 2 unsupported energy");
    let names = ["reset", "lost", "power", "well"];
    let instances = names
        .iter()
        .zip(["0", "1", "2", "3"])
        .map(|(name, gpu)| instance(name, "http://127.0.0.1:1", &[gpu]));
    let agent = Agent::start(with_gpus(&control, instances.collect(), nvml))
        .await
        .expect("starts");
    let flawed = |name: &str, flaw: EnergyFlaw| {
        control
            .memory
            .energy(name)
            .iter()
            .any(|sample| sample.flaws.contains(&flaw.into()))
    };
    eventually("the reset is flagged", || flawed("reset", EnergyFlaw::CounterReset)).await;
    eventually("the loss is flagged", || flawed("lost", EnergyFlaw::GpuLost)).await;
    eventually("the others go on", || {
        control.memory.energy("well").len() > 10 && control.memory.energy("power").len() > 10
    })
    .await;
    agent.shutdown().await;
    let sources = |name: &str| {
        control
            .memory
            .energy(name)
            .iter()
            .map(|sample| sample.source())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(sources("power"), BTreeSet::from([EnergySource::Power]));
    assert_eq!(sources("well"), BTreeSet::from([EnergySource::Counter]));
    assert!(
        control
            .memory
            .energy("well")
            .iter()
            .all(|sample| sample.flaws.is_empty())
    );
}

#[tokio::test]
async fn idle_draw_is_learned_while_the_engine_is_idle() {
    let control = Control::start();
    let (endpoint, script) = engine::start().await;
    script.set(
        "/metrics",
        StatusCode::OK,
        "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n",
    );
    let (_folder, nvml) = double("watts 110; limit 400");
    let agent = Agent::start(with_gpus(&control, vec![instance("a", &endpoint, &["0"])], nvml))
        .await
        .expect("starts");
    // The counter shows whole milliseconds of draw, so an interval may measure a little less than idle draw times time.
    let all_idle = |sample: &EnergySample| sample.idle_mj > 0 && sample.measured_mj - sample.idle_mj <= 220;
    eventually("idle energy is told", || {
        control.memory.energy("a").iter().any(all_idle)
    })
    .await;
    let drawn = || {
        let batches = control.memory.batches.lock().expect("whole");
        batches
            .iter()
            .flat_map(|batch| &batch.engines)
            .filter_map(|sample| sample.power_mw)
            .next_back()
    };
    eventually("the mean draw is told with the engine", || {
        drawn().is_some_and(|power| power > 50_000)
    })
    .await;
    agent.shutdown().await;
}

#[tokio::test]
async fn an_emulated_engine_meters_itself() {
    let control = Control::start();
    let (endpoint, script) = engine::start().await;
    let meter = |energy: u64, idle: u64| {
        format!(
            "equipoise_emulator_energy_millijoules_total {energy}\nequipoise_emulator_idle_millijoules_total {idle}\n"
        )
    };
    script.set("/metrics", StatusCode::OK, meter(1_000, 400));
    let emulated = Instance {
        emulated: true,
        ..instance("e", &endpoint, &[])
    };
    let agent = Agent::start(config(&control.uri(), vec![emulated]))
        .await
        .expect("starts");
    eventually("the first reading starts the clock", || {
        !control.memory.energy("e").is_empty()
    })
    .await;
    let (mut energy, mut idle) = (1_000, 400);
    for step in 1..20 {
        (energy, idle) = (energy + 37 * step, idle + 11);
        script.set("/metrics", StatusCode::OK, meter(energy, idle));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sum = |of: fn(&EnergySample) -> u64| control.memory.energy("e").iter().map(of).sum::<u64>();
    eventually("all of it is told", || {
        sum(|sample| sample.measured_mj) >= energy - 1_000
    })
    .await;
    agent.shutdown().await;
    assert_eq!(
        (sum(|sample| sample.measured_mj), sum(|sample| sample.idle_mj)),
        (energy - 1_000, idle - 400)
    );
    assert!(
        control
            .memory
            .energy("e")
            .iter()
            .all(|sample| sample.source() == EnergySource::Modelled)
    );
}

#[tokio::test]
async fn a_library_that_was_asked_for_must_be_there() {
    let control = Control::start();
    let missing = NvmlMode::Path(PathBuf::from("/nowhere/libnvidia-ml.so"));
    let error = Agent::start(with_gpus(&control, vec![], missing))
        .await
        .expect_err("it is not there");
    assert!(
        matches!(error, AgentError::Nvml(_)) && error.to_string().contains("/nowhere"),
        "{error}"
    );
    // Elsewhere a node without GPUs is a node like any other.
    let agent = Agent::start(with_gpus(&control, vec![], NvmlMode::Auto))
        .await
        .expect("starts");
    eventually("it registers", || control.memory.registrations() == 1).await;
    agent.shutdown().await;
}
