//! Trains every kind on the seen part of a set and scores it on the held-out part.

use std::path::Path;
use std::time::Instant;

use equipoise_predict::evaluation::{
    Bin, RoutedCurve, auc, brier, expected_calibration_error, held_out, oracle_curve, reliability, routed_curve,
};
use equipoise_predict::{
    ExternalEncoder, Forecast, Kind, Predictor, Trainer, TrainingOptions, TrainingSet, canonical_model_name,
};
use equipoise_trace::GradedPrompt;
use equipoise_types::RandomStream;

use super::costs::{Costs, costs};
use super::doubt::{Lead, Spread, leads, spreads};
use super::graded::{Graded, tokens, training_prompt};
use crate::terminal::{complain, table};

/// Each prompt is timed so often and the fastest counts, so that other processes on the machine are not measured.
const TIMINGS: usize = 5;

/// One set's results.
pub(super) struct Evaluation {
    pub(super) title: &'static str,
    pub(super) costs: Costs,
    pub(super) seen: usize,
    pub(super) unseen: usize,
    pub(super) rows: Vec<Row>,
    pub(super) oracle: RoutedCurve,
    /// The best single routed model by score on the held-out part.
    pub(super) best_single: (String, f64),
    /// The set's models with the mean of their scores, in the order of every row's `per_model`.
    pub(super) models: Vec<(String, f64)>,
    pub(super) coverage: Coverage,
    pub(super) leads: Vec<Lead>,
    /// From the smallest sd to the largest.
    pub(super) spreads: Vec<Spread>,
    /// Per kind the areas on random splits of the seen part.
    pub(super) resampled: Vec<(Kind, Vec<f64>)>,
}

/// One predictor's.
pub(super) struct Row {
    /// The kind, or `embedded` for the artifact that comes with the program.
    pub(super) name: String,
    pub(super) auc: f64,
    pub(super) brier: f64,
    pub(super) ece: f64,
    pub(super) curve: RoutedCurve,
    pub(super) reliability: Vec<Bin>,
    /// Per model AUC and Brier score.
    pub(super) per_model: Vec<(f64, f64)>,
    /// Microseconds per prompt from text to all models' forecasts, quality and length: median and 99th percentile
    /// over prompts, of the fastest of [`TIMINGS`] runs of each.
    pub(super) micros: (f64, f64),
}

/// Shares of answers by where they fall in the forecast of their length.
#[derive(Clone, Copy, Default)]
pub(super) struct Coverage {
    pub(super) below_p10: f64,
    pub(super) below_p50: f64,
    pub(super) above_p90: f64,
    /// Mean of p90 / p10.
    pub(super) width: f64,
    /// Mean of |p50 - tokens| / tokens.
    pub(super) relative_error: f64,
}

/// What a predictor said of the held-out prompts.
pub(super) struct Predictions {
    /// Prompts × models.
    probabilities: Vec<Vec<f64>>,
}

impl Predictions {
    /// Those of some of the prompts.
    pub(super) fn some(&self, indices: &[usize]) -> Self {
        Self {
            probabilities: indices.iter().map(|&index| self.probabilities[index].clone()).collect(),
        }
    }

    /// (probability, score) of one model where it was graded.
    fn samples(&self, prompts: &[&GradedPrompt], model: usize) -> Vec<(f64, f64)> {
        let pairs = self.probabilities.iter().zip(prompts);
        pairs
            .filter_map(|(row, prompt)| prompt.scores[model].map(|score| (row[model], score)))
            .collect()
    }
}

/// What became of one predictor on the held-out prompts.
struct Outcome {
    predictions: Predictions,
    /// Per model of the set (probability, score) where it was graded.
    samples: Vec<Vec<(f64, f64)>>,
    coverage: Coverage,
    micros: (f64, f64),
}

impl Outcome {
    /// `None` if the predictor does not know all models of the set.
    fn of(predictor: &Predictor, graded: &Graded, prompts: &[&GradedPrompt]) -> Option<Self> {
        let find = |name: &String| {
            predictor
                .models()
                .iter()
                .position(|model| *model == canonical_model_name(name))
        };
        let columns: Vec<usize> = graded.set.models.iter().map(find).collect::<Option<_>>()?;
        let mut micros = Vec::with_capacity(prompts.len());
        let mut forecasts = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let mut fastest = f64::INFINITY;
            let mut forecast = Forecast::default();
            for _ in 0..TIMINGS {
                let start = Instant::now();
                forecast = std::hint::black_box(predictor.forecast(&prompt.text));
                fastest = fastest.min(start.elapsed().as_secs_f64() * 1e6);
            }
            micros.push(fastest);
            forecast.models = columns.iter().map(|&column| forecast.models[column].clone()).collect();
            forecasts.push(forecast);
        }
        let quality = |forecast: &Forecast| forecast.models.iter().map(|model| model.quality).collect();
        let predictions = Predictions {
            probabilities: forecasts.iter().map(quality).collect(),
        };
        let samples = (0..columns.len())
            .map(|model| predictions.samples(prompts, model))
            .collect();
        Some(Self {
            predictions,
            samples,
            coverage: length_coverage(&forecasts, prompts),
            micros: (percentile(&mut micros, 0.5), percentile(&mut micros, 0.99)),
        })
    }
}

/// Kinds that are also scored on an encoder's vectors.
const ENCODED: [Kind; 4] = [
    Kind::Knn { neighbours: 50 },
    Kind::Clusters { clusters: 60 },
    Kind::Irt,
    Kind::Equipoise,
];

/// `encoder`: the folder of a sentence encoder, for further rows.
pub(super) fn evaluate(
    graded: &Graded,
    data: &Path,
    encoder: Option<&Path>,
    seed: u64,
    resamples: u32,
) -> anyhow::Result<Evaluation> {
    let costs = costs(graded.format, data)?;
    let set = &graded.set;
    let (unseen, seen): (Vec<&GradedPrompt>, Vec<&GradedPrompt>) =
        set.prompts.iter().partition(|prompt| held_out(&prompt.id));
    let trainer = trainer(graded, &seen, seed, None)?;
    let mut rows = Vec::new();
    let mut coverage = Coverage::default();
    let (mut ours, mut others) = (None, Vec::new());
    let trained = Kind::ALL.map(|kind| (kind.to_string(), trainer.train(kind)));
    let embedded = ("embedded".to_owned(), Predictor::embedded()?);
    let encoded = match encoder {
        Some(folder) => Encoded::train(folder, graded, &seen, seed)?,
        None => Encoded::default(),
    };
    for (name, predictor) in trained.into_iter().chain([embedded]).chain(encoded.predictors) {
        let Some(outcome) = Outcome::of(&predictor, graded, &unseen) else {
            continue;
        };
        if name == Kind::Equipoise.to_string() {
            coverage = outcome.coverage;
        }
        let score = |samples: &Vec<(f64, f64)>| (auc(samples).unwrap_or(0.5), brier(samples));
        let per_model: Vec<(f64, f64)> = outcome.samples.iter().map(score).collect();
        let pooled: Vec<(f64, f64)> = outcome.samples.iter().flatten().copied().collect();
        rows.push(Row {
            name: name.clone(),
            auc: mean(per_model.iter().map(|(auc, _)| *auc)),
            brier: mean(per_model.iter().map(|(_, brier)| *brier)),
            ece: expected_calibration_error(&pooled),
            curve: routed(&outcome.predictions, &unseen, graded, &costs)?.0,
            reliability: reliability(&pooled),
            per_model,
            micros: if name.ends_with(ENCODED_SUFFIX) {
                (outcome.micros.0 + encoded.micros.0, outcome.micros.1 + encoded.micros.1)
            } else {
                outcome.micros
            },
        });
        if name == Kind::Equipoise.to_string() {
            ours = Some(outcome.predictions);
        } else {
            others.push((name, outcome.predictions));
        }
    }
    let ours = anyhow::Context::context(ours, "our predictor was not trained")?;
    let truth = Predictions {
        probabilities: unseen
            .iter()
            .map(|prompt| prompt.scores.iter().map(|score| score.unwrap_or(0.0)).collect())
            .collect(),
    };
    let (_, oracle, best_single) = routed(&truth, &unseen, graded, &costs)?;
    Ok(Evaluation {
        title: graded.title(),
        seen: seen.len(),
        unseen: unseen.len(),
        rows,
        oracle,
        best_single,
        models: model_means(graded, &unseen),
        coverage,
        leads: leads(&ours, &others, &unseen, graded, &costs, seed)?,
        spreads: spreads(graded, &seen, &unseen, seed)?,
        resampled: resample(graded, &seen, data, seed, resamples)?,
        costs,
    })
}

/// Ends the names of predictors on an encoder's vectors.
const ENCODED_SUFFIX: &str = " (encoder)";

/// Predictors on the vectors of an encoder.
#[derive(Default)]
struct Encoded {
    predictors: Vec<(String, Predictor)>,
    /// What encoding a prompt took, microseconds at the median and the 99th percentile.
    micros: (f64, f64),
}

impl Encoded {
    fn train(folder: &Path, graded: &Graded, seen: &[&GradedPrompt], seed: u64) -> anyhow::Result<Self> {
        let texts: Vec<&str> = graded.set.prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        let (encoder, [p50, p99]) = super::encoder::remember(folder, &texts)?;
        let trainer = trainer(graded, seen, seed, Some(encoder))?;
        Ok(Self {
            predictors: ENCODED
                .map(|kind| (format!("{kind}{ENCODED_SUFFIX}"), trainer.train(kind)))
                .into(),
            micros: (p50, p99),
        })
    }
}

/// Every model's name and its mean score where it was graded.
fn model_means(graded: &Graded, prompts: &[&GradedPrompt]) -> Vec<(String, f64)> {
    let names = graded.set.models.iter().enumerate();
    let score = |model: usize| mean(prompts.iter().filter_map(|prompt| prompt.scores[model]));
    names.map(|(model, name)| (name.clone(), score(model))).collect()
}

pub(super) fn trainer(
    graded: &Graded,
    prompts: &[&GradedPrompt],
    seed: u64,
    encoder: Option<ExternalEncoder>,
) -> anyhow::Result<Trainer> {
    let columns: Vec<usize> = (0..graded.set.models.len()).collect();
    let training = TrainingSet {
        models: graded.set.models.clone(),
        prompts: prompts
            .iter()
            .map(|prompt| training_prompt(prompt, &columns, columns.len()))
            .collect(),
    };
    Ok(Trainer::new(
        &training,
        &TrainingOptions {
            seed,
            encoder,
            ..TrainingOptions::default()
        },
    )?)
}

/// The routed curve, the oracle's, and the best single model, over the prompts that all routed models answered.
pub(super) fn routed(
    predictions: &Predictions,
    prompts: &[&GradedPrompt],
    graded: &Graded,
    costs: &Costs,
) -> anyhow::Result<(RoutedCurve, RoutedCurve, (String, f64))> {
    let mut columns = Vec::new();
    for (name, _) in &costs.of {
        let column = graded.set.models.iter().position(|model| model == name);
        columns.push(anyhow::Context::context(
            column,
            format!("the set has no model {name}"),
        )?);
    }
    let price: Vec<f64> = costs.of.iter().map(|(_, cost)| *cost).collect();
    let (mut predicted, mut scores) = (Vec::new(), Vec::new());
    for (row, prompt) in predictions.probabilities.iter().zip(prompts) {
        let answered: Option<Vec<f64>> = columns.iter().map(|&column| prompt.scores[column]).collect();
        if let Some(answered) = answered {
            predicted.push(columns.iter().map(|&column| row[column]).collect());
            scores.push(answered);
        }
    }
    let missing = "no held-out prompt has a grade of every routed model";
    let curve = anyhow::Context::context(routed_curve(&predicted, &scores, &price), missing)?;
    let oracle = anyhow::Context::context(oracle_curve(&scores, &price), missing)?;
    let singles = (0..columns.len()).map(|model| (model, mean(scores.iter().map(|scores| scores[model]))));
    let best = singles.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0));
    Ok((curve, oracle, (costs.of[best.0].0.to_owned(), best.1)))
}

/// Areas of every kind on random 70/30 splits of the seen part.
fn resample(
    graded: &Graded,
    seen: &[&GradedPrompt],
    data: &Path,
    seed: u64,
    resamples: u32,
) -> anyhow::Result<Vec<(Kind, Vec<f64>)>> {
    let mut areas: Vec<(Kind, Vec<f64>)> = Kind::ALL.map(|kind| (kind, Vec::new())).to_vec();
    for round in 0..resamples {
        complain(&format!("{}: resample {} of {resamples}", graded.title(), round + 1));
        let mut random = RandomStream::new(seed).derive(&format!("resample {round}"));
        let (test, train): (Vec<&GradedPrompt>, Vec<&GradedPrompt>) =
            seen.iter().copied().partition(|_| random.uniform() < 0.3);
        let trainer = trainer(graded, &train, seed, None)?;
        let costs = costs(graded.format, data)?;
        for (kind, areas) in &mut areas {
            let predictor = trainer.train(*kind);
            let row = |prompt: &&GradedPrompt| {
                predictor
                    .quality(&prompt.text)
                    .into_iter()
                    .map(|estimate| estimate.probability)
                    .collect()
            };
            let predictions = Predictions {
                probabilities: test.iter().map(row).collect(),
            };
            areas.push(routed(&predictions, &test, graded, &costs)?.0.area);
        }
    }
    Ok(areas)
}

fn length_coverage(forecasts: &[Forecast], prompts: &[&GradedPrompt]) -> Coverage {
    let mut sum = Coverage::default();
    let mut count = 0.0;
    for (forecast, prompt) in forecasts.iter().zip(prompts) {
        for (model, characters) in forecast.models.iter().zip(&prompt.output_chars) {
            let Some(tokens) = characters.map(tokens) else { continue };
            let length = model.output_tokens;
            count += 1.0;
            sum.below_p10 += f64::from(u8::from(tokens < length.p10));
            sum.below_p50 += f64::from(u8::from(tokens < length.p50));
            sum.above_p90 += f64::from(u8::from(tokens > length.p90));
            sum.width += length.p90 / length.p10;
            sum.relative_error += (length.p50 - tokens).abs() / tokens;
        }
    }
    let count = f64::max(count, 1.0);
    Coverage {
        below_p10: sum.below_p10 / count,
        below_p50: sum.below_p50 / count,
        above_p90: sum.above_p90 / count,
        width: sum.width / count,
        relative_error: sum.relative_error / count,
    }
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

pub(super) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(0.0)
}

impl Evaluation {
    /// Tables for the terminal.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "\n{}: {} prompts seen, {} held out\n\n",
            self.title, self.seen, self.unseen
        );
        text.push_str(&table(&self.table_rows()));
        let coverage = self.coverage;
        text.push_str(&format!(
            "\n\nlengths: {:.1} % below p10, {:.1} % below p50, {:.1} % above p90; median error {:.0} %, p90/p10 {:.1}\n",
            100.0 * coverage.below_p10,
            100.0 * coverage.below_p50,
            100.0 * coverage.above_p90,
            100.0 * coverage.relative_error,
            coverage.width
        ));
        text.push_str("\narea of ours over each on the same held-out prompts, resampled with replacement\n\n");
        text.push_str(&table(&self.lead_rows()));
        text.push_str("\n\nquality_sd, by quarters\n\n");
        text.push_str(&table(&self.spread_rows()));
        text.push('\n');
        if self.resampled.iter().any(|(_, areas)| !areas.is_empty()) {
            text.push_str("\nareas on random splits of the seen part\n\n");
            text.push_str(&table(&self.resampled_rows()));
            text.push('\n');
        }
        text
    }

    /// Head and one row per kind, then the best single model and the oracle.
    pub(super) fn table_rows(&self) -> Vec<Vec<String>> {
        let head = ["predictor", "AUC", "Brier", "ECE", "area", "µs p50", "µs p99"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            rows.push(vec![
                row.name.clone(),
                format!("{:.4}", row.auc),
                format!("{:.4}", row.brier),
                format!("{:.4}", row.ece),
                format!("{:.4}", row.curve.area),
                format!("{:.0}", row.micros.0),
                format!("{:.0}", row.micros.1),
            ]);
        }
        let dash = || "-".to_owned();
        let (name, score) = &self.best_single;
        let reference =
            |name: String, value: f64| vec![name, dash(), dash(), dash(), format!("{value:.4}"), dash(), dash()];
        rows.push(reference(format!("always {name} (accuracy)"), *score));
        rows.push(reference("oracle".to_owned(), self.oracle.area));
        rows
    }

    /// Head and one row per other predictor.
    pub(super) fn lead_rows(&self) -> Vec<Vec<String>> {
        let head = ["predictor", "ours is over it by", "5 %", "95 %", "ours at or above"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.leads.iter().map(|lead| {
            vec![
                lead.over.clone(),
                format!("{:+.4}", lead.difference),
                format!("{:+.4}", lead.interval.0),
                format!("{:+.4}", lead.interval.1),
                format!("{:.0} %", 100.0 * lead.at_or_above),
            ]
        }));
        rows
    }

    /// Head and one row per quarter of the estimates by their sd.
    pub(super) fn spread_rows(&self) -> Vec<Vec<String>> {
        let head = ["quarter by sd", "mean sd", "found between halves", "Brier skill"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.spreads.iter().enumerate().map(|(quarter, spread)| {
            vec![
                format!("{}", quarter + 1),
                format!("{:.3}", spread.stated),
                format!("{:.3}", spread.found),
                format!("{:.3}", spread.skill),
            ]
        }));
        rows
    }

    /// Head and one row per kind: mean area, mean and deviation of what ours has over it, and how often ours is not below.
    pub(super) fn resampled_rows(&self) -> Vec<Vec<String>> {
        let head = [
            "predictor",
            "mean area",
            "ours is over it by",
            "deviation",
            "ours at or above",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        let ours = self
            .resampled
            .iter()
            .find(|(kind, _)| *kind == Kind::Equipoise)
            .map(|(_, areas)| areas.as_slice());
        let ours = ours.unwrap_or_default();
        for (kind, areas) in &self.resampled {
            let over: Vec<f64> = ours.iter().zip(areas).map(|(ours, other)| ours - other).collect();
            let average = mean(over.iter().copied());
            let deviation = mean(over.iter().map(|over| (over - average).powi(2))).sqrt();
            let wins = over.iter().filter(|over| **over >= 0.0).count();
            rows.push(vec![
                kind.to_string(),
                format!("{:.4}", mean(areas.iter().copied())),
                format!("{average:+.4}"),
                format!("{deviation:.4}"),
                format!("{wins} of {}", over.len()),
            ]);
        }
        rows
    }
}
