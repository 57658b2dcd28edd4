//! Broken files are refused, never fatal: seeded mutations of good ones.

use std::time::{Duration, Instant};

use equipoise_types::RandomStream;

use crate::ScenarioFile;

/// Files that ship, and the page's example of everything; parsed as if they lay beside the former.
pub(super) fn good_files() -> Vec<(String, String)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let folder = format!("{root}/deploy/scenarios");
    let mut files: Vec<(String, String)> = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("scenarios ship") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        files.push((path.display().to_string(), text));
    }
    let page = std::fs::read_to_string(format!("{root}/docs/scenarios.md")).expect("the page ships");
    let example = page.split("```toml").nth(1).and_then(|rest| rest.split("```").next());
    files.push((
        format!("{folder}/example.toml"),
        example.expect("an example").to_owned(),
    ));
    files.sort();
    files
}

const TOKENS: [&str; 28] = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e308",
    "1e-308",
    "-0.0",
    "18446744073709551615",
    "99999999999999999999",
    "true",
    "\"\"",
    "\"\u{0}\"",
    "[]",
    "{}",
    "[[]]",
    "''",
    "\"é\"",
    "1979-05-27",
    "0x7f",
    "[[fault]]\n",
    "[[rack]]\n",
    "[fleet]\n",
    "[[fleet.pool]]\n",
    "kind = \"slow\"\n",
    "=",
    "\n",
    "#",
];

/// A file with a few things wrong.
fn mutated(random: &mut RandomStream, text: &str, other: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len().max(1));
        let length = random.below(24).min(bytes.len() - at.min(bytes.len()));
        match random.below(7) {
            0 => {
                bytes.drain(at..at + length);
            }
            1 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            2 => {
                let byte = random.below(256) as u8;
                if let Some(there) = bytes.get_mut(at) {
                    *there = byte;
                }
            }
            3 | 4 => {
                // In place of a value: whatever stands behind the next sign of equality.
                let sign = bytes[at..]
                    .iter()
                    .position(|byte| *byte == b'=')
                    .map_or(at, |sign| at + sign + 1);
                let end = bytes[sign..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(bytes.len(), |end| sign + end);
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(sign.min(bytes.len())..end, token.bytes());
            }
            5 => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), token.bytes());
            }
            _ => {
                let lines: Vec<&str> = other.lines().collect();
                let line = lines[random.below(lines.len())];
                let newline = bytes
                    .iter()
                    .skip(at)
                    .position(|byte| *byte == b'\n')
                    .map_or(bytes.len(), |end| at + end);
                bytes.splice(newline..newline, format!("\n{line}").bytes());
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_broken_file_is_refused_with_its_place() {
    let files = good_files();
    let span = std::env::var("EQUIPOISE_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let until = span.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut tried, mut refused) = (0_u64, 0_u64);
    while until.map_or(tried < 4000, |until| Instant::now() < until) {
        let mut random = RandomStream::new(tried).derive("scenario files");
        let (origin, text) = &files[random.below(files.len())];
        let (_, other) = &files[random.below(files.len())];
        let broken = mutated(&mut random, text, other);
        tried += 1;
        if let Err(error) = ScenarioFile::parse(&broken, origin) {
            refused += 1;
            let said = error.to_string();
            assert!(!said.is_empty() && said.contains(".toml:"), "{said}");
        }
    }
    assert!(refused > tried / 2, "{refused} of {tried}");
    eprintln!("{tried} scenario files, {refused} refused");
}
