//! `equipoise calibrate fit`: your own measurements as a table of measured tiers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use equipoise_engine::{
    Deployment, EngineLimits, EngineShape, ExpertStep, Experts, FitError, MeasuredTable, MeasuredTier, ModelSpec,
    Precision, StepModel, StepWork, gpu, gpus, model, models,
};

use super::least_squares;
use super::score::percent;
use crate::terminal::{complain, say, table};

/// Columns that every file has, each with what benchmark clients call it: vLLM's `bench serve`, and sweeps made of it.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("model", &["model_id", "model_name"]),
    ("gpu", &["gpu_type", "device"]),
    ("tensor_parallel", &["tensor_parallel_size", "tp"]),
    ("batch", &["max_concurrency", "concurrency"]),
    ("isl", &["random_input_len", "input_len"]),
    ("osl", &["random_output_len", "output_len"]),
    ("ttft_ms", &["mean_ttft_ms", "median_ttft_ms"]),
    ("tpot_ms", &["mean_tpot_ms", "median_tpot_ms"]),
];

#[derive(Debug, Args)]
pub(crate) struct Fit {
    /// Comma-separated, with a head line: model, gpu, tensor_parallel, batch (sequences running on average), isl and osl
    /// (tokens of prompt and answer), ttft_ms, tpot_ms; power_w of all GPUs of the instance where it was measured, and weights
    /// (bf16, fp8, int8, int4, fp4, mxfp4) where they are not bf16. Names of vLLM's `bench serve` will do: model_id,
    /// max_concurrency, mean_ttft_ms, ...
    runs: PathBuf,
    /// Where the table goes; name it in `measured` of a [[pool]].
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Debug)]
struct Run {
    line: usize,
    batch: f64,
    prompt: f64,
    output: f64,
    ttft_s: f64,
    tpot_s: f64,
    watts: Option<f64>,
}

/// Model, GPU, GPUs, format of the weights.
type Key = (&'static str, &'static str, u32, &'static str);

pub(super) fn run(options: &Fit) -> anyhow::Result<()> {
    let tiers = read(&options.runs)?;
    let mut report = vec![
        [
            "tier",
            "rows",
            "TPOT, worst",
            "J/token, worst",
            "TPOT left out, median",
            "joules",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut fitted = Vec::new();
    let count = tiers.len();
    for (index, (key, runs)) in tiers.iter().enumerate() {
        complain(&progress(index, count));
        let (tier, metered) = fit(*key, runs)?;
        let held_out = held_out(*key, runs)?.map_or_else(|| "too few rows".to_owned(), percent);
        report.push(vec![
            title(*key),
            runs.len().to_string(),
            percent(tier.error.tpot),
            if metered {
                percent(tier.error.joules)
            } else {
                "-".to_owned()
            },
            held_out,
            if metered { "metered" } else { "modelled" }.to_owned(),
        ]);
        fitted.push(tier);
    }
    complain(&progress(count, count));
    std::fs::write(&options.out, text(&options.runs, fitted))
        .with_context(|| format!("cannot write {}", options.out.display()))?;
    say(&table(&report));
    say(&format!(
        "\n{}: use it as `measured = \"{0}\"` in a [[pool]]",
        options.out.display()
    ));
    Ok(())
}

fn progress(done: usize, of: usize) -> String {
    let filled = 20 * done / of.max(1);
    format!(
        "[{}{}] {done} of {of} tiers",
        "#".repeat(filled),
        ".".repeat(20 - filled)
    )
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<Key, Vec<Run>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines.next().with_context(|| format!("{} is empty", path.display()))?;
    let heads: Vec<&str> = cells(head).into_iter().map(known_name).collect();
    let missing: Vec<&str> = COLUMNS
        .map(|(column, _)| column)
        .into_iter()
        .filter(|column| !heads.contains(column))
        .collect();
    anyhow::ensure!(
        missing.is_empty(),
        "{}, line 1: no column `{}`; it has {}; there must be {}, separated by commas, and may be power_w and weights",
        path.display(),
        missing.join("`, `"),
        heads.join(", "),
        COLUMNS.map(|(column, _)| column).join(", ")
    );
    let mut tiers: BTreeMap<Key, Vec<Run>> = BTreeMap::new();
    for (index, line) in lines {
        let place = format!("{}, line {}", path.display(), index + 1);
        let (key, run) = row(&heads, line, index + 1).with_context(|| place)?;
        tiers.entry(key).or_default().push(run);
    }
    anyhow::ensure!(!tiers.is_empty(), "{} has no rows under its head line", path.display());
    Ok(tiers)
}

/// Without the quotes that spreadsheets put around text; no name or number here has a comma in it.
fn cells(line: &str) -> Vec<&str> {
    line.split(',')
        .map(|cell| cell.trim().trim_matches('"').trim())
        .collect()
}

fn known_name(head: &str) -> &str {
    let is_it = |(column, others): &&(&str, &[&str])| head.eq_ignore_ascii_case(column) || others.contains(&head);
    COLUMNS.iter().find(is_it).map_or(head, |(column, _)| column)
}

fn row(heads: &[&str], line: &str, number_of_line: usize) -> anyhow::Result<(Key, Run)> {
    let cells = cells(line);
    anyhow::ensure!(
        cells.len() == heads.len(),
        "{} cells under {} heads: numbers are written with a point, and nothing with a comma in it",
        cells.len(),
        heads.len()
    );
    let cell = |name: &str| {
        let column = heads.iter().position(|head| *head == name);
        column.and_then(|column| cells.get(column)).copied().unwrap_or_default()
    };
    let positive = |name: &str| {
        let value = cell(name).parse::<f64>().ok();
        value
            .filter(|value| value.is_finite() && *value > 0.0)
            .with_context(|| format!("{name} is `{}`: it must be a number above 0", cell(name)))
    };
    let known = |names: Vec<&str>| names.join(", ");
    let model = model(cell("model")).with_context(|| {
        let all = known(models().iter().map(|model| model.name).collect());
        format!("model `{}` is not known; known are {all}", cell("model"))
    })?;
    let gpu = gpu(cell("gpu")).with_context(|| {
        let all = known(gpus().iter().map(|gpu| gpu.name).collect());
        format!("gpu `{}` is not known; known are {all}", cell("gpu"))
    })?;
    let watts = if cell("power_w").is_empty() {
        None
    } else {
        Some(positive("power_w")?)
    };
    let weights = match cell("weights") {
        "" => Precision::Bf16,
        name => Precision::named(name)
            .with_context(|| format!("weights are `{name}`: there are bf16, fp8, int8, int4, fp4 and mxfp4"))?,
    };
    let run = Run {
        line: number_of_line,
        batch: positive("batch")?,
        prompt: positive("isl")?,
        output: positive("osl")?,
        ttft_s: positive("ttft_ms")? / 1e3,
        tpot_s: positive("tpot_ms")? / 1e3,
        watts,
    };
    let gpus = positive("tensor_parallel")? as u32;
    Ok(((model.name, gpu.name, gpus, weights.name()), run))
}

fn shape(key: Key) -> anyhow::Result<EngineShape> {
    Ok(EngineShape {
        gpu: gpu(key.1).context("a GPU of the catalogue")?,
        model: model(key.0).context("a model of the catalogue")?,
        tensor_parallel: key.2,
        limits: EngineLimits {
            max_num_seqs: 1024,
            max_num_batched_tokens: 8192,
            ..EngineLimits::default()
        },
        deployment: Deployment {
            weights: Precision::named(key.3).unwrap_or_default(),
            ..Deployment::default()
        },
    })
}

fn title(key: Key) -> String {
    let weights = if key.3 == "bf16" {
        String::new()
    } else {
        format!(" in {}", key.3)
    };
    format!("{}{weights} on {} x {}", key.0, key.2, key.1)
}

/// A step in steady state: so many sequences at half their answer, and the share of a prompt that comes in with it.
fn steady(run: &Run) -> StepWork {
    let arriving = run.batch / run.output;
    StepWork {
        prefill_tokens: (arriving * run.prompt).round() as u32,
        prefill_seqs: (arriving.round() as u32).max(u32::from(arriving * run.prompt >= 0.5)),
        prefill_attention: arriving * run.prompt * run.prompt / 2.0,
        prefill_kv_tokens: 0,
        decode_seqs: (run.batch.round() as u32).max(1),
        kv_tokens: (run.batch * (run.prompt + run.output / 2.0)) as u64,
    }
}

/// A tier of these constants.
///
/// `step` and `joules`: fixed, of a sequence, of all experts.
fn tier_of(key: Key, runs: &[Run], step: [f64; 3], joules: [f64; 3], prefill_scale: f64) -> MeasuredTier {
    let batches = runs.iter().map(|run| run.batch);
    let mean_output = runs.iter().map(|run| run.output).sum::<f64>() / runs.len().max(1) as f64;
    MeasuredTier {
        model: key.0.to_owned(),
        gpu: key.1.to_owned(),
        tensor_parallel: key.2,
        weights: Precision::named(key.3).unwrap_or_default(),
        step_ms: 1e3 * step[0],
        step_ms_per_seq: 1e3 * step[1],
        step_joules: joules[0],
        step_joules_per_seq: joules[1],
        experts: (step[2] > 0.0 || joules[2] > 0.0).then_some(ExpertStep {
            ms: 1e3 * step[2],
            joules: joules[2],
        }),
        prefill_scale,
        answer_tokens: mean_output.round(),
        rows: u32::try_from(runs.len()).unwrap_or(u32::MAX),
        batches: [
            batches.clone().fold(f64::INFINITY, f64::min),
            batches.fold(0.0, f64::max),
        ],
        error: FitError { tpot: 0.0, joules: 0.0 },
    }
}

/// The constants for these runs, and whether joules were metered. A step's duration and energy are affine in the batch; what the
/// model says of prompts and of context beyond that is linear in the constants too, so a few rounds of least squares of the
/// relative error settle both.
fn fit(key: Key, runs: &[Run]) -> anyhow::Result<(MeasuredTier, bool)> {
    let shape = shape(key)?;
    let roofline = StepModel::new(&shape)?;
    let distinct = runs.iter().any(|run| (run.batch / runs[0].batch - 1.0).abs() > 0.2);
    anyhow::ensure!(
        runs.len() >= 2 && distinct,
        "{}: a line needs two batches that differ by a fifth or more; line {} of the file has {}",
        title(key),
        runs[0].line,
        runs[0].batch
    );
    let scale_at = |run: &Run| run.ttft_s / roofline.prefill_seconds(run.prompt as u32, 0, 0, 0);
    // Of the smaller batches: at the larger, TTFT is a queue's.
    let mut by_batch: Vec<&Run> = runs.iter().collect();
    by_batch.sort_by(|a, b| a.batch.total_cmp(&b.batch));
    let mut scales: Vec<f64> = by_batch[..runs.len().div_ceil(3)]
        .iter()
        .map(|run| scale_at(run))
        .collect();
    scales.sort_by(f64::total_cmp);
    let prefill_scale = equipoise_types::quantile_of_sorted(&scales, 0.5)
        .unwrap_or(1.0)
        .clamp(0.5, 20.0);
    let metered = runs.iter().all(|run| run.watts.is_some());
    let joules_of = |run: &Run| {
        run.watts
            .filter(|_| metered)
            .map_or_else(|| roofline.cost(&steady(run)).joules.0, |watts| watts * run.tpot_s)
    };
    let measured_s: Vec<f64> = runs.iter().map(|run| run.tpot_s).collect();
    let measured_joules: Vec<f64> = runs.iter().map(joules_of).collect();
    let batches: Vec<f64> = runs.iter().map(|run| run.batch).collect();
    let line = |y: &[f64]| steps(shape.model, &batches, y);
    let (mut step, mut joules) = (line(&measured_s), line(&measured_joules));
    for _ in 0..20 {
        let built = StepModel::measured(&shape, &tier_of(key, runs, step, joules, prefill_scale))?;
        let costs: Vec<_> = runs.iter().map(|run| built.cost(&steady(run))).collect();
        // What the tier says beyond its own lines is taken off the measurement; no less than a fifth remains.
        let rest = |measured: f64, modelled: f64, own: f64| (measured - (modelled - own)).max(0.2 * measured);
        let own = |constants: [f64; 3], run: &Run| {
            let touched = touched(shape.model, run.batch);
            constants[0] + constants[1] * run.batch + constants[2] * touched
        };
        let rest_s: Vec<f64> = (0..runs.len())
            .map(|i| rest(measured_s[i], costs[i].seconds, own(step, &runs[i])))
            .collect();
        let rest_joules: Vec<f64> = (0..runs.len())
            .map(|i| rest(measured_joules[i], costs[i].joules.0, own(joules, &runs[i])))
            .collect();
        (step, joules) = (line(&rest_s), line(&rest_joules));
    }
    let mut tier = tier_of(key, runs, step, joules, prefill_scale);
    let built = StepModel::measured(&shape, &tier)?;
    for ((run, measured_s), measured_joules) in runs.iter().zip(&measured_s).zip(&measured_joules) {
        let cost = built.cost(&steady(run));
        tier.error.tpot = tier.error.tpot.max((cost.seconds / measured_s - 1.0).abs());
        tier.error.joules = tier.error.joules.max((cost.joules.0 / measured_joules - 1.0).abs());
    }
    Ok((tier, metered))
}

/// Parts into which the rows are cut, each to be told by a fit to the others.
const FOLDS: usize = 10;

/// Median error of the time per token on rows that the fit has not seen: a tenth of them at a time, or one where there are fewer than
/// ten. `None` with fewer than four, or where the others have one batch only.
fn held_out(key: Key, runs: &[Run]) -> anyhow::Result<Option<f64>> {
    if runs.len() < 4 {
        return Ok(None);
    }
    let folds = FOLDS.min(runs.len());
    let mut errors: Vec<f64> = Vec::new();
    for fold in 0..folds {
        let of_fold = |(index, _): &(usize, &Run)| index % folds == fold;
        let (unseen, seen): (Vec<_>, Vec<_>) = runs.iter().enumerate().partition(of_fold);
        let seen: Vec<Run> = seen.into_iter().map(|(_, run)| run.clone()).collect();
        // One batch only: no line, no figure.
        let Ok((tier, _)) = fit(key, &seen) else {
            continue;
        };
        let built = StepModel::measured(&shape(key)?, &tier)?;
        errors.extend(
            unseen
                .iter()
                .map(|(_, run)| (built.cost(&steady(run)).seconds / run.tpot_s - 1.0).abs()),
        );
    }
    errors.sort_by(f64::total_cmp);
    Ok(equipoise_types::quantile_of_sorted(&errors, 0.5))
}

/// Share of a mixture's experts that a batch touches; zero for a dense model.
pub(super) fn touched(model: &ModelSpec, batch: f64) -> f64 {
    let share = |experts: Experts| experts.touched(batch) / f64::from(experts.count);
    model.experts.map_or(0.0, share)
}

/// What a step costs: fixed, of each sequence, and of all experts of a mixture. The fixed part is above zero.
///
/// A dense model's line passes by single rows that are far off (left out in turn, rows of ML.ENERGY v3 are 2.1 % off in the median so, and
/// 2.4 % by least squares); a mixture's curve needs them all (4.0 % and 3.5 %).
pub(super) fn steps(model: &ModelSpec, batches: &[f64], y: &[f64]) -> [f64; 3] {
    let one = vec![1.0; batches.len()];
    let share: Vec<f64> = batches.iter().map(|batch| touched(model, *batch)).collect();
    let [fixed, each, experts] = if model.experts.is_some() && batches.len() > 3 {
        least_squares::fit([&one, batches, &share], y)
    } else {
        let [fixed, each] = least_squares::fit_robust([&one, batches], y);
        [fixed, each, 0.0]
    };
    [fixed.max(1e-6), each, experts]
}

fn text(runs: &Path, tiers: Vec<MeasuredTier>) -> String {
    let name = runs.file_name().unwrap_or_default().to_string_lossy();
    let table = MeasuredTable {
        source: name.to_string(),
        licence: "your own".to_owned(),
        engine: "as measured".to_owned(),
        tiers,
    };
    format!(
        "# Fitted by `equipoise calibrate fit {name}`. A step takes so much, so much for each sequence, and of a mixture so much for \
         the\n# share of its experts that the batch touches; prompts take `prefill_scale` times the roofline's time; `error` is the \
         largest\n# relative error over the rows.\n{table}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs as a tier of these constants would have them.
    fn runs(key: Key, truth: &MeasuredTier, batches: &[u32]) -> Vec<Run> {
        let built = StepModel::measured(&shape(key).expect("known"), truth).expect("fits");
        let run = |&batch: &u32| {
            let mut run = Run {
                line: 2,
                batch: f64::from(batch),
                prompt: 500.0,
                output: 200.0,
                ttft_s: 0.02,
                tpot_s: 0.0,
                watts: None,
            };
            let cost = built.cost(&steady(&run));
            run.tpot_s = cost.seconds;
            run.watts = Some(cost.watts.0);
            run.ttft_s = built.prefill_seconds(500, 0, 0, 0);
            run
        };
        batches.iter().map(run).collect()
    }

    #[test]
    fn a_tier_that_is_affine_is_found_again() {
        let key = ("Llama-3.1-8B", "H100", 1, "bf16");
        let truth = tier_of(key, &[], [8e-3, 0.1e-3, 0.0], [4.0, 0.05, 0.0], 1.5);
        let runs = runs(key, &truth, &[2, 4, 8, 16, 32, 64, 96, 128]);
        let (found, metered) = fit(key, &runs).expect("a line");
        assert!(metered);
        assert!(
            found.error.tpot < 0.02 && found.error.joules < 0.03,
            "{:?}",
            found.error
        );
        assert!((found.step_ms / truth.step_ms - 1.0).abs() < 0.05, "{}", found.step_ms);
        assert!(
            (found.prefill_scale / 1.5 - 1.0).abs() < 0.01,
            "{}",
            found.prefill_scale
        );
        let again: MeasuredTable = equipoise_engine::measured_table(&text(Path::new("runs.csv"), vec![found]))
            .expect("what is written can be read");
        assert_eq!(again.tiers.len(), 1);
    }

    #[test]
    fn a_mixture_is_found_again_with_the_experts_that_it_reads() {
        let key = ("gpt-oss-120b", "H100", 1, "mxfp4");
        let truth = tier_of(key, &[], [4e-3, 0.05e-3, 20e-3], [2.0, 0.04, 9.0], 1.2);
        let runs = runs(key, &truth, &[1, 2, 4, 8, 16, 32, 64, 128, 192]);
        let (found, _) = fit(key, &runs).expect("a curve");
        assert!(
            found.error.tpot < 0.03 && found.error.joules < 0.05,
            "{:?}",
            found.error
        );
        let experts = found.experts.expect("it reads them");
        assert!((experts.ms / 20.0 - 1.0).abs() < 0.1, "{experts:?}");
        let again = equipoise_engine::measured_table(&text(Path::new("runs.csv"), vec![found])).expect("readable");
        assert_eq!(again.tiers[0].weights, Precision::Mxfp4);
        assert!((again.tiers[0].experts.expect("kept").ms / experts.ms - 1.0).abs() < 1e-3);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let path = std::env::temp_dir().join(format!("equipoise-fit-{}.csv", std::process::id()));
        let head = "model,gpu,tensor_parallel,batch,isl,osl,ttft_ms,tpot_ms,power_w\n";
        std::fs::write(&path, format!("{head}Llama-3.1-8B,H100,1,8,100,100,10,-1,\n")).expect("writable");
        let error = format!("{:#}", read(&path).expect_err("negative"));
        assert!(error.contains("line 2") && error.contains("tpot_ms is `-1`"), "{error}");
        std::fs::write(&path, "model,gpu\n").expect("writable");
        let error = format!("{:#}", read(&path).expect_err("no columns"));
        assert!(
            error.contains("no column `tensor_parallel`, `batch`") && error.contains("it has model, gpu;"),
            "{error}"
        );
        std::fs::write(&path, format!("{head}Llama-3.1-8B,H100,1,8,100,100,10\n")).expect("writable");
        let error = format!("{:#}", read(&path).expect_err("cut short"));
        assert!(
            error.contains("line 2") && error.contains("7 cells under 9 heads"),
            "{error}"
        );
        // As a sweep of vLLM's own benchmark has it, out of a spreadsheet.
        let sweep = "\u{feff}\"model_id\",gpu,tp,max_concurrency,random_input_len,random_output_len,mean_ttft_ms,mean_tpot_ms\r\n\
                     \"meta-llama/Llama-3.1-8B-Instruct\",H100,1,8,512,128,40.5,7.9\r\n";
        std::fs::write(&path, sweep).expect("writable");
        let tiers = read(&path).expect("known names");
        let (key, runs) = tiers.first_key_value().expect("one");
        assert_eq!((*key, runs[0].batch), (("Llama-3.1-8B", "H100", 1, "bf16"), 8.0));
        std::fs::remove_file(&path).expect("it is there");
    }
}
