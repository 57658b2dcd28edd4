//! ZeroEval: grade-school and competition mathematics, and code reasoning; per model two columns, `NAME|correct` and
//! `NAME|chars`.

use std::path::Path;

use serde::Deserialize;

use super::table::Table;
use super::{GradedPrompt, GradedSet, json_lines};
use crate::TraceError;
use crate::error::excerpt;

#[derive(Deserialize)]
struct Prompt {
    prompt_id: String,
    prompt: String,
}

pub(super) fn read(dir: &Path) -> Result<GradedSet, TraceError> {
    let texts = json_lines(
        &dir.join("zeroeval_prompts.jsonl.gz"),
        "JSON with `prompt_id` and `prompt`",
        |line: Prompt| (line.prompt_id, line.prompt),
    )?;
    let mut table = Table::open(&dir.join("zeroeval_labels.csv.gz"))?;
    let (id, task) = (table.column("prompt_id")?, table.column("task")?);
    let models: Vec<String> = table
        .header()
        .iter()
        .filter_map(|name| name.strip_suffix("|correct"))
        .map(str::to_owned)
        .collect();
    let mut columns = Vec::with_capacity(models.len());
    for model in &models {
        columns.push((
            table.column(&format!("{model}|correct"))?,
            table.column(&format!("{model}|chars"))?,
        ));
    }
    let mut prompts = Vec::new();
    while let Some(row) = table.row()? {
        let Some(text) = texts.get(&row[id]) else {
            return Err(table.malformed("the id of a prompt whose text is known", &excerpt(&row[id])));
        };
        let mut prompt = GradedPrompt {
            id: row[id].clone(),
            task: row[task].clone(),
            text: text.clone(),
            scores: Vec::with_capacity(models.len()),
            output_chars: Vec::with_capacity(models.len()),
        };
        for &(correct, chars) in &columns {
            prompt.scores.push(table.score(&row[correct])?);
            prompt.output_chars.push(table.characters(&row[chars])?);
        }
        prompts.push(prompt);
    }
    Ok(GradedSet { models, prompts })
}
