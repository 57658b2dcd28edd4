//! Graded prompts: texts, and per model whether its answer was good and how long it was.
//!
//! Two published sets are read, in the form in which this project keeps them: JSON lines of prompts and CSV tables of
//! labels, gzip-compressed (a name that does not end in `.gz` is read as it is). Both fit in memory by a wide margin.

mod mmlu_pro;
mod table;
mod zeroeval;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;

use crate::TraceError;
use crate::error::{excerpt, json_reason};
use crate::lines::Lines;

/// Prompts that several models answered.
#[derive(Clone, Debug, PartialEq)]
pub struct GradedSet {
    /// The models' names as the set spells them, in its order; base checkpoints of MMLU-Pro end in `-base`.
    pub models: Vec<String>,
    /// The prompts, in the order of the label table.
    pub prompts: Vec<GradedPrompt>,
}

/// One prompt and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct GradedPrompt {
    /// Unique in its set.
    pub id: String,
    /// The kind of prompt: ZeroEval's task, MMLU-Pro's category.
    pub task: String,
    /// What the models were asked.
    pub text: String,
    /// Per model, in the order of [`GradedSet::models`]: how good the answer was, in [0, 1]; `None` if it was not run.
    pub scores: Vec<Option<f64>>,
    /// Per model: length of the answer in characters; `None` if unknown.
    pub output_chars: Vec<Option<u32>>,
}

/// Which published set to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradedFormat {
    /// `zeroeval_prompts.jsonl.gz`, `zeroeval_labels.csv.gz` (WildEval/ZeroEval, Apache-2.0).
    ZeroEval,
    /// `mmlu_pro_prompts.jsonl.gz`, `mmlu_pro_correct.csv.gz`, `mmlu_pro_output_chars.csv.gz` (TIGER-AI-Lab/MMLU-Pro,
    /// Apache-2.0).
    MmluPro,
}

impl GradedSet {
    /// Reads the set of `format` from the folder `dir`.
    ///
    /// # Errors
    /// A file that is absent or malformed, by name and line; a labelled prompt without text.
    pub fn read(format: GradedFormat, dir: &Path) -> Result<Self, TraceError> {
        match format {
            GradedFormat::ZeroEval => zeroeval::read(dir),
            GradedFormat::MmluPro => mmlu_pro::read(dir),
        }
    }
}

type Input = BufReader<Box<dyn Read>>;

/// Opens a file of lines, decompressing it if its name says so.
fn open(path: &Path) -> Result<Lines<Input>, TraceError> {
    let origin = path.display().to_string();
    let file = File::open(path).map_err(|source| TraceError::Open {
        origin: origin.clone(),
        source,
    })?;
    let input: Box<dyn Read> = if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Lines::new(BufReader::with_capacity(1 << 16, input), origin))
}

/// Reads JSON lines into a map; `entry` turns a line into key and value.
fn json_lines<Line: DeserializeOwned, Value>(
    path: &Path,
    expected: &str,
    entry: impl Fn(Line) -> (String, Value),
) -> Result<BTreeMap<String, Value>, TraceError> {
    let mut lines = open(path)?;
    let mut entries = BTreeMap::new();
    while lines.advance()? {
        let line: Line = serde_json::from_str(lines.current()).map_err(|error| {
            lines.malformed(
                expected,
                format!("{} in {}", json_reason(&error), excerpt(lines.current())),
            )
        })?;
        let (key, value) = entry(line);
        if entries.contains_key(&key) {
            return Err(lines.malformed("a prompt id that was not there before", format!("`{key}` again")));
        }
        entries.insert(key, value);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
