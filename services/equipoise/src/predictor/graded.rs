//! Graded prompts as training sets.

use std::path::Path;

use equipoise_predict::evaluation::held_out;
use equipoise_predict::{TrainingPrompt, TrainingSet, canonical_model_name};
use equipoise_trace::{GradedFormat, GradedPrompt, GradedSet};

use super::Set;

/// Characters of an answer per token: the answers' lengths are known in characters only. English prose and mathematics
/// come to 3.5 to 4 with the tokenizers of these models.
const CHARACTERS_PER_TOKEN: f64 = 3.8;

/// One set with what it is.
pub(super) struct Graded {
    pub(super) format: GradedFormat,
    pub(super) set: GradedSet,
}

impl Graded {
    pub(super) fn title(&self) -> &'static str {
        match self.format {
            GradedFormat::ZeroEval => "ZeroEval",
            GradedFormat::MmluPro => "MMLU-Pro",
        }
    }

    fn source(&self) -> &'static str {
        match self.format {
            GradedFormat::ZeroEval => "ZeroEval (WildEval/ZeroEval, Apache-2.0)",
            GradedFormat::MmluPro => "MMLU-Pro (TIGER-AI-Lab/MMLU-Pro, Apache-2.0)",
        }
    }
}

/// Which prompts of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// All.
    Whole,
    /// Those that are not held out.
    Seen,
}

pub(super) fn read(data: &Path, set: Set) -> anyhow::Result<Vec<Graded>> {
    let formats: &[GradedFormat] = match set {
        Set::Zeroeval => &[GradedFormat::ZeroEval],
        Set::MmluPro => &[GradedFormat::MmluPro],
        Set::All => &[GradedFormat::ZeroEval, GradedFormat::MmluPro],
    };
    let dir = data.join("quality");
    let read = |&format| {
        Ok(Graded {
            format,
            set: GradedSet::read(format, &dir)?,
        })
    };
    formats.iter().map(read).collect()
}

/// What the sets are, for the artifact.
pub(super) fn provenance(sets: &[Graded]) -> String {
    let sources: Vec<String> = sets
        .iter()
        .map(|graded| {
            format!(
                "{}: {} prompts, {} models",
                graded.source(),
                graded.set.prompts.len(),
                graded.set.models.len()
            )
        })
        .collect();
    format!(
        "{}. Scores 0 or 1; tokens are characters / {CHARACTERS_PER_TOKEN}.",
        sources.join("; ")
    )
}

/// The sets joined: models that are in several are one model.
pub(super) fn training_set(sets: &[Graded], split: Split) -> TrainingSet {
    let mut models: Vec<String> = Vec::new();
    for graded in sets {
        for name in &graded.set.models {
            let name = canonical_model_name(name);
            if !models.contains(&name) {
                models.push(name);
            }
        }
    }
    let mut prompts = Vec::new();
    for graded in sets {
        let columns: Vec<usize> = graded
            .set
            .models
            .iter()
            .filter_map(|name| models.iter().position(|model| *model == canonical_model_name(name)))
            .collect();
        for prompt in graded
            .set
            .prompts
            .iter()
            .filter(|prompt| split == Split::Whole || !held_out(&prompt.id))
        {
            prompts.push(training_prompt(prompt, &columns, models.len()));
        }
    }
    TrainingSet { models, prompts }
}

/// A prompt whose models stand in `columns` of `models`.
pub(super) fn training_prompt(prompt: &GradedPrompt, columns: &[usize], models: usize) -> TrainingPrompt {
    let mut training = TrainingPrompt {
        text: prompt.text.clone(),
        scores: vec![None; models],
        output_tokens: vec![None; models],
    };
    for (index, &column) in columns.iter().enumerate() {
        training.scores[column] = prompt.scores[index];
        training.output_tokens[column] = prompt.output_chars[index].map(tokens);
    }
    training
}

/// Tokens of so many characters.
pub(super) fn tokens(characters: u32) -> f64 {
    (f64::from(characters) / CHARACTERS_PER_TOKEN).max(1.0)
}
