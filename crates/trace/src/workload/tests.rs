use super::*;
use crate::{Malformed, WorkloadGenerator, write_workload};
use proptest::prelude::*;

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
    2023-11-16 18:15:46.6805900,374,44\n\
    2023-11-16 18:15:50.9951690,396,109\n";

fn read(text: &str) -> Result<Workload, TraceError> {
    Workload::read(text.as_bytes(), "trace", &ReadOptions::default())
}

fn error_of(text: &str) -> String {
    read(text).expect_err("malformed").to_string()
}

#[test]
fn azure_arrivals_start_at_zero() {
    let workload = read(AZURE).expect("well formed");
    assert_eq!(workload.records.len(), 2);
    assert_eq!(workload.records[0].arrival, Timestamp::ZERO);
    assert_eq!(workload.records[1].arrival, Timestamp(4_314_579_000));
    assert_eq!(
        (workload.records[1].prompt_tokens, workload.records[1].output_tokens),
        (396, 109)
    );
    assert!(workload.notes.is_empty());
}

#[test]
fn marks_of_other_systems_change_nothing() {
    let other = format!("\u{feff}{}", AZURE.replace('\n', "\r\n\r\n"));
    assert_eq!(read(&other).expect("well formed"), read(AZURE).expect("well formed"));
    let no_final_line_feed = AZURE.trim_end();
    assert_eq!(
        read(no_final_line_feed).expect("well formed"),
        read(AZURE).expect("well formed")
    );
    let later_edition = "timestamp,contexttokens,generatedtokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n";
    assert_eq!(read(later_edition).expect("well formed").records[0].prompt_tokens, 2162);
}

#[test]
fn mooncake_has_blocks_and_milliseconds() {
    let workload = read("{\"timestamp\": 1500, \"input_length\": 600, \"output_length\": 0, \"hash_ids\": [0, 7]}\n")
        .expect("well formed");
    let record = &workload.records[0];
    assert_eq!(record.arrival, Timestamp(1_500_000_000));
    assert_eq!(record.prefix_blocks, Some(vec![0, 7]));
    assert_eq!(record.output_tokens, 1, "an answer has at least one token");
    assert!(workload.notes[0].contains("counted as 1"), "{:?}", workload.notes);
}

#[test]
fn what_is_out_of_order_is_sorted_and_said() {
    let swapped = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:46.6805900,374,44\n";
    let workload = read(swapped).expect("well formed");
    assert_eq!(workload.records, read(AZURE).expect("well formed").records);
    assert!(workload.notes[0].contains("sorted"), "{:?}", workload.notes);
}

#[test]
fn an_error_names_line_expectation_and_finding() {
    let negative = error_of("TIMESTAMP,ContextTokens,GeneratedTokens\n\n2023-11-16 18:15:46,374,-3\n");
    assert!(
        negative.starts_with("trace:3: expected a whole number of tokens"),
        "{negative}"
    );
    assert!(
        negative.contains("GeneratedTokens") && negative.ends_with("found `-3`"),
        "{negative}"
    );
    let short = error_of("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374\n");
    assert!(
        short.contains("trace:2: expected column 3 (GeneratedTokens)"),
        "{short}"
    );
    let time = error_of("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,374,2\n");
    assert!(time.contains("a time like") && time.contains("`yesterday`"), "{time}");
    let missing = error_of("{\"timestamp\": 0, \"input_length\": 3}\n");
    assert!(
        missing.contains("trace:1:") && missing.contains("missing field `output_length`"),
        "{missing}"
    );
    assert!(!missing.contains("at line"), "{missing}");
    let unknown = error_of("{\"arrival_s\": 0, \"prompt_tokens\": 3, \"output_tokens\": 2, \"user\": 1}\n");
    assert!(unknown.contains("unknown field `user`"), "{unknown}");
    let time = error_of("{\"arrival_s\": -1, \"prompt_tokens\": 3, \"output_tokens\": 2}\n");
    assert!(
        time.contains("`arrival_s` to be zero or more") && time.contains("-1"),
        "{time}"
    );
    assert!(error_of("<html>\n").contains("no known workload"));
    assert!(error_of("").contains("no request"));
    assert!(error_of("TIMESTAMP,ContextTokens,GeneratedTokens\n").contains("no request"));
    let absent = Workload::load(Path::new("/nonexistent.csv"), &ReadOptions::default()).expect_err("absent");
    assert!(absent.to_string().contains("/nonexistent.csv"), "{absent}");
    let folder = Workload::load(&std::env::temp_dir(), &ReadOptions::default()).expect_err("a folder");
    assert!(
        folder.to_string().ends_with("is a directory: name a file in it"),
        "{folder}"
    );
}

/// Every mistake in a line of ours: the line, and what its error must say it found.
#[test]
fn a_malformed_line_of_ours_says_what_is_wrong() {
    let good = "{\"arrival_s\": 0.5, \"prompt_tokens\": 3, \"output_tokens\": 2}";
    let cases = [
        (
            good.replace(": 3", ": -3"),
            "integer `-3`, expected a whole number from 0 to 4294967295",
        ),
        (
            good.replace(": 3", ": 3.5"),
            "floating point `3.5`, expected a whole number from 0 to 4294967295",
        ),
        (
            good.replace(": 3", ": 5000000000"),
            "integer `5000000000`, expected a whole number from 0 to 4294967295",
        ),
        (
            good.replace(": 3", ": \"3\""),
            "string \"3\", expected a whole number from 0 to 4294967295",
        ),
        (
            good.replace(": 3", ": null"),
            "null, expected a whole number from 0 to 4294967295",
        ),
        (good.replace("0.5", "\"now\""), "string \"now\", expected a number"),
        (
            good.replace("0.5", "-0.5"),
            "`arrival_s` to be zero or more, and less than thirty years, found -0.5",
        ),
        (
            good.replace("0.5", "1e12"),
            "less than thirty years, found 1000000000000",
        ),
        (good.replace("0.5", "1e999"), "number out of range"),
        (good.replace("0.5", "NaN"), "expected value (column 15)"),
        (
            good.replace(", \"output_tokens\": 2", ""),
            "missing field `output_tokens`",
        ),
        (
            good.replace("}", ", \"prompt_tokens\": 4}"),
            "duplicate field `prompt_tokens`",
        ),
        (
            good.replace("}", ", \"prefix_blocks\": [1, -1]}"),
            "integer `-1`, expected a whole number from 0 up",
        ),
        (
            good.replace("}", ", \"prefix_blocks\": 7}"),
            "integer `7`, expected a sequence",
        ),
        (good.replace("}", ", \"tenant\": 7}"), "integer `7`, expected a string"),
        (good.replace("}", ""), "EOF while parsing an object"),
        (format!("{good} {good}"), "trailing characters"),
        ("[0.5]".to_owned(), "expected a JSON object"),
        ("nonsense".to_owned(), "expected ident"),
        (
            AZURE.lines().nth(1).expect("a row").to_owned(),
            "integer `2023`, expected a JSON object",
        ),
    ];
    for (line, found) in cases {
        let text = format!("{good}\n{line}\n{good}\n");
        let error = error_of(&text);
        assert!(error.starts_with("trace:2: expected "), "{error}");
        assert!(error.contains(found), "expected `{found}` in: {error}");
        assert!(
            !error.contains("Line") && !error.contains("u32"),
            "a Rust name in: {error}"
        );
        let skipping = ReadOptions {
            malformed: Malformed::Skip,
            ..ReadOptions::default()
        };
        let workload = Workload::read(text.as_bytes(), "trace", &skipping).expect("skipped");
        assert_eq!(workload.records.len(), 2, "{line}");
        assert!(
            workload.notes[0].starts_with("1 malformed lines skipped, the first: trace:2:"),
            "{:?}",
            workload.notes
        );
    }
    let mut bytes = format!("{good}\n").into_bytes();
    bytes.extend_from_slice(b"{\"tenant\": \"\xff\"}\n");
    let error = Workload::read(bytes.as_slice(), "trace", &ReadOptions::default()).expect_err("not text");
    assert_eq!(
        error.to_string(),
        "trace:2: expected UTF-8 text, found the byte 0xff at position 13 of the line"
    );
}

#[test]
fn malformed_lines_can_be_skipped_and_are_counted() {
    let mut bytes = AZURE.as_bytes().to_vec();
    bytes.extend_from_slice(b"nonsense\n2023-11-16 18:15:51,\xff\xfe,3\n2023-11-16 18:15:52,5,6\n");
    let options = ReadOptions {
        malformed: Malformed::Skip,
        ..ReadOptions::default()
    };
    let workload = Workload::read(bytes.as_slice(), "trace", &options).expect("skipped");
    assert_eq!(workload.records.len(), 3);
    assert!(
        workload.notes[0].starts_with("2 malformed lines skipped, the first: trace:4:"),
        "{:?}",
        workload.notes
    );
    assert!(Workload::read(bytes.as_slice(), "trace", &ReadOptions::default()).is_err());
}

#[test]
fn a_limit_reads_no_further() {
    let text = format!("{AZURE}nonsense\n");
    let options = ReadOptions {
        limit: Some(2),
        ..ReadOptions::default()
    };
    assert_eq!(
        Workload::read(text.as_bytes(), "trace", &options)
            .expect("not reached")
            .records
            .len(),
        2
    );
}

#[test]
fn scaling_keeps_the_pattern() {
    let mut workload = WorkloadGenerator {
        requests: 500,
        rate_per_s: 4.0,
        ..WorkloadGenerator::default()
    }
    .generate()
    .expect("a workload");
    workload.scale_to_rate(8.0);
    let rate = workload.rate_per_s().expect("a rate");
    assert!((rate - 8.0).abs() < 1e-6, "{rate}");
    let before = workload.clone();
    workload.scale_to_rate(f64::NAN);
    assert_eq!(workload, before);
}

#[test]
fn the_published_traces_read_as_described() {
    let folder = std::env::var("EQUIPOISE_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").to_owned());
    let folder = Path::new(&folder).join("traces");
    if !folder.exists() {
        eprintln!("SKIPPED: no traces at {} (set EQUIPOISE_DATA)", folder.display());
        return;
    }
    let azure = Workload::load(&folder.join("azure_2023_conv.csv"), &ReadOptions::default()).expect("reads");
    assert_eq!(azure.records.len(), 19_366);
    let mean = azure
        .records
        .iter()
        .map(|record| f64::from(record.prompt_tokens))
        .sum::<f64>()
        / 19_366.0;
    assert!((mean - 1154.7).abs() < 0.1, "{mean}");
    let mooncake = Workload::load(&folder.join("mooncake_conversation.jsonl"), &ReadOptions::default()).expect("reads");
    assert_eq!(mooncake.records.len(), 12_031);
    assert!(mooncake.records.iter().all(|record| record.prefix_blocks.is_some()));
}

proptest! {
    #[test]
    fn our_own_format_reads_back(records in proptest::collection::vec(
        (0..4_000_000_000_000_000_u64, 1..100_000_u32, 1..5000_u32, proptest::option::of(proptest::collection::vec(any::<u64>(), 0..4)), proptest::option::of("[a-z\"\\\\ ]{0,6}"), proptest::option::of("[a-z0-9-]{0,6}")),
        1..20,
    )) {
        let mut records: Vec<WorkloadRecord> = records
            .into_iter()
            .map(|(arrival, prompt_tokens, output_tokens, prefix_blocks, tenant, prompt_id)| WorkloadRecord {
                arrival: Timestamp(arrival), prompt_tokens, output_tokens, prefix_blocks, tenant, prompt_id,
            })
            .collect();
        records.sort_by_key(|record| record.arrival);
        let mut bytes = Vec::new();
        write_workload(&mut bytes, &records).expect("a vector takes everything");
        let read = Workload::read(bytes.as_slice(), "own", &ReadOptions::default()).expect("own format");
        prop_assert_eq!(read.records, records);
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let options = ReadOptions { malformed: Malformed::Skip, ..ReadOptions::default() };
        drop(Workload::read(bytes.as_slice(), "noise", &options));
        let mut csv = b"TIMESTAMP,ContextTokens,GeneratedTokens\n".to_vec();
        csv.extend(bytes);
        drop(Workload::read(csv.as_slice(), "noise", &options));
    }
}
