//! MMLU-Pro: multiple choice in 14 fields with up to ten options. The prompt is the question and its lettered options, one
//! a line; the few-shot examples that were put before it are not part of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::table::Table;
use super::{GradedPrompt, GradedSet, json_lines};
use crate::TraceError;
use crate::error::excerpt;

/// Checkpoints that were not taught to follow instructions. Their instructed versions go by nearly the same names.
const BASE_CHECKPOINTS: [&str; 12] = [
    "Llama-2-13b-hf",
    "Llama-2-70b-hf",
    "Llama-2-7b-hf",
    "Meta-Llama-3-70B",
    "Meta-Llama-3-8B",
    "Meta-Llama-3_1-70B",
    "Meta-Llama-3_1-8B",
    "Mixtral-8x7B-v0.1",
    "Qwen1.5-110B",
    "Yi-34B",
    "Yi-6B",
    "gemma-7b",
];

/// The name of a model in the set, with `-base` where it is a base checkpoint and does not say so.
fn model_name(name: &str) -> String {
    if BASE_CHECKPOINTS.contains(&name) {
        format!("{name}-base")
    } else {
        name.to_owned()
    }
}

#[derive(Deserialize)]
struct Question {
    question_id: u64,
    category: String,
    question: String,
    options: Vec<String>,
}

impl Question {
    fn text(&self) -> String {
        let mut text = self.question.trim().to_owned();
        for (letter, option) in ('A'..='Z').zip(&self.options) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{letter}. {option}");
        }
        text
    }
}

pub(super) fn read(dir: &Path) -> Result<GradedSet, TraceError> {
    let questions = json_lines(
        &dir.join("mmlu_pro_prompts.jsonl.gz"),
        "JSON with `question_id`, `category`, `question` and `options`",
        |line: Question| (line.question_id.to_string(), line),
    )?;
    let (length_models, lengths) = output_chars(dir)?;
    let mut table = Table::open(&dir.join("mmlu_pro_correct.csv.gz"))?;
    let id = table.column("question_id")?;
    let columns: Vec<usize> = (0..table.header().len()).filter(|&column| column != id).collect();
    let models: Vec<String> = columns.iter().map(|&column| table.header()[column].clone()).collect();
    let length_columns: Vec<Option<usize>> = models
        .iter()
        .map(|model| length_models.iter().position(|other| other == model))
        .collect();
    let mut prompts = Vec::new();
    while let Some(row) = table.row()? {
        let Some(question) = questions.get(&row[id]) else {
            return Err(table.malformed("the id of a question whose text is known", &excerpt(&row[id])));
        };
        let mut scores = Vec::with_capacity(models.len());
        for &column in &columns {
            scores.push(table.score(&row[column])?);
        }
        let known = lengths.get(&row[id]);
        let output_chars = length_columns
            .iter()
            .map(|&column| known.and_then(|lengths| column.and_then(|at| lengths[at])))
            .collect();
        prompts.push(GradedPrompt {
            id: row[id].clone(),
            task: question.category.clone(),
            text: question.text(),
            scores,
            output_chars,
        });
    }
    let models = models.iter().map(|name| model_name(name)).collect();
    Ok(GradedSet { models, prompts })
}

type Lengths = BTreeMap<String, Vec<Option<u32>>>;

/// The models of the table of lengths, and their lengths by question.
fn output_chars(dir: &Path) -> Result<(Vec<String>, Lengths), TraceError> {
    let mut table = Table::open(&dir.join("mmlu_pro_output_chars.csv.gz"))?;
    let id = table.column("question_id")?;
    let columns: Vec<usize> = (0..table.header().len()).filter(|&column| column != id).collect();
    let models = columns.iter().map(|&column| table.header()[column].clone()).collect();
    let mut lengths = Lengths::new();
    while let Some(row) = table.row()? {
        let mut of_row = Vec::with_capacity(columns.len());
        for &column in &columns {
            of_row.push(table.characters(&row[column])?);
        }
        lengths.insert(row[id].clone(), of_row);
    }
    Ok((models, lengths))
}
