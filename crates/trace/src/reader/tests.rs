use super::*;
use proptest::prelude::*;
use std::io::Write as _;

const BURST: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
    5,ChatGPT,472,18,490,Conversation log\n\
    45.5,GPT-4,1087,230,1317,API log\n\
    50,ChatGPT,0,0,0,Conversation log\n";

fn stream(text: &str, window: usize) -> Vec<Result<WorkloadRecord, TraceError>> {
    let options = ReadOptions {
        window,
        ..ReadOptions::default()
    };
    let reader = WorkloadReader::new(text.as_bytes(), "trace", &options).expect("a known format");
    reader.collect()
}

fn line(arrival_s: u64) -> String {
    format!("{{\"arrival_s\": {arrival_s}, \"prompt_tokens\": 3, \"output_tokens\": 2}}\n")
}

#[test]
fn burst_gpt_has_seconds_and_leaves_out_what_failed() {
    let mut reader = WorkloadReader::new(BURST.as_bytes(), "trace", &ReadOptions::default()).expect("known");
    assert_eq!(reader.format(), WorkloadFormat::BurstGptCsv);
    let records: Vec<_> = reader.by_ref().map(|record| record.expect("well formed")).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].arrival, Timestamp(5_000_000_000));
    assert_eq!(records[1].arrival, Timestamp(45_500_000_000));
    assert_eq!((records[1].prompt_tokens, records[1].output_tokens), (1087, 230));
    assert_eq!(reader.notes(), ["1 failed requests (0 response tokens) left out"]);
    let second_release = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
        7,abc,1.5,GPT-4,12,34,46,Conversation log\n";
    let records = stream(second_release, 8);
    assert_eq!(records[0].as_ref().expect("well formed").output_tokens, 34);
    let error = stream(&BURST.replace("45.5", "noon"), 0)[1]
        .as_ref()
        .expect_err("no time")
        .to_string();
    assert!(
        error.starts_with("trace:3: expected seconds") && error.ends_with("found `noon`"),
        "{error}"
    );
}

#[test]
fn what_is_a_little_out_of_order_is_put_right_within_the_window() {
    let text: String = [3, 1, 2, 5, 4, 6].map(line).concat();
    let arrivals: Vec<u64> = stream(&text, 2)
        .into_iter()
        .map(|record| record.expect("in reach").arrival.0 / 1_000_000_000)
        .collect();
    assert_eq!(arrivals, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_is_far_out_of_order_is_refused_and_says_what_to_do() {
    let text: String = [10, 11, 12, 13, 1, 14].map(line).concat();
    let items = stream(&text, 2);
    let error = items
        .last()
        .expect("something")
        .as_ref()
        .expect_err("too late")
        .to_string();
    assert!(
        error.contains(":5: request 5 arrives 10 s before") && error.contains("--sort"),
        "{error}"
    );
    assert!(stream(&text, 5).iter().all(Result::is_ok), "a larger window reaches it");
}

#[test]
fn a_date_makes_the_earliest_request_the_start() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2024-05-10 00:00:01.5+00:00,396,109\n2024-05-10 00:00:00.009930+00:00,374,44\n";
    let records = stream(text, 8);
    let arrivals: Vec<Timestamp> = records
        .iter()
        .map(|record| record.as_ref().expect("read").arrival)
        .collect();
    assert_eq!(arrivals, [Timestamp::ZERO, Timestamp(1_490_070_000)]);
}

#[test]
fn gzip_is_read_whatever_its_name() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(BURST.as_bytes()).expect("a vector takes everything");
    let packed = encoder.finish().expect("a vector takes everything");
    let records: Vec<_> = WorkloadReader::new(packed.as_slice(), "trace", &ReadOptions::default())
        .expect("known")
        .map(|record| record.expect("well formed"))
        .collect();
    assert_eq!(records.len(), 2);
    // Cut off in the middle: an error, no panic and no silence.
    let cut = &packed[..packed.len() / 2];
    let broken = WorkloadReader::new(cut, "trace", &ReadOptions::default())
        .and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
    assert!(broken.is_err());
}

#[test]
fn no_more_than_the_window_is_read_ahead() {
    // The second line is malformed: a window of one reads it before it lets the first request go.
    let text = format!("{}nonsense\n{}", line(1), line(2));
    let items = stream(&text, 0);
    assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

/// A small file of every format that is text.
fn samples() -> Vec<(WorkloadFormat, String)> {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n";
    let mooncake = "{\"timestamp\": 1500, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [0, 7]}\n";
    let vllm =
        "{\"input_lens\": [20, 300], \"output_lens\": [5, 60], \"start_times\": [1.5, 2.5], \"errors\": [\"\", \"\"]}";
    let guidellm = "{\"benchmarks\": [{\"requests\": {\"successful\": [{\"start_time\": 1.0, \"prompt_tokens\": 1, \
                    \"output_tokens\": 2}]}}]}";
    vec![
        (WorkloadFormat::AzureCsv, azure.to_owned()),
        (WorkloadFormat::BurstGptCsv, BURST.to_owned()),
        (WorkloadFormat::MooncakeJsonl, mooncake.to_owned()),
        (WorkloadFormat::EquipoiseJsonl, line(3)),
        (WorkloadFormat::VllmJson, vllm.to_owned()),
        (WorkloadFormat::GuidellmJson, guidellm.to_owned()),
    ]
}

/// Reads as far as it goes, in every way.
fn read_anything(bytes: &[u8], format: Option<WorkloadFormat>) {
    for malformed in [Malformed::Fail, Malformed::Skip] {
        let options = ReadOptions {
            format,
            malformed,
            window: 3,
            ..ReadOptions::default()
        };
        if let Ok(reader) = WorkloadReader::new(bytes, "noise", &options) {
            // An error that comes for ever would hang here.
            assert!(reader.take(10_000).count() < 10_000);
        }
    }
}

#[test]
fn every_sample_is_told_by_its_first_bytes() {
    for (format, text) in samples() {
        let mut reader = WorkloadReader::new(text.as_bytes(), "sample", &ReadOptions::default()).expect("known");
        assert_eq!(reader.format(), format);
        assert!(reader.by_ref().all(|record| record.is_ok()), "{format}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_in_any_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_anything(&bytes, None);
        for format in WorkloadFormat::ALL {
            read_anything(&bytes, Some(format));
        }
        let gzip = [b"\x1f\x8b\x08\x00".as_slice(), &bytes].concat();
        read_anything(&gzip, None);
    }

    #[test]
    fn damaged_files_never_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (_, text) = which.get(&samples()).clone();
        let mut bytes = text.into_bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        read_anything(&bytes, None);
    }
}
