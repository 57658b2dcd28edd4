//! `equipoise predictor`: trains, scores and shows predictors of quality and length.

mod answers;
mod chart;
mod costs;
mod doubt;
mod encoder;
mod evaluate;
mod graded;
mod page;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use equipoise_predict::{Kind, MAX_ARTIFACT_BYTES, Predictor, TrainingOptions, TrainingSet};

use crate::terminal::{complain, say, table};
use answers::Answers;
use graded::Split;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Learn from graded prompts and write an artifact.
    Train(Train),
    /// Take models into an artifact from graded answers, a few dozen of each, without training anew.
    Join(Join),
    /// Train every kind on 70 % of the prompts and score it on the other 30 %.
    Eval(Eval),
    /// What is in an artifact.
    Show(Show),
}

/// Which graded prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// Mathematics and code reasoning, 21 open models.
    Zeroeval,
    /// Multiple choice in 14 fields, 33 models.
    MmluPro,
    /// Both.
    All,
}

#[derive(Debug, Args)]
struct Train {
    /// The folder that holds `quality/`.
    #[arg(
        long,
        value_name = "DIR",
        env = "EQUIPOISE_DATA",
        required_unless_present = "answers"
    )]
    data: Option<PathBuf>,
    /// Your own graded answers in place of the published sets: CSV with a header, or JSON lines, of `prompt`, `model`,
    /// `score` from 0 to 1 and, if known, `output_tokens`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["set", "hold_out"])]
    answers: Option<PathBuf>,
    /// Which graded prompts.
    #[arg(long, value_enum, default_value = "all")]
    set: Set,
    /// Which predictor of quality: constant, knn-K, clusters-K, irt, linear, equipoise.
    #[arg(long, default_value = "equipoise")]
    kind: Kind,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Leave out the 30 % that `eval` scores on.
    #[arg(long)]
    hold_out: bool,
    /// Encode prompts with the sentence encoder in this folder (config.json, model.safetensors, vocab.txt of
    /// all-MiniLM-L6-v2); the artifact then works only with it. Takes tens of milliseconds a prompt.
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// Where the artifact goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Join {
    /// Graded answers of models that the artifact does not know: CSV with a header, or JSON lines, of `prompt`, `model`,
    /// `score` from 0 to 1 and, if known, `output_tokens`.
    #[arg(long, value_name = "FILE")]
    answers: PathBuf,
    /// The artifact that they join; `embedded` for the one that comes with the program.
    #[arg(long, value_name = "FILE", default_value = "embedded")]
    base: PathBuf,
    /// The sentence encoder that it was trained with, if any.
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// Where the artifact goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Eval {
    /// The folder that holds `quality/` and `energy/`.
    #[arg(long, value_name = "DIR", env = "EQUIPOISE_DATA")]
    data: PathBuf,
    /// Which graded prompts.
    #[arg(long, value_enum, default_value = "all")]
    set: Set,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also score on this many random 70/30 splits of the training part alone: how far the figures are luck.
    #[arg(long, default_value_t = 0, value_name = "N")]
    resamples: u32,
    /// Also score predictors on the vectors of the sentence encoder in this folder (config.json, model.safetensors,
    /// vocab.txt of all-MiniLM-L6-v2).
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// Write tables and diagrams here: replaces what is between the markers in `DIR.md`, and the SVGs in `DIR`.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Show {
    /// The artifact; `embedded` for the one that comes with the program.
    file: PathBuf,
    /// The sentence encoder that it was trained with, if any.
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.action {
        Action::Train(options) => train(options)?,
        Action::Join(options) => join(options)?,
        Action::Eval(options) => eval(options)?,
        Action::Show(options) => show(&options.file, options.encoder.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What to learn from, and where it comes from.
fn lessons(options: &Train) -> anyhow::Result<(TrainingSet, String)> {
    if let Some(file) = &options.answers {
        let answers = Answers::read(file)?;
        for (model, count) in answers.models() {
            if count < FEW_ANSWERS {
                complain(&format!(
                    "{model} has {count} graded answers: with fewer than {FEW_ANSWERS} its forecast is little more than a guess"
                ));
            }
        }
        return Ok((answers.training_set(), answers.provenance()));
    }
    let data = options.data.as_deref().context("`--data` or `--answers` is missing")?;
    let sets = graded::read(data, options.set)?;
    let (split, part) = if options.hold_out {
        (Split::Seen, "the 70 % that `predictor eval` does not score on")
    } else {
        (Split::Whole, "all of them")
    };
    let provenance = format!("{} Trained on {part}.", graded::provenance(&sets));
    Ok((graded::training_set(&sets, split), provenance))
}

/// Models with fewer answers are worth a warning.
const FEW_ANSWERS: usize = 30;

fn train(options: &Train) -> anyhow::Result<()> {
    let (training, provenance) = lessons(options)?;
    let (prompts, models) = (training.prompts.len(), training.models.len());
    complain(&format!(
        "training {} on {prompts} prompts and {models} models",
        options.kind
    ));
    let predictor = Predictor::train(
        &training,
        &TrainingOptions {
            kind: options.kind,
            seed: options.seed,
            encoder: options.encoder.as_deref().map(encoder::load).transpose()?,
            provenance,
            ..TrainingOptions::default()
        },
    )?;
    save(&predictor, &options.out)
}

fn save(predictor: &Predictor, path: &Path) -> anyhow::Result<()> {
    let file = predictor.to_bytes();
    std::fs::write(path, &file).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!(
        "{}: {} bytes, {} models",
        path.display(),
        file.len(),
        predictor.models().len()
    ));
    Ok(())
}

fn join(options: &Join) -> anyhow::Result<()> {
    let mut predictor = load(&options.base, options.encoder.as_deref())?;
    let answers = Answers::read(&options.answers)?;
    let mut joined = 0;
    for (model, count) in answers.models() {
        if predictor.models().contains(&model) {
            complain(&format!(
                "{model} is known already: its {count} answers are passed over"
            ));
            continue;
        }
        predictor
            .join_model(&model, &answers.of(&model))
            .with_context(|| format!("{model} cannot join"))?;
        say(&format!("{model} joins from {count} graded answers"));
        joined += 1;
    }
    anyhow::ensure!(joined > 0, "no model of {} is new to it", options.answers.display());
    save(&predictor, &options.out)
}

fn eval(options: &Eval) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for set in graded::read(&options.data, options.set)? {
        complain(&format!(
            "{}: training every kind on the prompts that are not held out",
            set.title()
        ));
        let result = evaluate::evaluate(
            &set,
            &options.data,
            options.encoder.as_deref(),
            options.seed,
            options.resamples,
        )?;
        say(&result.text());
        results.push(result);
    }
    if let Some(dir) = &options.out_dir {
        page::write(dir, &results)?;
    }
    Ok(())
}

/// The artifact at `path`, or the one that comes with the program.
fn load(path: &Path, encoder: Option<&Path>) -> anyhow::Result<Predictor> {
    if path == Path::new("embedded") {
        return Ok(Predictor::embedded()?);
    }
    let origin = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("cannot open {origin}"))?
        .len();
    anyhow::ensure!(
        size <= MAX_ARTIFACT_BYTES as u64,
        "{origin}: {size} bytes, no predictor is that large"
    );
    let file = std::fs::read(path).with_context(|| format!("cannot read {origin}"))?;
    let read = match encoder {
        Some(folder) => Predictor::from_bytes_with(&file, &encoder::load(folder)?),
        None => Predictor::from_bytes(&file),
    };
    read.with_context(|| format!("{origin} is refused"))
}

fn show(path: &Path, encoder: Option<&Path>) -> anyhow::Result<()> {
    let predictor = load(path, encoder)?;
    say(&format!("kind       {}", predictor.kind()));
    say(&format!("size       {} bytes", predictor.to_bytes().len()));
    say(&format!("dimension  {}", predictor.dimension()));
    say(&format!("trained    {}", predictor.provenance()));
    let easy = predictor.forecast(EASY);
    let hard = predictor.forecast(HARD);
    let mut rows = vec![
        ["model", "easy", "hard", "tokens easy", "tokens hard"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (easy, hard) in easy.models.iter().zip(&hard.models) {
        let tokens = |forecast: &equipoise_predict::ModelForecast| {
            let length = forecast.output_tokens;
            format!("{:.0} ({:.0} to {:.0})", length.p50, length.p10, length.p90)
        };
        rows.push(vec![
            easy.name.clone(),
            format!("{:.2} ± {:.2}", easy.quality, easy.quality_sd),
            format!("{:.2} ± {:.2}", hard.quality, hard.quality_sd),
            tokens(easy),
            tokens(hard),
        ]);
    }
    say(&format!("\neasy: {EASY}\nhard: {HARD}\n"));
    say(&table(&rows));
    Ok(())
}

const EASY: &str = "A baker sells 12 rolls for $3 each. How many dollars does she take?";
const HARD: &str = "Find all real $x$ with $\\sqrt{x + \\sqrt{x + 11}} + \\sqrt{x - \\sqrt{x + 11}} = 4$.";
