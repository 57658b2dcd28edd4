//! An operator's own graded answers: CSV or JSON lines with `prompt`, `model`, `score` and, if known, `output_tokens`, one
//! answer each.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use csv::{ReaderBuilder, StringRecord};
use equipoise_predict::{GradedAnswer, TrainingPrompt, TrainingSet, canonical_model_name};
use serde::Deserialize;

/// One answer.
#[derive(Debug)]
struct Answer {
    /// Where it begins, from 1.
    line: u64,
    prompt: String,
    /// Canonical.
    model: String,
    score: f64,
    output_tokens: Option<f64>,
}

/// The answers of one file.
#[derive(Debug)]
pub(super) struct Answers {
    origin: String,
    answers: Vec<Answer>,
}

/// A line of JSON; members that are not named here are passed over.
#[derive(Deserialize)]
struct Line {
    prompt: String,
    model: String,
    score: f64,
    output_tokens: Option<f64>,
}

impl Answers {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {origin}"))?;
        let json = path
            .extension()
            .is_some_and(|extension| extension == "jsonl" || extension == "json");
        let answers = if json {
            of_json(&origin, &text)?
        } else {
            of_csv(&origin, &text)?
        };
        let mut seen = BTreeMap::new();
        for answer in &answers {
            if let Some(line) = seen.insert((&answer.prompt, &answer.model), answer.line) {
                bail!(
                    "{origin}:{}: a second answer of {} to the prompt of line {line}; keep one, or its mean score",
                    answer.line,
                    answer.model
                );
            }
        }
        Ok(Self { origin, answers })
    }

    /// The models, in the order in which they are named first, with the number of their answers.
    pub(super) fn models(&self) -> Vec<(String, usize)> {
        let mut models: Vec<(String, usize)> = Vec::new();
        for answer in &self.answers {
            match models.iter_mut().find(|(model, _)| *model == answer.model) {
                Some((_, count)) => *count += 1,
                None => models.push((answer.model.clone(), 1)),
            }
        }
        models
    }

    /// All of them, for a predictor of its own.
    pub(super) fn training_set(&self) -> TrainingSet {
        let models: Vec<String> = self.models().into_iter().map(|(model, _)| model).collect();
        let mut prompts: Vec<TrainingPrompt> = Vec::new();
        let mut known = BTreeMap::new();
        for answer in &self.answers {
            let at = *known.entry(&answer.prompt).or_insert_with(|| {
                prompts.push(TrainingPrompt {
                    text: answer.prompt.clone(),
                    scores: vec![None; models.len()],
                    output_tokens: vec![None; models.len()],
                });
                prompts.len() - 1
            });
            if let Some(model) = models.iter().position(|model| *model == answer.model) {
                prompts[at].scores[model] = Some(answer.score);
                prompts[at].output_tokens[model] = answer.output_tokens;
            }
        }
        TrainingSet { models, prompts }
    }

    /// Those of one model, for a predictor that is there already.
    pub(super) fn of(&self, model: &str) -> Vec<GradedAnswer> {
        let own = self.answers.iter().filter(|answer| answer.model == model);
        own.map(|answer| GradedAnswer {
            text: answer.prompt.clone(),
            score: answer.score,
            output_tokens: answer.output_tokens,
        })
        .collect()
    }

    pub(super) fn provenance(&self) -> String {
        let name = Path::new(&self.origin).file_name().unwrap_or_default();
        format!("{} graded answers of {}", self.answers.len(), name.to_string_lossy())
    }
}

/// An answer, if its figures can be.
fn answer(origin: &str, at: u64, line: Line) -> anyhow::Result<Answer> {
    if !(0.0..=1.0).contains(&line.score) {
        bail!(
            "{origin}:{at}: `score` is {}; it must be from 0 (bad) to 1 (good)",
            line.score
        );
    }
    if let Some(tokens) = line.output_tokens
        && !(tokens.is_finite() && tokens >= 0.0)
    {
        bail!("{origin}:{at}: `output_tokens` is {tokens}; it must be a length in tokens");
    }
    for (name, text) in [("prompt", &line.prompt), ("model", &line.model)] {
        if text.trim().is_empty() {
            bail!("{origin}:{at}: `{name}` is empty; it stands in every line");
        }
    }
    Ok(Answer {
        line: at,
        prompt: line.prompt,
        model: canonical_model_name(&line.model),
        score: line.score,
        output_tokens: line.output_tokens,
    })
}

fn of_json(origin: &str, text: &str) -> anyhow::Result<Vec<Answer>> {
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(at, text)| {
            let line = serde_json::from_str(text).map_err(|error| {
                // The library's own place is that inside the line.
                let said = error.to_string();
                let reason = said.split(" at line ").next().unwrap_or_default().to_owned();
                anyhow::anyhow!(
                    "{origin}:{at}:{}: {reason}; a line is {{\"prompt\": …, \"model\": …, \"score\": 0 to 1, \"output_tokens\": … or left out}}",
                    error.column()
                )
            })?;
            answer(origin, at, line)
        })
        .collect()
}

fn of_csv(origin: &str, text: &str) -> anyhow::Result<Vec<Answer>> {
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let header = reader.headers().with_context(|| format!("{origin}:1"))?.clone();
    let find = |name: &str| header.iter().position(|field| field.trim() == name);
    let needed = |name: &str| {
        find(name).with_context(|| {
            let names: Vec<&str> = header.iter().map(str::trim).collect();
            format!(
                "{origin}:1: no column `{name}` in the header `{}`; it has prompt, model, score and, if known, output_tokens",
                names.join(",")
            )
        })
    };
    let (prompt, model, score) = (needed("prompt")?, needed("model")?, needed("score")?);
    let tokens = find("output_tokens");
    let mut answers = Vec::new();
    for row in reader.records() {
        let row = row.with_context(|| origin.to_owned())?;
        let at = row.position().map_or(0, csv::Position::line);
        if row.len() != header.len() {
            bail!(
                "{origin}:{at}: {} fields where the header has {}; text with commas, quotes or line breaks stands in quotes",
                row.len(),
                header.len()
            );
        }
        let line = Line {
            prompt: row[prompt].to_owned(),
            model: row[model].to_owned(),
            score: number(origin, at, &row, score, "score")?,
            output_tokens: match tokens.filter(|&column| !row[column].trim().is_empty()) {
                Some(column) => Some(number(origin, at, &row, column, "output_tokens")?),
                None => None,
            },
        };
        answers.push(answer(origin, at, line)?);
    }
    Ok(answers)
}

fn number(origin: &str, at: u64, row: &StringRecord, column: usize, name: &str) -> anyhow::Result<f64> {
    let text = row[column].trim();
    text.parse()
        .map_err(|_| anyhow::anyhow!("{origin}:{at}: `{name}` is `{text}`, no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_say_the_same() {
        let csv = "model,score,prompt,output_tokens\nours-7b,1,\"a, \"\"b\"\"\nc\",12\nours-70b,0.5,plain,\n";
        let json = "{\"prompt\": \"a, \\\"b\\\"\\nc\", \"model\": \"ours-7b\", \"score\": 1, \"output_tokens\": 12}\n\n\
                    {\"prompt\": \"plain\", \"model\": \"ours-70b\", \"score\": 0.5, \"grader\": \"human\"}\n";
        let of = |answers: Vec<Answer>| {
            let origin = String::new();
            Answers { origin, answers }.training_set()
        };
        let set = of(of_csv("a.csv", csv).expect("is well"));
        assert_eq!(set, of(of_json("a.jsonl", json).expect("is well")));
        assert_eq!(set.prompts[0].text, "a, \"b\"\nc");
        assert_eq!(set.prompts[0].scores, [Some(1.0), None]);
        assert_eq!(set.prompts[1].output_tokens, [None, None]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let header = "prompt,model,score\n";
        for (rows, said) in [
            ("what,m,2\n", "a.csv:2: `score` is 2; it must be from 0"),
            ("\"two\nlines\",m,good\n", "a.csv:2: `score` is `good`, no number"),
            ("what,m\n", "a.csv:2: 2 fields where the header has 3"),
            ("a, b,m,1\n", "a.csv:2: 4 fields"),
            ("\"what,m,1\n", "a.csv:2: 1 fields where"),
            ("what,,1\n", "a.csv:2: `model` is empty"),
        ] {
            let error = of_csv("a.csv", &format!("{header}{rows}"))
                .expect_err("is refused")
                .to_string();
            assert!(error.starts_with(said), "{error}");
        }
        for (line, said) in [
            (
                r#"{"prompt": "a", "model": "m", "score": 7}"#,
                "a.jsonl:1: `score` is 7",
            ),
            (
                r#"{"prompt": "a", "model": "m"}"#,
                "a.jsonl:1:29: missing field `score`",
            ),
            (
                r#"{"prompt": "a", "model": "m", "score": "good"}"#,
                "a.jsonl:1:45: invalid type: string",
            ),
        ] {
            let error = of_json("a.jsonl", line).expect_err("is refused").to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
