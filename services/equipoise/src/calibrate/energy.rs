//! Watts, joules per token and step time of a batch in steady state (ML.ENERGY v3, real vLLM; figures only).

use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{Deployment, EngineLimits, EngineShape, Precision, StepModel, StepWork, gpu, model};

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
    let rows = lines.filter_map(|line| compare(&heads, &line.split(',').collect::<Vec<_>>()));
    Ok(rows.flatten().collect())
}

fn compare(heads: &[&str], cells: &[&str]) -> Option<Vec<Comparison>> {
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
    let step = StepModel::new(&shape).ok()?;
    let output = number("avg_out_len")?;
    let arriving = batch / output;
    let cost = step.cost(&StepWork {
        prefill_tokens: (arriving * prompt_tokens).round() as u32,
        prefill_seqs: arriving.round() as u32,
        prefill_attention: arriving * prompt_tokens * prompt_tokens / 2.0,
        prefill_kv_tokens: 0,
        decode_seqs: batch.round() as u32,
        kv_tokens: (batch * (prompt_tokens + output / 2.0)) as u64,
    });
    let id = ["task", "model", "gpu", "num_gpus", "max_num_seqs"].map(|name| cell(name).unwrap_or_default());
    let comparison = |figure, modelled, measured| Comparison {
        set: format!("ML.ENERGY v3, {}, {kind}", shape.gpu.name),
        figure,
        half: Half::of(&id.join("|")),
        modelled,
        measured,
    };
    Some(vec![
        comparison("step time", cost.seconds, batch / number("out_tok_per_s")?),
        comparison("W", cost.watts.0, number("avg_power_W")?),
        comparison("J/token", cost.joules.0 / batch, number("J_per_out_tok")?),
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
            ("mixtures", "J/token", 0.20),
            ("mixtures", "W", 0.20),
            ("mixtures", "step time", 0.14),
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
