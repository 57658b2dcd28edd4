//! Watts, joules per token and step time of a batch in steady state (ML.ENERGY v3, real vLLM; figures only).

use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{Deployment, EngineLimits, EngineShape, StepModel, StepWork, gpu, model};

use super::score::{Comparison, Half};

/// Prompts of the rows are not published; chat prompts are taken as so many tokens.
const PROMPT_TOKENS: f64 = 150.0;

/// Compares dense bf16 chat rows with the GPU entry's own overheads and power curve.
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
    if cell("task")? != "lm-arena-chat"
        || cell("precision")? != "bfloat16"
        || cell("num_gpus")? != cell("tp")?
        || batch > 600.0
    {
        return None;
    }
    let shape = EngineShape {
        gpu: gpu(cell("gpu")?)?,
        model: model(cell("model")?)?,
        tensor_parallel: number("num_gpus")? as u32,
        limits: EngineLimits {
            max_num_seqs: 1024,
            max_num_batched_tokens: 8192,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    };
    let step = StepModel::new(&shape).ok()?;
    let output = number("avg_out_len")?;
    let arriving = batch / output;
    let cost = step.cost(&StepWork {
        prefill_tokens: (arriving * PROMPT_TOKENS).round() as u32,
        prefill_seqs: arriving.round() as u32,
        prefill_attention: arriving * PROMPT_TOKENS * PROMPT_TOKENS / 2.0,
        prefill_kv_tokens: 0,
        decode_seqs: batch.round() as u32,
        kv_tokens: (batch * (PROMPT_TOKENS + output / 2.0)) as u64,
    });
    let id = ["task", "model", "gpu", "num_gpus", "max_num_seqs"].map(|name| cell(name).unwrap_or_default());
    let comparison = |figure, modelled, measured| Comparison {
        set: format!("ML.ENERGY v3, {}, dense bf16 chat", shape.gpu.name),
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
        for (figure, most) in [("J/token", 0.10), ("W", 0.08), ("step time", 0.10)] {
            let errors = errors(&all, |row| row.figure == figure && row.half == Half::HeldOut).expect("rows");
            assert!(errors.rows >= 20 && errors.median <= most, "{figure}: {errors:?}");
        }
    }
}
