//! Workload files that are broken in random ways: no reader panics, what it leaves out it counts, and what it stops at it
//! names.
//!
//! Bounded and seeded; `EQUIPOISE_FUZZ_SECONDS` lets it run for so long with seeds of its own.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::{Malformed, ReadOptions, TraceError, WorkloadFormat, WorkloadReader, WorkloadRecord, WorkloadWriter};
use equipoise_types::{RandomStream, Timestamp};

/// Broken versions of each format that every run of the tests reads.
const TIMES: u64 = 400;
/// More requests than that are not read of one file: what is generated may have no end.
const MOST_REQUESTS: usize = 2000;

/// A small and valid file of each format.
fn whole_files() -> Vec<(WorkloadFormat, Vec<u8>)> {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n\
                 2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:51.2225670,879,55\n";
    let burst_gpt = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n\
                     45,ChatGPT,1087,230,1317,Conversation log\n118,GPT-4,417,276,693,API log\n";
    let mooncake = "{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1, 2]}\n\
                    {\"timestamp\": 27, \"input_length\": 7319, \"output_length\": 490, \"hash_ids\": [0, 14]}\n";
    let ours = "{\"arrival_s\": 0.5, \"prompt_tokens\": 12, \"output_tokens\": 3, \"prefix_blocks\": [1, 2], \"tenant\": \"a\"}\n\
                {\"arrival_s\": 1.25, \"prompt_tokens\": 120, \"output_tokens\": 30, \"prompt_id\": \"p\"}\n";
    let vllm =
        "{\"input_lens\": [20, 300], \"output_lens\": [5, 60], \"start_times\": [1.5, 2.5], \"errors\": [\"\", \"\"]}";
    let guidellm = "{\"benchmarks\": [{\"requests\": {\"successful\": [{\"start_time\": 1.0, \"prompt_tokens\": 10, \
                    \"output_tokens\": 2}], \"incomplete\": [], \"errored\": []}}], \"metadata\": {}, \"args\": {}}";
    let text = [
        (WorkloadFormat::AzureCsv, azure),
        (WorkloadFormat::BurstGptCsv, burst_gpt),
        (WorkloadFormat::MooncakeJsonl, mooncake),
        (WorkloadFormat::EquipoiseJsonl, ours),
        (WorkloadFormat::VllmJson, vllm),
        (WorkloadFormat::GuidellmJson, guidellm),
    ];
    let mut files: Vec<_> = text
        .into_iter()
        .map(|(format, text)| (format, text.as_bytes().to_vec()))
        .collect();
    files.push((WorkloadFormat::Parquet, parquet()));
    files.push((WorkloadFormat::ServeGen, serve_gen()));
    files
}

fn parquet() -> Vec<u8> {
    let mut writer = WorkloadWriter::new(Cursor::new(Vec::new()), "fuzz", WorkloadFormat::Parquet).expect("writes");
    for index in 0..20_u32 {
        let record = WorkloadRecord {
            arrival: Timestamp(u64::from(index) * 1_000_000),
            prompt_tokens: 10 + index,
            output_tokens: 5,
            prefix_blocks: index.is_multiple_of(2).then(|| vec![u64::from(index), 7]),
            tenant: index.is_multiple_of(3).then(|| "t".to_owned()),
            ..WorkloadRecord::default()
        };
        writer.write(record).expect("writes");
    }
    writer.finish().expect("writes").into_inner()
}

/// A tar archive of one client.
fn serve_gen() -> Vec<u8> {
    let mut tar = Vec::new();
    let files = [
        (
            "chunk-0-trace.csv",
            "0,2.5,1.2,Gamma,0.8,0.5\n600,1.0,0.9,Weibull,1.1,0.9\n",
        ),
        (
            "chunk-0-dataset.json",
            "{\"0\": {\"input_tokens\": \"{10: 0.5, 200: 0.5}\", \"output_tokens\": \"{5: 0.25, 50: 0.75}\"}}",
        ),
    ];
    for (name, text) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", text.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend(header);
        tar.extend(text.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Bits, stretches, numbers and lines that are not what they were.
fn broken(random: &mut RandomStream, whole: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"-1",
        b"1e999",
        b"NaN",
        b"18446744073709551616",
        b"4294967296",
        b"0",
        b"\"",
        b"{",
        b"]",
        b",",
        b"\n",
        b"\xff\xfe",
        b"9999-99-99 99:99:99",
        b"1e308",
    ];
    let mut bytes = whole.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            4 => drop(bytes.splice(at..end, WORDS[random.below(WORDS.len())].iter().copied())),
            5 => {
                let again = bytes[at..].to_vec();
                bytes.extend(again);
            }
            _ => {
                let digit = |byte: &&mut u8| byte.is_ascii_digit();
                let nth = random.below(1 + bytes.len() / 4);
                if let Some(byte) = bytes.iter_mut().filter(digit).nth(nth) {
                    *byte = b'0' + random.below(10) as u8;
                }
            }
        }
    }
    bytes
}

/// Reads all of it, as its own format or as its first bytes tell.
fn read(
    bytes: &[u8],
    format: Option<WorkloadFormat>,
    malformed: Malformed,
) -> Result<(usize, Vec<String>), TraceError> {
    let options = ReadOptions {
        format,
        malformed,
        limit: Some(MOST_REQUESTS),
        ..ReadOptions::default()
    };
    let mut reader = WorkloadReader::new(bytes, "fuzz", &options)?;
    let mut count = 0;
    let mut before = Timestamp::ZERO;
    for record in reader.by_ref() {
        let record = record?;
        assert!(record.prompt_tokens > 0 && record.output_tokens > 0);
        assert!(record.arrival >= before, "in order");
        before = record.arrival;
        count += 1;
    }
    Ok((count, reader.notes()))
}

/// One broken file. How its lines fared: skipped, or named in an error.
fn try_one(seed: u64, format: WorkloadFormat, whole: &[u8]) -> (u64, u64) {
    let mut random = RandomStream::new(seed).derive(format.name());
    let bytes = broken(&mut random, whole);
    let asked = (random.below(4) > 0).then_some(format);
    let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
    let (mut skipped, mut named) = (0, 0);
    for malformed in [Malformed::Skip, Malformed::Fail] {
        match read(&bytes, asked, malformed) {
            Ok((_, notes)) => skipped += u64::from(notes.iter().any(|note| note.contains("skipped"))),
            Err(TraceError::Malformed { line, .. }) => {
                // A line of the text, or a client's.
                assert!(line <= lines.max(bytes.len() as u64), "line {line} of {lines}");
                named += u64::from(line > 0);
            }
            Err(error) => assert!(error.to_string().len() < 2000),
        }
    }
    (skipped, named)
}

#[test]
fn broken_workloads_are_refused_and_never_panic() {
    let files = whole_files();
    for (format, whole) in &files {
        let (count, notes) = read(whole, None, Malformed::Fail).expect("a valid file");
        assert!(
            count > 0 && notes.iter().all(|note| !note.contains("skipped")),
            "{format}"
        );
    }
    let seconds = std::env::var("EQUIPOISE_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let goes_on = |seed: u64| deadline.map_or(seed < TIMES, |deadline| Instant::now() < deadline);
    let (mut seed, mut skipped, mut named) = (0, 0, 0);
    while goes_on(seed) {
        for (format, whole) in &files {
            let tried = catch_unwind(AssertUnwindSafe(|| try_one(seed, *format, whole)));
            let Ok((some, more)) = tried else {
                panic!("{format}, seed {seed}: a reader panicked")
            };
            skipped += some;
            named += more;
        }
        seed += 1;
    }
    eprintln!(
        "{seed} broken files of each of {} formats: {skipped} with lines skipped, {named} refused by line",
        files.len()
    );
    assert!(skipped > 100 && named > 100, "{skipped} {named}");
}
