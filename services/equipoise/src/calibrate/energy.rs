//! Watts, joules per token and step time of a batch in steady state (ML.ENERGY v3, real vLLM; figures only).

use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{Deployment, EngineLimits, EngineShape, Precision, StepModel, StepWork, gpu, model};

use super::fit::{steps, touched};
use super::score::{Comparison, Half};

/// Prompts of the rows are not published; chat prompts are taken as so many tokens.
const PROMPT_TOKENS: f64 = 150.0;

/// Prompts of the questions of GPQA.
const QUESTION_TOKENS: f64 = 250.0;

/// Compares chat rows, dense ones in bf16 and mixtures of experts in any format, with the GPU entry's own overheads and power
/// curve. gpt-oss was measured with GPQA only and counts with that; the other models' GPQA rows do not: their host was the
/// bottleneck (Qwen3-14B alone on a B200 takes 34 ms a step in GPQA and 9 ms in chat).
pub(super) fn score(data: &Path) -> anyhow::Result<Vec<Comparison>> {
    let path = data.join("energy/mlenergy_v3.csv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let rows: Vec<Row> = lines
        .filter_map(|line| row(&heads, &line.split(',').collect::<Vec<_>>()))
        .collect();
    let mut all: Vec<Comparison> = rows.iter().filter_map(compare).flatten().collect();
    all.extend(calibrated(&rows));
    Ok(all)
}

struct Row {
    /// What it is called in the file.
    id: String,
    set: String,
    shape: EngineShape,
    batch: f64,
    prompt_tokens: f64,
    output_tokens: f64,
    tokens_per_s: f64,
    watts: f64,
    joules_per_token: f64,
}

/// Each configuration's joules per step as `calibrate fit` has them (fixed, of a sequence, of the experts that a batch touches),
/// fitted on all rows of the configuration but the one that is scored.
fn calibrated(rows: &[Row]) -> Vec<Comparison> {
    let key = |row: &Row| {
        (
            row.shape.model.name,
            row.shape.gpu.name,
            row.shape.tensor_parallel,
            row.shape.deployment.weights,
        )
    };
    let mut all = Vec::new();
    for row in rows {
        let others: Vec<&Row> = rows
            .iter()
            .filter(|other| key(other) == key(row) && other.id != row.id)
            .collect();
        let distinct = others
            .iter()
            .any(|other| (other.batch / others[0].batch - 1.0).abs() > 0.2);
        if others.len() < 4 || !distinct {
            continue;
        }
        let batches: Vec<f64> = others.iter().map(|other| other.batch).collect();
        let joules: Vec<f64> = others
            .iter()
            .map(|other| other.joules_per_token * other.batch)
            .collect();
        let [fixed, each, experts] = steps(row.shape.model, &batches, &joules);
        let modelled = fixed + each * row.batch + experts * touched(row.shape.model, row.batch);
        all.push(Comparison {
            set: row.set.clone(),
            figure: "J/token, calibrated",
            half: Half::HeldOut,
            modelled: modelled / row.batch,
            measured: row.joules_per_token,
        });
    }
    all
}

fn row(heads: &[&str], cells: &[&str]) -> Option<Row> {
    let cell = |name: &str| Some(*cells.get(heads.iter().position(|head| *head == name)?)?);
    let number = |name: &str| cell(name)?.parse::<f64>().ok();
    let batch = number("avg_batch_size")?;
    let name = cell("model")?;
    let model = model(name.trim_end_matches("-FP8"))?;
    let weights = match cell("precision")? {
        "bfloat16" => Precision::Bf16,
        "fp8" => Precision::Fp8,
        "mxfp4" => Precision::Mxfp4,
        _ => return None,
    };
    let (prompt_tokens, kind) = match (cell("task")?, model.experts.is_some()) {
        ("lm-arena-chat", false) if weights == Precision::Bf16 => (PROMPT_TOKENS, "dense bf16 chat"),
        ("lm-arena-chat", true) => (PROMPT_TOKENS, "mixtures"),
        ("gpqa", true) if name.contains("gpt-oss") => (QUESTION_TOKENS, "mixtures"),
        _ => return None,
    };
    // Mixtures' GPUs are all given as expert parallel; their attention is split over the same.
    let experts_apart = number("ep").is_some_and(|gpus| gpus > 1.0);
    if batch > 600.0 || number("dp").is_some_and(|replicas| replicas > 1.0) {
        return None;
    }
    if !experts_apart && cell("num_gpus")? != cell("tp")? {
        return None;
    }
    let shape = EngineShape {
        gpu: gpu(cell("gpu")?)?,
        model,
        tensor_parallel: number("num_gpus")? as u32,
        limits: EngineLimits {
            max_num_seqs: 1024,
            max_num_batched_tokens: 8192,
            ..EngineLimits::default()
        },
        deployment: Deployment {
            weights,
            expert_parallel: experts_apart,
            ..Deployment::default()
        },
    };
    let id = ["task", "model", "gpu", "num_gpus", "max_num_seqs"].map(|name| cell(name).unwrap_or_default());
    Some(Row {
        id: id.join("|"),
        set: format!("ML.ENERGY v3, {}, {kind}", shape.gpu.name),
        shape,
        batch,
        prompt_tokens,
        output_tokens: number("avg_out_len")?,
        tokens_per_s: number("out_tok_per_s")?,
        watts: number("avg_power_W")?,
        joules_per_token: number("J_per_out_tok")?,
    })
}

/// By the engine model, with nothing fitted to the configuration.
fn compare(row: &Row) -> Option<Vec<Comparison>> {
    let step = StepModel::new(&row.shape).ok()?;
    let (batch, prompt) = (row.batch, row.prompt_tokens);
    let arriving = batch / row.output_tokens;
    let cost = step.cost(&StepWork {
        prefill_tokens: (arriving * prompt).round() as u32,
        prefill_seqs: arriving.round() as u32,
        prefill_attention: arriving * prompt * prompt / 2.0,
        prefill_kv_tokens: 0,
        decode_seqs: batch.round() as u32,
        kv_tokens: (batch * (prompt + row.output_tokens / 2.0)) as u64,
    });
    let comparison = |figure, modelled, measured| Comparison {
        set: row.set.clone(),
        figure,
        half: Half::of(&row.id),
        modelled,
        measured,
    };
    Some(vec![
        comparison("step time", cost.seconds, batch / row.tokens_per_s),
        comparison("W", cost.watts.0, row.watts),
        comparison("J/token", cost.joules.0 / batch, row.joules_per_token),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::score::{data, errors};

    #[test]
    fn joules_per_token_stay_within_the_target() {
        let Some(data) = data() else { return };
        let all = score(&data).expect("the rows can be read");
        for (kind, figure, most) in [
            ("dense", "J/token", 0.10),
            ("dense", "W", 0.08),
            ("dense", "step time", 0.10),
            ("mixtures", "J/token", 0.10),
            ("mixtures", "W", 0.12),
            ("mixtures", "step time", 0.12),
            ("dense", "J/token, calibrated", 0.025),
            ("mixtures", "J/token, calibrated", 0.06),
        ] {
            let wanted = |row: &Comparison| row.figure == figure && row.half == Half::HeldOut && row.set.contains(kind);
            let errors = errors(&all, wanted).expect("rows");
            assert!(
                errors.rows >= 20 && errors.median <= most,
                "{kind} {figure}: {errors:?}"
            );
        }
    }
}
