//! Real questions for simulated requests: which prompt each arrival carries, what is forecast of it, and what every model
//! truly made of it.
//!
//! Traces carry no prompts and prompt sets carry no arrival times: joining them is a modelling step. Here every arrival
//! gets one prompt from a seeded shuffle, started anew whenever it is used up. The scheduler sees the prompt's length and
//! its forecast, never what comes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use equipoise_predict::evaluation::held_out;
use equipoise_predict::{Forecast, Predictor, canonical_model_name};
use equipoise_trace::{GradedFormat, GradedSet, TraceError, WorkloadRecord};
use equipoise_types::RandomStream;

/// Characters per token: lengths are known in characters only. What the embedded predictor was trained with.
const CHARACTERS_PER_TOKEN: f64 = 3.8;

/// What one model made of one prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// How good it is, [0, 1]; the published sets say 0 or 1.
    pub quality: f64,
    /// Its length, tokens.
    pub output_tokens: u32,
}

/// One prompt with what is expected and what is true.
#[derive(Clone, Debug, PartialEq)]
pub struct AnsweredPrompt {
    /// Its id in the set.
    pub id: String,
    /// Its length, tokens.
    pub prompt_tokens: u32,
    /// What the scheduler is told; `None`: only the models' profiles are known.
    pub forecast: Option<Forecast>,
    /// By canonical model name.
    pub answers: BTreeMap<String, Answer>,
}

/// Prompts that every model of a fleet has answered.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSet {
    prompts: Arc<[AnsweredPrompt]>,
}

/// One prompt for each request of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Questions {
    set: PromptSet,
    /// By request: index of its prompt.
    asked: Vec<u32>,
}

/// Why prompts cannot be joined to a workload.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The set cannot be read.
    #[error("the graded prompts cannot be read: {0}")]
    Read(#[from] TraceError),
    /// A model of the fleet has no answers in the set.
    #[error("no prompt has an answer of every model of the fleet ({models}); the set holds {known}")]
    NoAnswers {
        /// Of the fleet.
        models: String,
        /// Of the set.
        known: String,
    },
}

fn tokens(characters: f64) -> u32 {
    (characters / CHARACTERS_PER_TOKEN).round().max(1.0) as u32
}

impl PromptSet {
    /// The prompts of ZeroEval that the embedded predictor has not seen and that all of `models` answered, from the data
    /// folder `data`; with the forecasts of `predictor` for these models.
    ///
    /// # Errors
    /// Files that are absent or malformed; a model that nobody graded.
    pub fn zero_eval(data: &Path, models: &[String], predictor: Option<&Predictor>) -> Result<Self, PromptError> {
        let set = GradedSet::read(GradedFormat::ZeroEval, &data.join("quality"))?;
        let names: Vec<String> = set.models.iter().map(|name| canonical_model_name(name)).collect();
        let wanted: Vec<String> = models.iter().map(|name| canonical_model_name(name)).collect();
        let mut prompts = Vec::new();
        for graded in set.prompts.iter().filter(|prompt| held_out(&prompt.id)) {
            let answer = |index: usize| {
                let (quality, characters) = (graded.scores[index]?, graded.output_chars[index]?);
                let output_tokens = tokens(f64::from(characters));
                Some((names[index].clone(), Answer { quality, output_tokens }))
            };
            let answers: BTreeMap<String, Answer> = (0..names.len())
                .filter(|index| wanted.contains(&names[*index]))
                .filter_map(answer)
                .collect();
            if wanted.iter().all(|name| answers.contains_key(name)) {
                let forecast = predictor.map(|predictor| {
                    let mut forecast = predictor.forecast(&graded.text);
                    forecast.models.retain(|model| wanted.contains(&model.name));
                    forecast
                });
                prompts.push(AnsweredPrompt {
                    id: graded.id.clone(),
                    prompt_tokens: tokens(graded.text.chars().count() as f64),
                    forecast,
                    answers,
                });
            }
        }
        if prompts.is_empty() {
            let (models, known) = (models.join(", "), names.join(", "));
            return Err(PromptError::NoAnswers { models, known });
        }
        Ok(Self::new(prompts))
    }

    /// From prompts at hand.
    #[must_use]
    pub fn new(prompts: Vec<AnsweredPrompt>) -> Self {
        Self {
            prompts: prompts.into(),
        }
    }

    /// All prompts.
    #[must_use]
    pub fn prompts(&self) -> &[AnsweredPrompt] {
        &self.prompts
    }

    /// A prompt for each of `requests` requests: a shuffle of the set, and another when it is used up. Same seed, same
    /// prompts.
    #[must_use]
    pub fn ask(&self, requests: usize, seed: u64) -> Questions {
        let mut random = RandomStream::new(seed).derive("prompts");
        let mut asked: Vec<u32> = Vec::with_capacity(requests);
        let mut deck: Vec<u32> = (0..u32::try_from(self.prompts.len()).unwrap_or(u32::MAX)).collect();
        while asked.len() < requests && !deck.is_empty() {
            for index in (1..deck.len()).rev() {
                deck.swap(index, random.below(index + 1));
            }
            let missing = requests - asked.len();
            asked.extend(deck.iter().take(missing));
        }
        Questions {
            set: self.clone(),
            asked,
        }
    }
}

impl Questions {
    /// The prompt of a request, if there is one.
    #[must_use]
    pub fn of(&self, request: usize) -> Option<&AnsweredPrompt> {
        self.set.prompts.get(*self.asked.get(request)? as usize)
    }

    /// What `model`, in any spelling, truly makes of a request.
    #[must_use]
    pub fn answer(&self, request: usize, model: &str) -> Option<Answer> {
        let answers = &self.of(request)?.answers;
        let found = answers.get(model).or_else(|| answers.get(&canonical_model_name(model)));
        found.copied()
    }

    /// Puts the prompts' lengths in place of the workload's, without prefixes: the text is another.
    pub fn put_into(&self, records: &mut [WorkloadRecord]) {
        for (request, record) in records.iter_mut().enumerate() {
            if let Some(prompt) = self.of(request) {
                record.prompt_tokens = prompt.prompt_tokens;
                record.prefix_blocks = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(count: u32) -> PromptSet {
        PromptSet::new(
            (0..count)
                .map(|id| AnsweredPrompt {
                    id: id.to_string(),
                    prompt_tokens: id + 1,
                    forecast: None,
                    answers: BTreeMap::new(),
                })
                .collect(),
        )
    }

    #[test]
    fn every_prompt_is_asked_as_often_as_the_others() {
        let questions = set(7).ask(24, 3);
        let mut counts = [0_u32; 7];
        for request in 0..24 {
            let prompt = questions.of(request).expect("asked");
            counts[prompt.prompt_tokens as usize - 1] += 1;
        }
        assert!(counts.iter().all(|count| (3..=4).contains(count)), "{counts:?}");
        assert_eq!(questions.of(24), None);
        assert_eq!(questions, set(7).ask(24, 3));
        assert_ne!(questions, set(7).ask(24, 4));
    }

    #[test]
    fn a_run_gives_the_graded_answers_of_whoever_answered() {
        let answer = |quality, output_tokens| Answer { quality, output_tokens };
        let prompt = |id: u32| AnsweredPrompt {
            id: id.to_string(),
            prompt_tokens: 50 + id,
            forecast: None,
            answers: BTreeMap::from([
                ("small".to_owned(), answer(f64::from(id % 2), 7)),
                ("large".to_owned(), answer(1.0, 11)),
            ]),
        };
        let fleet = equipoise_config::FleetFile::parse(
            "
            [[model]]
            name = \"org/Small-Instruct\"
            architecture = \"Qwen2.5-3B\"
            quality = 0.1
            [[model]]
            name = \"large\"
            architecture = \"Qwen2.5-7B\"
            quality = 0.2
            [[pool]]
            name = \"a\"
            model = \"org/Small-Instruct\"
            gpu = \"H100\"
            count = 1
            [[pool]]
            name = \"b\"
            model = \"large\"
            gpu = \"H100\"
            count = 1
            ",
            "test",
        )
        .expect("a good fleet");
        let generator = equipoise_trace::WorkloadGenerator {
            requests: 40,
            ..equipoise_trace::WorkloadGenerator::default()
        };
        let mut records = generator.generate().expect("a workload").records;
        let questions = PromptSet::new((0..10).map(prompt).collect()).ask(records.len(), 1);
        questions.put_into(&mut records);
        let options = crate::SimulationOptions {
            policies: vec!["round-robin".to_owned()],
            questions: Some(Arc::new(questions)),
            ..crate::SimulationOptions::default()
        };
        let result = &crate::simulate(&fleet, &records, &options).expect("runs")[0];
        assert_eq!((result.finished, result.truncated), (40, 0));
        // Each model answers every other request: all of one are good, about half of the other.
        assert_eq!(result.output_tokens, 20 * 7 + 20 * 11);
        let quality = result.quality_mean.expect("graded");
        assert!((0.5..1.0).contains(&quality), "{quality}");
        assert!(
            (quality * 40.0 - (quality * 40.0).round()).abs() < 1e-9,
            "a mean of zeros and ones"
        );
        let half = result.quality_ci95.expect("graded");
        assert!((half - 1.96 * (quality * (1.0 - quality) / 40.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn an_empty_set_asks_nothing() {
        assert_eq!(set(0).ask(5, 1).of(0), None);
    }
}
