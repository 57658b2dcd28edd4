use super::*;
use crate::{ReadOptions, WorkloadReader, WorkloadRecord};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

const TRACE: &str = "0,0,0,,0,0\n600,2.5,3.0,Gamma,0.11,3.6\n1200,0.5,1.4,Weibull,0.7,1.6\n1800,0,0,,0,0\n";
const DATASET: &str = r#"{"0": {"input_tokens": "{}", "output_tokens": "{}"},
    "600": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{7: 1.0}", "reason_ratio": "{0.5: 1.0}"}}"#;

/// A tar archive of files, as `tar --format=ustar` makes it.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend(header);
        archive.extend(content.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn set(files: &[(&str, &str)]) -> Result<ServeGenClients, TraceError> {
    ServeGenClients::read_tar(tar(files).as_slice(), "set")
}

fn two() -> ServeGenClients {
    set(&[
        ("m/chunk-3-trace.csv", TRACE),
        ("m/chunk-3-dataset.json", DATASET),
        ("m/README", "hello"),
        ("m/chunk-10-dataset.json", DATASET),
        ("m/chunk-10-trace.csv", "0,1.0,1.0,Gamma,1.0,1.0\n600,0,0,,0,0\n"),
    ])
    .expect("well formed")
}

fn requests(set: &ServeGenClients, options: &ServeGenOptions) -> Vec<WorkloadRecord> {
    let requests = ServeGenRequests::new(Arc::new(set.clone()), options).expect("in range");
    requests.collect()
}

#[test]
fn a_set_is_read_from_an_archive_and_sends_what_its_rates_say() {
    let set = two();
    assert_eq!((set.count(), set.end_s()), (2, 2400.0));
    assert!((set.requests_between(0.0, 1e9) - 2400.0).abs() < 1e-9);
    let records = requests(&set, &ServeGenOptions::default());
    assert_eq!(records.len(), 2400);
    assert!(records.windows(2).all(|pair| pair[0].arrival <= pair[1].arrival));
    let of = |tenant: &str| -> Vec<&WorkloadRecord> {
        records
            .iter()
            .filter(|record| record.tenant.as_deref() == Some(tenant))
            .collect()
    };
    assert_eq!((of("client-3").len(), of("client-10").len()), (1800, 600));
    let second_window = of("client-3")
        .iter()
        .filter(|record| record.arrival.as_secs_f64() >= 1200.0)
        .count();
    assert_eq!(second_window, 300);
    assert!(records.iter().all(|record| record.output_tokens == 7));
    let long = records.iter().filter(|record| record.prompt_tokens == 300).count() as f64;
    assert!((long / 1200.0 - 1.0).abs() < 0.1, "{long}");
}

#[test]
fn time_and_rate_can_be_chosen_and_keep_who_sends_when() {
    let set = two();
    let options = ServeGenOptions {
        start_s: 300.0,
        duration_s: Some(600.0),
        rate_per_s: Some(0.5),
        seed: 9,
    };
    let records = requests(&set, &options);
    // Client 10 sends 300 of the recorded 1,050, client 3 the other 750; all 300 are asked for. Fractions by chance.
    let of_ten = records
        .iter()
        .filter(|record| record.tenant.as_deref() == Some("client-10"))
        .count();
    assert!(
        (299..=301).contains(&records.len()) && (85..=86).contains(&of_ten),
        "{} {of_ten}",
        records.len()
    );
    assert_eq!(requests(&set, &options), records, "same seed, same requests");
    let other = ServeGenOptions { seed: 10, ..options };
    assert_ne!(requests(&set, &other), records);
    let refused = |options: &ServeGenOptions| {
        ServeGenRequests::new(Arc::new(set.clone()), options)
            .expect_err("impossible")
            .to_string()
    };
    let late = ServeGenOptions {
        start_s: 2500.0,
        ..ServeGenOptions::default()
    };
    assert!(refused(&late).contains("recorded from 0 to 2400 s"));
    let silent = ServeGenOptions {
        start_s: 1900.0,
        ..ServeGenOptions::default()
    };
    assert!(refused(&silent).contains("no client sends"));
    let wild = ServeGenOptions {
        rate_per_s: Some(f64::NAN),
        ..ServeGenOptions::default()
    };
    assert!(refused(&wild).contains("the rate"));
}

#[test]
fn what_is_wrong_with_a_set_is_named() {
    let error = |files: &[(&str, &str)]| set(files).expect_err("malformed").to_string();
    let with_trace = |trace: &str| error(&[("chunk-1-trace.csv", trace), ("chunk-1-dataset.json", DATASET)]);
    assert!(error(&[("README", "")]).contains("no file `chunk-N-trace.csv`"));
    assert!(error(&[("chunk-1-trace.csv", TRACE)]).contains("found no dataset"));
    let bad = with_trace(&TRACE.replace("Weibull", "Pareto"));
    assert!(
        bad.starts_with("set: chunk-1-trace.csv:3: expected six fields"),
        "{bad}"
    );
    assert!(with_trace(&TRACE.replace("0.11", "0")).contains("chunk-1-trace.csv:2:"));
    assert!(with_trace(&TRACE.replace("1200", "600")).contains("in order of time"));
    assert!(with_trace("0,1.0,1.0,,0,0\n").contains("a family where the rate is not zero"));
    let with_dataset = |dataset: &str| error(&[("chunk-1-trace.csv", TRACE), ("chunk-1-dataset.json", dataset)]);
    assert!(with_dataset("{\"0\": {}}").contains("no `input_tokens`"));
    assert!(with_dataset(&DATASET.replace("{7: 1.0}", "{7: -1.0}")).contains("output_tokens in the window from 600 s"));
    assert!(with_dataset("{}").contains("no histogram"));
    assert!(with_dataset("[").contains("set: chunk-1-dataset.json:1:"));
    let archive = tar(&[("chunk-1-trace.csv", TRACE)]);
    let cut = ServeGenClients::read_tar(&archive[..600], "set")
        .expect_err("cut off")
        .to_string();
    assert!(cut.contains("set:"), "{cut}");
    let mut wrong = archive;
    wrong[0] = b'd';
    let wrong = ServeGenClients::read_tar(wrong.as_slice(), "set")
        .expect_err("checksum")
        .to_string();
    assert!(wrong.contains("a header that is none"), "{wrong}");
}

fn published() -> Option<PathBuf> {
    let folder = std::env::var("EQUIPOISE_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").to_owned());
    let file = Path::new(&folder).join("traces/servegen_deepseek_r1.tar.gz");
    if !file.exists() {
        eprintln!("SKIPPED: no {} (set EQUIPOISE_DATA)", file.display());
        return None;
    }
    Some(file)
}

/// What a client did, or should.
#[derive(Default)]
struct Tally {
    requests: f64,
    input: f64,
    output: f64,
}

/// Sample coefficient of variation of the gaps between times.
fn cv_of_gaps(times_s: &[f64]) -> f64 {
    let gaps: Vec<f64> = times_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    variance.sqrt() / mean
}

/// Every client's rate and mean lengths against its files; the coefficients of variation are said, see `docs/traces.md`.
#[test]
fn the_published_clients_send_as_their_files_say() {
    let Some(file) = published() else { return };
    let stream = flate2::read::MultiGzDecoder::new(std::fs::File::open(&file).expect("it is there"));
    let set = ServeGenClients::read_tar(std::io::BufReader::new(stream), "set").expect("well formed");
    assert_eq!((set.count(), set.end_s()), (73, 86_400.0));
    let mut expected: BTreeMap<String, Tally> = BTreeMap::new();
    for client in &set.clients {
        let tally = expected.entry(format!("client-{}", client.id)).or_default();
        for window in &client.windows {
            let requests = window.rate_per_s * (window.end_s - window.start_s);
            let lengths = client.lengths_at(window.start_s);
            tally.requests += requests;
            tally.input += requests * lengths.input.mean();
            tally.output += requests * lengths.output.mean();
        }
    }
    let mut seen: BTreeMap<String, Tally> = BTreeMap::new();
    let mut times: BTreeMap<(String, u64), Vec<f64>> = BTreeMap::new();
    let reader = WorkloadReader::open(&file, &ReadOptions::default()).expect("well formed");
    let mut last = equipoise_types::Timestamp::ZERO;
    for record in reader {
        let record = record.expect("generated");
        assert!(record.arrival >= last);
        last = record.arrival;
        let tenant = record.tenant.expect("a client");
        let window = record.arrival.0 / 600_000_000_000;
        times
            .entry((tenant.clone(), window))
            .or_default()
            .push(record.arrival.as_secs_f64());
        let tally = seen.entry(tenant).or_default();
        tally.requests += 1.0;
        tally.input += f64::from(record.prompt_tokens);
        tally.output += f64::from(record.output_tokens);
    }
    assert_eq!(
        seen.len(),
        expected.values().filter(|tally| tally.requests > 0.0).count()
    );
    let (mut worst_input, mut worst_output) = (0.0_f64, 0.0_f64);
    for (tenant, seen) in &seen {
        let expected = &expected[tenant];
        assert!(
            (seen.requests - expected.requests).abs() < 2.0,
            "{tenant}: {}",
            seen.requests
        );
        let input = (seen.input / seen.requests) / (expected.input / expected.requests) - 1.0;
        let output = (seen.output / seen.requests) / (expected.output / expected.requests) - 1.0;
        if seen.requests >= 1000.0 {
            worst_input = worst_input.max(input.abs());
            worst_output = worst_output.max(output.abs());
        }
    }
    eprintln!(
        "clients of 1,000 requests and more: mean input off by at most {:.2} %, output {:.2} %",
        100.0 * worst_input,
        100.0 * worst_output
    );
    assert!(
        worst_input < 0.15 && worst_output < 0.10,
        "{worst_input} {worst_output}"
    );
    for (low, high) in [(0.0, 0.7), (0.7, 1.2), (1.2, 2.0), (2.0, 4.0), (4.0, 30.0)] {
        for is_gamma in [true, false] {
            let (mut windows, mut asked, mut got) = (0.0, 0.0, 0.0);
            for client in &set.clients {
                for window in client.windows.iter().filter(|window| (low..high).contains(&window.cv)) {
                    let key = (format!("client-{}", client.id), (window.start_s / 600.0) as u64);
                    let Some(times) = times.get(&key).filter(|times| times.len() >= 100) else {
                        continue;
                    };
                    if matches!(window.gaps, Family::Gamma(_)) == is_gamma {
                        windows += 1.0;
                        asked += window.cv * window.cv;
                        got += cv_of_gaps(times).powi(2);
                    }
                }
            }
            let family = if is_gamma { "Gamma" } else { "Weibull" };
            let (asked, got) = ((asked / windows).sqrt(), (got / windows).sqrt());
            eprintln!(
                "{family}, cv {low} to {high}: {windows} windows of 100 requests and more, file {asked:.2}, generated {got:.2}"
            );
            assert!(
                !is_gamma || windows == 0.0 || (got / asked - 1.0).abs() < 0.12,
                "{asked} {got}"
            );
        }
    }
}
