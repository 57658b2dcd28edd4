use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn put(dir: &Path, name: &str, text: &str) {
    let mut encoder = GzEncoder::new(File::create(dir.join(name)).expect("creates"), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("writes");
    encoder.finish().expect("finishes");
}

const ZEROEVAL_PROMPTS: &str = "{\"prompt_id\":\"a#1\",\"task\":\"gsm\",\"prompt\":\"1+1?\",\"gold\":\"2\"}\n";

#[test]
fn zeroeval_is_read_with_its_blanks() {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path(), "zeroeval_prompts.jsonl.gz", ZEROEVAL_PROMPTS);
    put(
        dir.path(),
        "zeroeval_labels.csv.gz",
        "task,prompt_id,small|correct,large|correct,small|chars,large|chars\ngsm,a#1,1,,234.0,\n",
    );
    let set = GradedSet::read(GradedFormat::ZeroEval, dir.path()).expect("reads");
    assert_eq!(set.models, ["small", "large"]);
    assert_eq!(
        set.prompts,
        [GradedPrompt {
            id: "a#1".into(),
            task: "gsm".into(),
            text: "1+1?".into(),
            scores: vec![Some(1.0), None],
            output_chars: vec![Some(234), None],
        }]
    );
}

#[test]
fn mmlu_pro_is_a_question_with_lettered_options() {
    let dir = tempfile::tempdir().expect("a folder");
    put(
        dir.path(),
        "mmlu_pro_prompts.jsonl.gz",
        "{\"question_id\":7,\"category\":\"law\",\"question\":\" Who? \",\"options\":[\"me\",\"you\"]}\n",
    );
    put(dir.path(), "mmlu_pro_correct.csv.gz", "question_id,M1,M2\n7,0,1\n");
    put(
        dir.path(),
        "mmlu_pro_output_chars.csv.gz",
        "question_id,M2,M1\n7,20,10\n",
    );
    let set = GradedSet::read(GradedFormat::MmluPro, dir.path()).expect("reads");
    let prompt = &set.prompts[0];
    assert_eq!(prompt.text, "Who?\nA. me\nB. you");
    assert_eq!(prompt.scores, [Some(0.0), Some(1.0)]);
    assert_eq!(prompt.output_chars, [Some(10), Some(20)]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    put(dir.path(), "zeroeval_prompts.jsonl.gz", ZEROEVAL_PROMPTS);
    for (row, complaint) in [
        ("gsm,b#9,1,5", "zeroeval_labels.csv.gz:2: expected the id of a prompt"),
        ("gsm,a#1,2,5", "expected a score from 0 to 1"),
        ("gsm,a#1,1,-5", "expected a whole number of characters"),
        ("gsm,a#1,1", "expected 4 fields"),
    ] {
        put(
            dir.path(),
            "zeroeval_labels.csv.gz",
            &format!("task,prompt_id,m|correct,m|chars\n{row}\n"),
        );
        let error = GradedSet::read(GradedFormat::ZeroEval, dir.path())
            .expect_err(row)
            .to_string();
        assert!(error.contains(complaint), "{row}: {error}");
    }
}

/// The published sets, where they are at hand.
fn data() -> Option<PathBuf> {
    let root = std::env::var_os("EQUIPOISE_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let dir = root.join("quality");
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!(
        "SKIPPED: no graded prompts in {}; set EQUIPOISE_DATA to the folder that holds quality/",
        dir.display()
    );
    None
}

#[test]
fn the_published_sets_are_read_whole() {
    let Some(dir) = data() else { return };
    let zeroeval = GradedSet::read(GradedFormat::ZeroEval, &dir).expect("reads");
    assert_eq!((zeroeval.prompts.len(), zeroeval.models.len()), (1979, 21));
    let mean = zeroeval
        .prompts
        .iter()
        .filter_map(|prompt| prompt.scores[0])
        .sum::<f64>()
        / 1979.0;
    assert!((mean - 0.313).abs() < 0.001, "gemma-2-2b: {mean}");
    let mmlu_pro = GradedSet::read(GradedFormat::MmluPro, &dir).expect("reads");
    assert_eq!((mmlu_pro.prompts.len(), mmlu_pro.models.len()), (8377, 33));
}
