//! The measured tiers against the rows they were fitted to: the fit is made anew and compared with what ships, and the step
//! model is asked for the time and energy of every row.
//!
//! Reads ML.ENERGY v2 from `$EQUIPOISE_DATA` (default: `shared/data` beside the repository) and is skipped without it. To
//! print the table: `cargo test -p equipoise-engine --test measured_tiers -- --nocapture`.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test file: it fails by panic and says aloud when it is skipped"
)]

use equipoise_engine::{
    Deployment, EngineLimits, EngineShape, MeasuredTier, Precision, StepModel, StepWork, gpu, measured_table,
    measured_tier, model,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Prompts of the rows are not published; taken as 150 tokens, as in the other fits.
const PROMPT: f64 = 150.0;
/// Above it engines ran out of KV memory, and fleets do not go there.
const LARGEST_BATCH: f64 = 321.0;

#[derive(Clone, Copy)]
struct Row {
    batch: f64,
    answer: f64,
    joules_per_token: f64,
    tpot_s: f64,
}

type Key = (&'static str, &'static str, u32);

/// Rows of task chat by tier, for the models of the measured fleet.
fn rows() -> Option<BTreeMap<Key, Vec<Row>>> {
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its data lies")]
    let folder = std::env::var("EQUIPOISE_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = folder.join("energy/mlenergy_v2.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!(
            "SKIPPED: no {}: set EQUIPOISE_DATA to fit the measured tiers anew",
            path.display()
        );
        return None;
    };
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().expect("a head line").split(',').collect();
    let column = |name: &str| heads.iter().position(|head| *head == name).expect("a known column");
    let columns = [
        "task",
        "model",
        "gpu",
        "tp",
        "pp",
        "avg_bs",
        "avg_out_tok",
        "J_per_out_tok",
        "tpot_ms",
    ];
    let [task, name, board, tp, pp, batch, answer, joules, tpot] = columns.map(column);
    let mut tiers: BTreeMap<Key, Vec<Row>> = BTreeMap::new();
    for cells in lines.map(|line| line.split(',').collect::<Vec<_>>()) {
        let (Some(model), Some(gpu)) = (model(cells[name]), gpu(cells[board])) else {
            continue;
        };
        let number = |column: usize| cells[column].parse::<f64>().expect("a number");
        let fleet = model.name.starts_with("Gemma-2") || ["Llama-3.1-8B", "Llama-3.1-70B"].contains(&model.name);
        if cells[task] != "chat" || cells[pp] != "1" || !fleet || number(batch) > LARGEST_BATCH {
            continue;
        }
        let row = Row {
            batch: number(batch),
            answer: number(answer),
            joules_per_token: number(joules),
            tpot_s: number(tpot) / 1e3,
        };
        tiers
            .entry((model.name, gpu.name, number(tp) as u32))
            .or_default()
            .push(row);
    }
    tiers.retain(|_, rows| rows.len() >= 2);
    Some(tiers)
}

fn shape((model_name, gpu_name, tensor_parallel): Key) -> EngineShape {
    EngineShape {
        gpu: gpu(gpu_name).expect("known"),
        model: model(model_name).expect("known"),
        tensor_parallel,
        limits: EngineLimits {
            max_num_seqs: 512,
            max_num_batched_tokens: 8192,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    }
}

fn decode(row: &Row) -> StepWork {
    StepWork {
        decode_seqs: row.batch.round() as u32,
        kv_tokens: (row.batch * 350.0) as u64,
        ..StepWork::default()
    }
}

/// One prompt of [`PROMPT`] tokens beside the batch of a row.
fn with_prompt(row: &Row) -> StepWork {
    StepWork {
        prefill_tokens: PROMPT as u32,
        prefill_seqs: 1,
        prefill_attention: PROMPT * PROMPT / 2.0,
        ..decode(row)
    }
}

/// Time per token and joules per token of a batch in steady state: every step decodes it, and in `batch / answer` of them
/// a prompt comes in.
fn steady(model: &StepModel, row: &Row) -> (f64, f64) {
    let (plain, busy) = (model.cost(&decode(row)), model.cost(&with_prompt(row)));
    let share = row.batch / row.answer;
    let mix = |plain: f64, busy: f64| plain + share * (busy - plain);
    (
        mix(plain.seconds, busy.seconds),
        mix(plain.joules.0, busy.joules.0) / row.batch,
    )
}

/// `y = a + b x` by least squares of relative errors; no coefficient is negative.
fn affine(points: &[(f64, f64)]) -> (f64, f64) {
    let mut sums = [0.0; 5];
    for &(x, y) in points {
        let weight = 1.0 / (y * y);
        for (sum, value) in sums.iter_mut().zip([1.0, x, x * x, y, x * y]) {
            *sum += weight * value;
        }
    }
    let [one, x, xx, y, xy] = sums;
    let slope = (one * xy - x * y) / (one * xx - x * x);
    let fixed = (y - slope * x) / one;
    assert!(fixed > 0.0 && slope > 0.0, "{fixed} {slope}");
    (fixed, slope)
}

fn fit(key: Key, rows: &[Row]) -> MeasuredTier {
    let roofline = StepModel::new(&shape(key)).expect("it ran");
    let largest = rows.iter().max_by(|a, b| a.batch.total_cmp(&b.batch)).expect("rows");
    let prefill_scale = largest.tpot_s / roofline.cost(&decode(largest)).seconds;
    let prompts = |row: &Row| {
        let (plain, busy) = (roofline.cost(&decode(row)), roofline.cost(&with_prompt(row)));
        let share = row.batch / row.answer;
        (
            share * prefill_scale * (busy.seconds - plain.seconds),
            share * (busy.joules.0 - plain.joules.0),
        )
    };
    let times: Vec<_> = rows
        .iter()
        .map(|row| (row.batch, row.tpot_s - prompts(row).0))
        .collect();
    let joules: Vec<_> = rows
        .iter()
        .map(|row| (row.batch, row.joules_per_token * row.batch - prompts(row).1))
        .collect();
    let ((step_s, step_s_per_seq), (step_joules, step_joules_per_seq)) = (affine(&times), affine(&joules));
    let batches = rows.iter().map(|row| row.batch);
    let least = batches.clone().fold(f64::INFINITY, f64::min);
    let mut tier = MeasuredTier {
        model: key.0.to_owned(),
        gpu: key.1.to_owned(),
        tensor_parallel: key.2,
        weights: Precision::Bf16,
        step_ms: 1e3 * step_s,
        step_ms_per_seq: 1e3 * step_s_per_seq,
        step_joules,
        step_joules_per_seq,
        experts: None,
        prefill_scale,
        answer_tokens: rows.iter().map(|row| row.answer).sum::<f64>() / rows.len() as f64,
        rows: rows.len() as u32,
        batches: [least, batches.fold(0.0, f64::max)],
        error: equipoise_engine::FitError { tpot: 0.0, joules: 0.0 },
    };
    let [tpot, joules] = worst(key, &tier, rows);
    tier.error = equipoise_engine::FitError { tpot, joules };
    tier
}

/// Largest relative errors over the rows: time and joules per token.
fn worst(key: Key, tier: &MeasuredTier, rows: &[Row]) -> [f64; 2] {
    let model = StepModel::measured(&shape(key), tier).expect("it ran");
    let error = |value: f64, measured: f64| (value / measured - 1.0).abs();
    rows.iter().fold([0.0, 0.0], |[tpot, joules], row| {
        let (seconds, joules_per_token) = steady(&model, row);
        [
            f64::max(tpot, error(seconds, row.tpot_s)),
            f64::max(joules, error(joules_per_token, row.joules_per_token)),
        ]
    })
}

#[test]
fn the_fit_gives_the_constants_that_ship() {
    let Some(tiers) = rows() else { return };
    let mut fitted = Vec::new();
    for (key, rows) in &tiers {
        fitted.push(fit(*key, rows));
        println!("{}", fitted[fitted.len() - 1]);
    }
    let shipped = measured_table("mlenergy-v2").expect("it ships").tiers;
    assert_eq!(shipped.len(), fitted.len());
    for (shipped, fitted) in shipped.iter().zip(&fitted) {
        assert_eq!(
            (&shipped.model, &shipped.gpu, shipped.tensor_parallel),
            (&fitted.model, &fitted.gpu, fitted.tensor_parallel)
        );
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 2e-3;
        assert!(
            near(shipped.step_ms, fitted.step_ms)
                && near(shipped.step_ms_per_seq, fitted.step_ms_per_seq)
                && near(shipped.step_joules, fitted.step_joules)
                && near(shipped.step_joules_per_seq, fitted.step_joules_per_seq)
                && near(shipped.prefill_scale, fitted.prefill_scale),
            "{shipped:?} {fitted:?}"
        );
    }
}

#[test]
fn the_step_model_gives_time_and_joules_back_within_the_stated_error() {
    let Some(tiers) = rows() else { return };
    for (key, rows) in &tiers {
        let shape = shape(*key);
        let tier = measured_tier("mlenergy-v2", shape.model, shape.gpu, key.2).expect("it ships");
        let [tpot, joules] = worst(*key, &tier, rows);
        assert!(tpot <= tier.error.tpot + 1e-3, "{key:?}: {tpot}");
        assert!(joules <= tier.error.joules + 1e-3, "{key:?}: {joules}");
    }
}
