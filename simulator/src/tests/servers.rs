//! Several servers behind one queue, against queueing theory: M/M/k, M/D/k and M/G/k.
//!
//! The servers are replicas that serve one request at a time, the queue is the router's: whoever has waited longest goes to
//! whichever replica is free first. Every wait is that of Kiefer and Wolfowitz's recursion over the same arrivals. The means are
//! held against
//!
//! - M/M/k: Erlang's C formula, exact (Erlang 1917);
//! - M/D/k: Crommelin's argument, exact: who is there a service time later is who was beyond the servers and who has come since
//!   (Crommelin 1932, Post Office Electrical Engineers' Journal 25);
//! - M/G/k: Lee and Longton's approximation, `(1 + cv²) / 2` times M/M/k (Lee and Longton 1959, Operational Research Quarterly
//!   10), which for M/D/k is off by what the tests below state.

use super::queueing::{first_come_first_served, mean, poisson, run_on, service_times};
use super::*;

/// Mean wait over the mean service time with `servers` exponential servers (Erlang C).
fn erlang_c(servers: u32, load: f64) -> f64 {
    let offered = f64::from(servers) * load;
    // Erlang B by its recursion, then C.
    let blocked = (1..=servers).fold(1.0, |b, k| offered * b / (f64::from(k) + offered * b));
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    waits / (f64::from(servers) * (1.0 - load))
}

/// Mean wait over the service time with `servers` servers that all take the same time (Crommelin).
fn crommelin(servers: u32, load: f64) -> f64 {
    const MOST: usize = 1500;
    let (servers, arriving) = (servers as usize, f64::from(servers) * load);
    // Arrivals in a service time, as far as they matter.
    let mut chance = (-arriving).exp();
    let arrivals: Vec<f64> = (0..60 + 4 * servers)
        .map(|count| {
            let this = chance;
            chance *= arriving / (count + 1) as f64;
            this
        })
        .collect();
    let mut there = vec![0.0; MOST];
    there[0] = 1.0;
    let mut before = -1.0;
    loop {
        let mut later = vec![0.0; MOST];
        for (count, share) in there.iter().enumerate().filter(|(_, share)| **share > 1e-18) {
            let left = count.saturating_sub(servers);
            for (come, chance) in arrivals.iter().enumerate().take(MOST - left) {
                later[left + come] += share * chance;
            }
        }
        there = later;
        let beyond = there.iter().enumerate().skip(servers);
        let waiting: f64 = beyond.map(|(count, share)| (count - servers) as f64 * share).sum();
        if (waiting - before).abs() < 1e-9 * waiting {
            return waiting / arriving;
        }
        before = waiting;
    }
}

fn lee_longton(servers: u32, load: f64, cv_squared: f64) -> f64 {
    (1.0 + cv_squared) / 2.0 * erlang_c(servers, load)
}

const REPLICA: &str = "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\ngpu = \"A30\"\nlimits = { max_num_seqs = 1 }\n";

/// Mean wait over mean service time at so many replicas, with the load and the squared coefficient of variation that came out;
/// every single wait has been compared with the recursion.
fn waits(pool: &str, servers: u32, records: &[WorkloadRecord], service: impl Fn(&WorkloadRecord) -> u64) -> [f64; 3] {
    let mut fleet = parse(&format!("{pool}count = {servers}\n"));
    // All wait at the router, and nobody gives up.
    fleet.scheduler.queue_limit = 10_000_000;
    fleet.scheduler.queue_timeout_s = 86_400.0;
    let ends = run_on(&fleet, records);
    let expected = first_come_first_served(records, servers as usize, &service);
    for (index, ((_, e2e_s), expected)) in ends.iter().zip(&expected).enumerate() {
        assert!((e2e_s - expected).abs() < 1e-6, "request {index}: {e2e_s} {expected}");
    }
    let seconds = |record: &WorkloadRecord| service(record) as f64 / 1e9;
    let mean_s = mean(records.iter().map(seconds));
    let square = mean(records.iter().map(|record| seconds(record).powi(2)));
    let last_s = records.last().expect("some").arrival.as_secs_f64();
    let load = records.len() as f64 * mean_s / (last_s * f64::from(servers));
    let wait_s = mean(
        ends.iter()
            .zip(records)
            .map(|((_, e2e_s), record)| e2e_s - seconds(record)),
    );
    [wait_s / mean_s, load, square / (mean_s * mean_s) - 1.0]
}

#[test]
fn the_formulas_are_those_of_the_tables() {
    // One server: rho / (1 - rho), and half of it.
    assert!((erlang_c(1, 0.9) - 9.0).abs() < 1e-9);
    assert!((crommelin(1, 0.9) - 4.5).abs() < 1e-4);
    // Two exponential servers: rho^2 / (1 - rho^2).
    assert!((erlang_c(2, 0.8) - 0.64 / 0.36).abs() < 1e-9);
    // How far Lee and Longton are off where the truth is known: M/D/4.
    for (load, off) in [(0.5, -0.12), (0.8, -0.04), (0.9, -0.02)] {
        let error = lee_longton(4, load, 0.0) / crommelin(4, load) - 1.0;
        assert!((error - off).abs() < 0.02, "at {load}: {error}");
    }
}

#[test]
fn exponential_service_waits_as_erlang_says() {
    // An answer's length is drawn such that its time is exponential, to half a step of some sixty in the mean.
    let service = service_times(REPLICA, 4000);
    let mean_s = service[99] as f64 / 1e9;
    let exponential = |lengths: &mut equipoise_types::RandomStream| {
        let drawn = (lengths.exponential(mean_s) * 1e9) as u64;
        let above = service.partition_point(|time| *time < drawn).min(service.len() - 1);
        let nearer = above > 0 && drawn - service[above - 1] < service[above].saturating_sub(drawn);
        u32::try_from(if nearer { above } else { above + 1 }).expect("small")
    };
    for (servers, load, requests) in [
        (1, 0.5, 200_000),
        (1, 0.9, 1_500_000),
        (4, 0.8, 400_000),
        (4, 0.9, 1_000_000),
    ] {
        let gap_s = mean_s / (load * f64::from(servers));
        let records = poisson(requests, gap_s, exponential);
        let [wait, load, cv_squared] = waits(REPLICA, servers, &records, |record| {
            service[record.output_tokens as usize - 1]
        });
        let theory = erlang_c(servers, load);
        eprintln!("M/M/{servers} at {load:.4}: {wait:.4} against {theory:.4}, cv² {cv_squared:.3}");
        assert!((cv_squared - 1.0).abs() < 0.02, "{cv_squared}");
        assert!(
            (wait / theory - 1.0).abs() < 0.02,
            "M/M/{servers} at {load}: {wait} {theory}"
        );
    }
}

#[test]
fn a_fixed_service_time_at_several_servers_waits_as_crommelin_says() {
    const BOX: &str = "[[pool]]\nname = \"a\"\nmodel = \"fam-3b\"\nservice_ms = 100\nlimits = { max_num_seqs = 1 }\n";
    for (servers, load, requests) in [
        (2, 0.9, 600_000),
        (4, 0.5, 200_000),
        (4, 0.9, 600_000),
        (16, 0.9, 600_000),
    ] {
        let records = poisson(requests, 0.1 / (load * f64::from(servers)), |_| 2);
        let [wait, load, _] = waits(BOX, servers, &records, |_| 100_000_000);
        let theory = crommelin(servers, load);
        eprintln!("M/D/{servers} at {load:.4}: {wait:.4} against {theory:.4}");
        assert!(
            (wait / theory - 1.0).abs() < 0.02,
            "M/D/{servers} at {load}: {wait} {theory}"
        );
    }
}

#[test]
fn two_kinds_of_answers_wait_as_lee_and_longton_say() {
    // One in ten is fifteen times as long: cv² of about three.
    let service = service_times(REPLICA, 300);
    let two = |lengths: &mut equipoise_types::RandomStream| if lengths.uniform() < 0.1 { 300 } else { 20 };
    let mean_s = (0.1 * service[299] as f64 + 0.9 * service[19] as f64) / 1e9;
    for (servers, load) in [(4, 0.8), (4, 0.9)] {
        let records = poisson(500_000, mean_s / (load * f64::from(servers)), two);
        let [wait, load, cv_squared] = waits(REPLICA, servers, &records, |record| {
            service[record.output_tokens as usize - 1]
        });
        let theory = lee_longton(servers, load, cv_squared);
        eprintln!("M/G/{servers} at {load:.4}, cv² {cv_squared:.2}: {wait:.4} against {theory:.4}");
        // The formula is an approximation: the recursion above says that the waits are exact.
        assert!(
            (wait / theory - 1.0).abs() < 0.08,
            "M/G/{servers} at {load}: {wait} {theory}"
        );
    }
}

/// The same requests at one replica more: the tail does not grow beyond what chance explains.
#[test]
fn a_replica_more_never_worsens_the_tail() {
    for policy in equipoise_policy::names() {
        for rate_per_s in [3.0, 12.0] {
            let records = workload(400, rate_per_s);
            let mut before = f64::INFINITY;
            for count in [1, 2, 3, 4, 6, 9] {
                let fleet = parse(&pool("a", "fam-7b", &format!("gpu = \"A30\"\ncount = {count}")));
                let result = &simulate(&fleet, &records, &one(policy)).expect("runs")[0];
                // Who is refused for want of room has waited for nothing: those count as never answered.
                let answered = result.finished as f64 / 400.0;
                let p99 = if answered > 0.99 {
                    result.e2e_s.expect("some").p99
                } else {
                    f64::INFINITY
                };
                assert!(
                    p99 <= 1.05 * before + 0.1,
                    "{policy} at {rate_per_s}/s, {count} replicas: p99 {p99} s, {before} s with fewer"
                );
                before = p99;
            }
        }
    }
}
