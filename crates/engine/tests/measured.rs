//! The model against the ML.ENERGY v3 rows whose model is in the catalogue, batches to 600: the errors that the docs state.
//!
//! Reads ML.ENERGY v3 from `$EQUIPOISE_DATA` (default: `shared/data` beside the repository) and is skipped without it.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test file: it fails by panic and says aloud when it is skipped"
)]

use equipoise_engine::{Deployment, EngineLimits, EngineShape, StepModel, StepWork, gpu, model};
use std::collections::BTreeMap;
use std::path::PathBuf;

struct Row {
    name: String,
    gpu: String,
    gpus: u32,
    batch: f64,
    watts: f64,
    joules_per_token: f64,
    output: f64,
    tokens_per_second: f64,
}

fn rows() -> Option<Vec<Row>> {
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its data lies")]
    let folder = std::env::var("EQUIPOISE_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = folder.join("energy/mlenergy_v3.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!(
            "SKIPPED: no {}: set EQUIPOISE_DATA to check the model against measurements",
            path.display()
        );
        return None;
    };
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().expect("a head line").split(',').collect();
    let column = |name: &str| heads.iter().position(|head| *head == name).expect("a known column");
    let [
        task,
        name,
        precision,
        board,
        gpus,
        tp,
        batch,
        watts,
        joules,
        output,
        rate,
    ] = [
        "task",
        "model",
        "precision",
        "gpu",
        "num_gpus",
        "tp",
        "avg_batch_size",
        "avg_power_W",
        "J_per_out_tok",
        "avg_out_len",
        "out_tok_per_s",
    ]
    .map(column);
    let rows = lines.map(|line| line.split(',').collect::<Vec<_>>()).filter(|cells| {
        cells[task] == "lm-arena-chat"
            && cells[precision] == "bfloat16"
            && cells[gpus] == cells[tp]
            && model(cells[name]).is_some_and(|model| model.experts.is_none())
    });
    let number = |cells: &[&str], column: usize| cells[column].parse::<f64>().expect("a number");
    let rows = rows.map(|cells| Row {
        name: cells[name].to_owned(),
        gpu: cells[board].to_owned(),
        gpus: number(&cells, gpus) as u32,
        batch: number(&cells, batch),
        watts: number(&cells, watts),
        joules_per_token: number(&cells, joules),
        output: number(&cells, output),
        tokens_per_second: number(&cells, rate),
    });
    Some(rows.filter(|row| row.batch <= 600.0).collect())
}

/// A step of a batch in steady state. Prompts are taken as 150 tokens, as in the fit.
fn steady(row: &Row) -> StepWork {
    const PROMPT: f64 = 150.0;
    let arriving = row.batch / row.output;
    StepWork {
        prefill_tokens: (arriving * PROMPT).round() as u32,
        prefill_seqs: arriving.round() as u32,
        prefill_attention: arriving * PROMPT * PROMPT / 2.0,
        prefill_kv_tokens: 0,
        decode_seqs: row.batch.round() as u32,
        kv_tokens: (row.batch * (PROMPT + row.output / 2.0)) as u64,
    }
}

#[test]
fn step_time_power_and_energy_stay_within_the_stated_errors() {
    let Some(rows) = rows() else { return };
    let mut errors: BTreeMap<String, Vec<[f64; 3]>> = BTreeMap::new();
    for row in &rows {
        let shape = EngineShape {
            gpu: gpu(&row.gpu).expect("known"),
            model: model(&row.name).expect("known"),
            tensor_parallel: row.gpus,
            limits: EngineLimits {
                max_num_seqs: 1024,
                max_num_batched_tokens: 8192,
                ..EngineLimits::default()
            },
            deployment: Deployment::default(),
        };
        let cost = StepModel::new(&shape).expect("it ran").cost(&steady(row));
        let error = |value: f64, measured: f64| (value / measured - 1.0).abs();
        errors.entry(row.gpu.clone()).or_default().push([
            error(cost.seconds, row.batch / row.tokens_per_second),
            error(cost.watts.0, row.watts),
            error(cost.joules.0 / row.batch, row.joules_per_token),
        ]);
    }
    for (board, most) in [("H100", [0.07, 0.08, 0.06]), ("B200", [0.10, 0.09, 0.075])] {
        let rows = &errors[board];
        assert!(rows.len() >= 30, "{board} has {} rows", rows.len());
        for (kind, name) in ["step time", "power", "joules per token"].into_iter().enumerate() {
            let mean = rows.iter().map(|row| row[kind]).sum::<f64>() / rows.len() as f64;
            println!("{board} {name}: {:.1} % over {} rows", 100.0 * mean, rows.len());
            assert!(mean <= most[kind], "{board} {name}: mean error {mean}");
        }
    }
}
