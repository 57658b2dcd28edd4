//! Prompt and token times of Llama-2-70B on A100 and H100 (splitwise-sim's table, MIT): an engine of 2023.

use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{
    Deployment, EngineLimits, EngineShape, Precision, StepModel, StepWork, calibration, gpu, model,
};

use super::score::{Comparison, Half};

/// The engine's name in the catalogue.
const RUNTIME: &str = "splitwise-2023";

/// Compares every row of Llama-2-70B; power-capped boards and Bloom (whose architecture the catalogue lacks) are left out.
pub(super) fn score(data: &Path) -> anyhow::Result<Vec<Comparison>> {
    let path = data.join("performance/splitwise_perf_model.csv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let mut all = Vec::new();
    for line in lines {
        all.extend(compare(&heads, &line.split(',').collect::<Vec<_>>())?);
    }
    Ok(all)
}

fn compare(heads: &[&str], cells: &[&str]) -> anyhow::Result<Vec<Comparison>> {
    let cell = |name: &str| {
        let column = heads.iter().position(|head| *head == name);
        column.and_then(|column| cells.get(column)).copied().unwrap_or_default()
    };
    let number = |name: &str| cell(name).parse::<f64>().with_context(|| format!("column {name}"));
    let board = match cell("hardware") {
        "a100-80gb" => "A100-80G",
        "h100-80gb" => "H100",
        _ => return Ok(Vec::new()),
    };
    let (Some(gpu), Some(model)) = (gpu(board), model(&cell("model").replace("llama2", "Llama-2"))) else {
        return Ok(Vec::new());
    };
    let shape = EngineShape {
        gpu,
        model,
        tensor_parallel: number("tensor_parallel")? as u32,
        limits: EngineLimits {
            max_num_batched_tokens: 65_536,
            num_gpu_blocks: Some(1 << 20),
            ..EngineLimits::default()
        },
        deployment: Deployment {
            calibration: Some(calibration(RUNTIME, gpu, Precision::Bf16)?),
            ..Deployment::default()
        },
    };
    let step = StepModel::new(&shape)?;
    let [prompt, batch, output] = [number("prompt_size")?, number("batch_size")?, number("token_size")?];
    let prompts = StepWork {
        prefill_tokens: (prompt * batch) as u32,
        prefill_seqs: batch as u32,
        prefill_attention: batch * prompt * prompt / 2.0,
        ..StepWork::default()
    };
    let id = [
        "model",
        "hardware",
        "tensor_parallel",
        "prompt_size",
        "batch_size",
        "token_size",
    ]
    .map(cell)
    .join("|");
    let comparison = |figure, modelled: f64, measured_ms: f64| Comparison {
        set: format!("splitwise, {board}, Llama-2-70B"),
        figure,
        half: Half::of(&id),
        modelled: modelled * 1e3,
        measured: measured_ms,
    };
    let context = (batch * (prompt + output / 2.0)) as u64;
    Ok(vec![
        comparison("prompt time", step.cost(&prompts).seconds, number("prompt_time")?),
        comparison(
            "token time",
            step.decode_step_seconds(batch as u32, context),
            number("token_time")?,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::score::{data, errors};

    #[test]
    fn prompt_and_token_times_stay_within_the_stated_errors() {
        let Some(data) = data() else { return };
        let all = score(&data).expect("the table can be read");
        for (figure, most) in [("prompt time", 0.08), ("token time", 0.05)] {
            let errors = errors(&all, |row| row.figure == figure && row.half == Half::HeldOut).expect("rows");
            assert!(errors.rows >= 50 && errors.median <= most, "{figure}: {errors:?}");
        }
    }
}
