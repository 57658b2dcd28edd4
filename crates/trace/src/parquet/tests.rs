use super::*;
use crate::{ReadOptions, TraceError, WorkloadFormat, WorkloadReader, WorkloadRecord, WorkloadWriter};
use equipoise_types::Timestamp;
use proptest::prelude::*;

fn write(records: &[WorkloadRecord]) -> Vec<u8> {
    let mut writer = WorkloadWriter::new(Vec::new(), "own", WorkloadFormat::Parquet).expect("a vector");
    for record in records {
        writer.write(record.clone()).expect("a vector takes everything");
    }
    writer.finish().expect("a vector takes everything")
}

fn read(bytes: &[u8]) -> Result<Vec<WorkloadRecord>, TraceError> {
    WorkloadReader::new(bytes, "own", &ReadOptions::default())?.collect()
}

fn record(index: u64) -> WorkloadRecord {
    WorkloadRecord {
        arrival: Timestamp(index * 1_234_567),
        prompt_tokens: 1 + (index % 977) as u32,
        output_tokens: 1 + (index % 31) as u32,
        prefix_blocks: (!index.is_multiple_of(3)).then(|| (0..index % 4).collect()),
        tenant: index.is_multiple_of(2).then(|| format!("tenant {}", index % 5)),
        prompt_id: index.is_multiple_of(7).then(|| format!("prompt-{index}")),
    }
}

#[test]
fn several_row_groups_read_back_and_the_bytes_are_always_the_same() {
    let records: Vec<_> = (0..ROW_GROUP_REQUESTS as u64 * 2 + 77).map(record).collect();
    let bytes = write(&records);
    assert_eq!(read(&bytes).expect("our own file"), records);
    assert_eq!(write(&records), bytes);
}

#[test]
fn what_is_no_workload_says_so() {
    let bytes = write(&[record(1)]);
    let error = read(&bytes[..bytes.len() - 9]).expect_err("cut off").to_string();
    assert!(error.starts_with("own: this Parquet file cannot be read"), "{error}");
    let schema = parquet::schema::parser::parse_message_type("message other { required int32 x; }").expect("a schema");
    let other = parquet::file::writer::SerializedFileWriter::new(Vec::new(), schema.into(), Default::default())
        .and_then(parquet::file::writer::SerializedFileWriter::into_inner)
        .expect("a vector takes everything");
    let error = read(&other).expect_err("other columns").to_string();
    assert!(
        error.contains("no column `arrival_ns`") && error.contains("`x`"),
        "{error}"
    );
    assert!(read(&write(&[])).expect("an empty file").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost(records in proptest::collection::vec(
        (
            0..1_000_000_000_000_000_000_u64, 1..u32::MAX, 1..u32::MAX,
            proptest::option::of(proptest::collection::vec(any::<u64>(), 0..5)),
            proptest::option::of(".{0,6}"), proptest::option::of("[a-z]{0,3}"),
        ),
        1..40,
    )) {
        let mut records: Vec<WorkloadRecord> = records
            .into_iter()
            .map(|(arrival, prompt_tokens, output_tokens, prefix_blocks, tenant, prompt_id)| WorkloadRecord {
                arrival: Timestamp(arrival), prompt_tokens, output_tokens, prefix_blocks, tenant, prompt_id,
            })
            .collect();
        records.sort_by_key(|record| record.arrival);
        prop_assert_eq!(read(&write(&records)).expect("our own file"), records);
    }

    #[test]
    fn a_broken_file_is_an_error_and_no_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let records: Vec<_> = (0..40).map(record).collect();
        let mut bytes = write(&records);
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        drop(read(&bytes));
    }
}
