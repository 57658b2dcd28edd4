//! NVML as a GPU node would show it, played by the double: every field, every fault.
#![expect(clippy::expect_used, reason = "a double that cannot be loaded fails the test")]

use equipoise_device::{DeviceError, GpuReading, GpuSource as _, Memory, Nvml, find_gpu};
use equipoise_types::{MilliJoules, Timestamp};
use std::path::Path;

/// The folder must outlive the library only until it is loaded.
fn open(script: &str) -> Nvml {
    let folder = tempfile::tempdir().expect("a folder");
    let library = nvml_double::install(folder.path(), script).expect("the double is built with this test");
    Nvml::open(Some(&library)).expect("the double loads")
}

fn round(nvml: &mut Nvml) -> Vec<Result<GpuReading, DeviceError>> {
    nvml.sample(&|| Timestamp(7))
}

fn energies(nvml: &mut Nvml, gpu: usize, rounds: usize) -> Vec<Option<u64>> {
    (0..rounds)
        .map(|_| {
            round(nvml)[gpu]
                .as_ref()
                .expect("answers")
                .energy
                .map(|energy| energy.0)
        })
        .collect()
}

#[test]
fn every_field_is_read() {
    let mut nvml = open(
        "gpus 2; clock 100; watts 300; gpu 1 watts 150.5; start 5; utilization 93; temperature 61; throttle 4; limit 400",
    );
    assert_eq!(nvml.driver_version().as_deref(), Some("570.00"));
    let uuid = nvml.gpus()[1].uuid.clone();
    assert_eq!(find_gpu(nvml.gpus(), &uuid), Ok(1));
    round(&mut nvml);
    let readings = round(&mut nvml);
    let reading = readings[1].as_ref().expect("answers");
    assert_eq!(
        (reading.gpu.index, reading.gpu.uuid.as_str(), reading.at),
        (1, uuid.as_str(), Timestamp(7))
    );
    assert_eq!(reading.gpu.name, "NVML double");
    assert_eq!(
        (reading.power_mw, reading.energy),
        (Some(150_500), Some(MilliJoules(15_055)))
    );
    assert_eq!(
        (reading.utilization_percent, reading.temperature_c),
        (Some(93), Some(61))
    );
    assert_eq!(
        reading.memory,
        Some(Memory {
            used_bytes: 60 << 30,
            total_bytes: 80 << 30
        })
    );
    assert_eq!(
        (reading.throttle_reasons, reading.power_limit_mw),
        (Some(4), Some(400_000))
    );
}

#[test]
fn what_is_not_supported_is_absent_and_the_rest_is_there() {
    let mut nvml =
        open("unsupported energy; unsupported utilization; unsupported memory; unsupported throttle; watts 70");
    let reading = round(&mut nvml).remove(0).expect("answers");
    assert_eq!(
        (
            reading.energy,
            reading.utilization_percent,
            reading.memory,
            reading.throttle_reasons
        ),
        (None, None, None, None)
    );
    assert_eq!((reading.power_mw, reading.temperature_c), (Some(70_000), Some(40)));
}

#[test]
fn a_lost_gpu_is_its_own_error_and_the_others_go_on() {
    let mut nvml = open("gpus 3; clock 100; gpu 1 after 2 lost");
    let uuid = nvml.gpus()[1].uuid.clone();
    round(&mut nvml);
    // It falls off in the middle of the second round: after its energy was read.
    for _ in 0..3 {
        let readings = round(&mut nvml);
        assert!(readings[0].is_ok() && readings[2].is_ok());
        assert_eq!(
            readings[1],
            Err(DeviceError::Lost {
                index: 1,
                uuid: uuid.clone()
            })
        );
    }
}

#[test]
fn a_gpu_that_was_lost_before_the_start_does_not_hide_the_others() {
    let mut nvml = open("gpus 2; gpu 0 lost");
    assert_eq!(nvml.gpus().len(), 2);
    let readings = round(&mut nvml);
    assert_eq!(
        readings[0],
        Err(DeviceError::Lost {
            index: 0,
            uuid: String::new()
        })
    );
    assert!(readings[1].is_ok());
}

#[test]
fn resets_frozen_and_coarse_counters_show_as_they_are() {
    let mut nvml = open("gpus 3; clock 50; watts 100; gpu 0 after 2 reset; gpu 1 after 2 freeze; gpu 2 quantum 100");
    assert_eq!(energies(&mut nvml, 0, 3), [Some(0), Some(5_000), Some(5_000)]);
    assert_eq!(energies(&mut nvml, 1, 2), [Some(5_000), Some(5_000)]);
    assert_eq!(energies(&mut nvml, 2, 3), [Some(20_000), Some(30_000), Some(30_000)]);
}

#[test]
fn no_driver_says_what_was_tried() {
    let error = Nvml::open(Some(Path::new("/nowhere/libnvidia-ml.so"))).expect_err("nothing there");
    assert!(error.to_string().contains("/nowhere/libnvidia-ml.so"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let library = nvml_double::install(folder.path(), "init 9").expect("built");
    let error = Nvml::open(Some(&library)).expect_err("the driver is not loaded");
    let DeviceError::NoDriver { tried } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(tried.len(), 1, "{error}");
    // Without a path both usual names are tried, unless this machine has a GPU.
    match Nvml::open(None) {
        Ok(nvml) => assert!(nvml.driver_version().is_some()),
        Err(DeviceError::NoDriver { tried }) => {
            let names: Vec<&str> = tried.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["libnvidia-ml.so.1", "libnvidia-ml.so"]);
        }
        Err(other) => panic!("{other}"),
    }
}
