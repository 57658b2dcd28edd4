//! Simulated waits against queueing theory, where that is exact.
//!
//! First come, first served, and everything from an engine that serves one request at a time: then an instance is an M/G/1
//! queue, and its wait is known (Pollaczek and Khinchine): `λ E[S²] / (2 (1 - ρ))`. With a fixed service time (M/D/1) that is
//! `ρ S / (2 (1 - ρ))`. Beside the mean, every single wait is that of Lindley's recursion over the same arrivals, or of
//! Kiefer and Wolfowitz's for several servers.

use equipoise_types::RandomStream;

use super::*;

/// Requests at the router's door, which passes everything on at once.
fn run(pools: &str, records: &[WorkloadRecord]) -> Vec<(Timestamp, f64)> {
    let mut fleet = parse(pools);
    fleet.scheduler.late_binding = false;
    run_on(&fleet, records)
}

/// Arrival and seconds end to end of every request.
pub(super) fn run_on(fleet: &FleetConfig, records: &[WorkloadRecord]) -> Vec<(Timestamp, f64)> {
    let options = SimulationOptions {
        hop_s: 0.0,
        telemetry_interval_s: 3600.0,
        ..one("round-robin")
    };
    let mut ends = vec![(Timestamp::ZERO, 0.0); records.len()];
    let mut sink = |record: &RequestRecord<'_>| {
        ends[record.id.0 as usize] = (record.arrival, record.e2e_s.expect("answered"));
    };
    let stream = records.iter().cloned().map(Ok);
    let result = simulate_stream(fleet, stream, &options, &mut sink).expect("runs");
    assert_eq!(result.finished, records.len() as u64);
    ends
}

pub(super) fn poisson(
    requests: usize,
    mean_gap_s: f64,
    mut output: impl FnMut(&mut RandomStream) -> u32,
) -> Vec<WorkloadRecord> {
    let random = RandomStream::new(11);
    let (mut gaps, mut lengths) = (random.derive("gaps"), random.derive("lengths"));
    let mut now_s = 0.0;
    let record = |_| {
        now_s += gaps.exponential(mean_gap_s);
        WorkloadRecord {
            arrival: Timestamp::from_secs_f64(now_s),
            prompt_tokens: 16,
            output_tokens: output(&mut lengths),
            ..WorkloadRecord::default()
        }
    };
    (0..requests).map(record).collect()
}

/// End-to-end seconds of every request at `servers` servers, first come, first served.
pub(super) fn first_come_first_served(
    records: &[WorkloadRecord],
    servers: usize,
    service: impl Fn(&WorkloadRecord) -> u64,
) -> Vec<f64> {
    let mut free_at = vec![0_u64; servers];
    let of = |record: &WorkloadRecord| {
        let server = free_at.iter_mut().min().expect("a server");
        *server = record.arrival.0.max(*server) + service(record);
        (*server - record.arrival.0) as f64 / 1e9
    };
    records.iter().map(of).collect()
}

/// What an answer of every length up to `most` tokens takes alone, whole nanoseconds.
pub(super) fn service_times(pool: &str, most: u32) -> Vec<u64> {
    // Requests far apart.
    let apart: Vec<WorkloadRecord> = (1..=most)
        .map(|output_tokens| WorkloadRecord {
            arrival: Timestamp::from_secs_f64(1000.0 * f64::from(output_tokens)),
            prompt_tokens: 16,
            output_tokens,
            ..WorkloadRecord::default()
        })
        .collect();
    let times = run(&format!("{pool}count = 1\n"), &apart);
    times.iter().map(|(_, e2e_s)| (e2e_s * 1e9).round() as u64).collect()
}

pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[test]
fn a_fixed_service_time_waits_as_m_d_1() {
    const SERVICE_S: f64 = 0.1;
    // Long enough that chance is less than a half of the tolerance.
    for (load, requests) in [(0.5, 100_000), (0.8, 300_000), (0.9, 1_000_000)] {
        let records = poisson(requests, SERVICE_S / load, |_| 2);
        let ends = run(
            "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\nservice_ms = 100\ncount = 1\nlimits = { max_num_seqs = 1 }\n",
            &records,
        );
        let expected = first_come_first_served(&records, 1, |_| 100_000_000);
        for ((_, e2e_s), expected) in ends.iter().zip(&expected) {
            assert!((e2e_s - expected).abs() < 1e-9, "{e2e_s} {expected}");
        }
        let wait = mean(ends.iter().map(|(_, e2e_s)| e2e_s - SERVICE_S));
        let theory = load * SERVICE_S / (2.0 * (1.0 - load));
        assert!((wait / theory - 1.0).abs() < 0.02, "at {load}: {wait} {theory}");
    }
}

#[test]
fn several_slots_wait_as_kiefer_and_wolfowitz_say() {
    let records = poisson(100_000, 0.1 / (4.0 * 0.9), |_| 2);
    let ends = run(
        "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\nservice_ms = 100\ncount = 1\nlimits = { max_num_seqs = 4 }\n",
        &records,
    );
    let expected = first_come_first_served(&records, 4, |_| 100_000_000);
    for ((_, e2e_s), expected) in ends.iter().zip(&expected) {
        // A slice that is cut is rounded to a nanosecond.
        assert!((e2e_s - expected).abs() < 1e-6, "{e2e_s} {expected}");
    }
}

#[test]
fn random_answer_lengths_wait_as_m_g_1() {
    const ENGINE: &str = "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\ngpu = \"A30\"\nlimits = { max_num_seqs = 1 }\n";
    const MOST: u32 = 1000;
    let service = service_times(ENGINE, MOST);
    let service = |record: &WorkloadRecord| service[record.output_tokens as usize - 1];
    let exponential = |lengths: &mut RandomStream| (lengths.exponential(60.0).ceil() as u32).clamp(1, MOST);
    for (load, requests) in [(0.5, 200_000), (0.9, 1_500_000)] {
        let mean_s = mean(
            poisson(requests, 1.0, exponential)
                .iter()
                .map(|record| service(record) as f64 / 1e9),
        );
        let records = poisson(requests, mean_s / load, exponential);
        let ends = run(&format!("{ENGINE}count = 1\n"), &records);
        let expected = first_come_first_served(&records, 1, service);
        for ((_, e2e_s), expected) in ends.iter().zip(&expected) {
            assert!((e2e_s - expected).abs() < 1e-9, "{e2e_s} {expected}");
        }
        let seconds = |record: &WorkloadRecord| service(record) as f64 / 1e9;
        let square = mean(records.iter().map(|record| seconds(record).powi(2)));
        let waits = ends
            .iter()
            .zip(&records)
            .map(|((_, e2e_s), record)| e2e_s - seconds(record));
        let (wait, theory) = (mean(waits), load / mean_s * square / (2.0 * (1.0 - load)));
        // Hardly less varied than an exponential service time: twice the wait of a fixed one.
        assert!(square / (mean_s * mean_s) > 1.8, "{square} {mean_s}");
        assert!((wait / theory - 1.0).abs() < 0.02, "at {load}: {wait} {theory}");
    }
}
