//! Closed-loop benchmarks of real engines: TTFT and TPOT (AIConfigurator's silicon sample, Apache-2.0), dense models.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{
    Deployment, EngineLimits, EngineShape, GpuSpec, ModelSpec, Precision, StepModel, calibration, gpu, model,
};

use super::closed_loop::{Load, serve};
use super::score::{Comparison, Half};

struct Row {
    id: String,
    model: &'static ModelSpec,
    gpu: &'static GpuSpec,
    runtime: String,
    weights: Precision,
    kv_cache: Precision,
    tensor_parallel: u32,
    load: Load,
    ttft_s: f64,
    tpot_s: f64,
}

/// Serves every row and compares; `progress` hears how many of how many are done.
pub(super) fn score(data: &Path, mut progress: impl FnMut(usize, usize)) -> anyhow::Result<Vec<Comparison>> {
    let rows = read(&data.join("performance/silicon_sample.csv.gz"))?;
    let mut all = Vec::with_capacity(2 * rows.len());
    for (index, row) in rows.iter().enumerate() {
        all.extend(compare(row)?);
        progress(index + 1, rows.len());
    }
    Ok(all)
}

fn compare(row: &Row) -> anyhow::Result<Vec<Comparison>> {
    let shape = EngineShape {
        gpu: row.gpu,
        model: row.model,
        tensor_parallel: row.tensor_parallel,
        limits: EngineLimits {
            max_num_seqs: 1024,
            max_num_batched_tokens: 8192,
            ..EngineLimits::default()
        },
        deployment: Deployment {
            weights: row.weights,
            kv_cache: row.kv_cache,
            calibration: Some(calibration(&row.runtime, row.gpu, row.weights)?),
            ..Deployment::default()
        },
    };
    // A few were run with more memory than the default leaves: nothing to compare with.
    let Ok(step) = StepModel::new(&shape) else {
        return Ok(Vec::new());
    };
    let means = serve(&step, row.load).with_context(|| row.id.clone())?;
    let set = format!("{}, {}, {}", row.runtime, row.gpu.name, row.weights.name());
    let comparison = |figure, modelled, measured| Comparison {
        set: set.clone(),
        figure,
        half: Half::of(&row.id),
        modelled,
        measured,
    };
    Ok(vec![
        comparison("TPOT", means.tpot_s, row.tpot_s),
        comparison("TTFT", means.ttft_s, row.ttft_s),
    ])
}

fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let rows = lines.filter_map(|line| row(&heads, &line.split(',').collect::<Vec<_>>()));
    Ok(rows.collect())
}

/// A row of a dense model on a GPU of the catalogue, served by one instance. Left out are rows whose concurrency is that of
/// several instances (the file says how many requests a fleet had out, not how many this instance).
fn row(heads: &[&str], cells: &[&str]) -> Option<Row> {
    let cell = |name: &str| Some(*cells.get(heads.iter().position(|head| *head == name)?)?);
    let number = |name: &str| cell(name)?.parse::<f64>().ok();
    let source = cell("silicon_data_source")?;
    let model = model(cell("model_path")?).filter(|model| model.experts.is_none())?;
    let gpu = gpu(&cell("system")?.replace('_', " "))?;
    let replicas = cell("attention_dp_size")?;
    if cell("mode")? != "agg" || !matches!(replicas, "" | "0" | "1") || of_a_fleet(source) {
        return None;
    }
    let published = source.contains("2026-04-06.csv");
    let runtime = match cell("backend")? {
        "trtllm" if !published => "trtllm-1.0rc",
        other => other,
    }
    .to_owned();
    let weights = match cell("precision")? {
        "" | "bf16" => Precision::Bf16,
        "fp8" => Precision::Fp8,
        "fp4" => Precision::Fp4,
        _ => return None,
    };
    let kv_cache = if weights != Precision::Bf16 && (published || runtime.starts_with("trtllm")) {
        Precision::Fp8
    } else {
        Precision::Bf16
    };
    let concurrency = concurrency(source).or_else(|| Some(number("batch_size")? as u32))?;
    // Prompts of one length that come back together keep coming back together; the others' lengths vary.
    let together = runtime == "sglang" && gpu.name == "H100";
    let [output, gpus] = [number("osl")?, number("tp_size")?];
    // TensorRT-LLM's `stream_interval`, which the file does not tell: the extra TTFT of these settings alone is 19 steps.
    let in_chunks = runtime == "trtllm" && output == 1024.0 && gpus < 8.0;
    Some(Row {
        id: cell("id")?.to_owned(),
        model,
        gpu,
        tensor_parallel: number("tp_size")? as u32,
        load: Load {
            concurrency,
            requests: if together { 2 } else { 10 } * concurrency,
            prompt_tokens: number("isl")? as u32,
            output_tokens: number("osl")? as u32,
            first_chunk_tokens: if in_chunks { 20 } else { 1 },
            least_share: if together { 1.0 } else { 0.8 },
        },
        ttft_s: number("silicon_ttft_ms")? / 1e3,
        tpot_s: number("silicon_tpot_ms")? / 1e3,
        runtime,
        weights,
        kv_cache,
    })
}

fn of_a_fleet(source: &str) -> bool {
    ["nvidia_Llama-3.1-8B", "nvidia_Qwen3-32B", "qwen3_32b.csv"]
        .iter()
        .any(|file| source.contains(file))
}

fn concurrency(source: &str) -> Option<u32> {
    let (_, rest) = source.split_once("silicon_concurrency=")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::score::errors;

    #[test]
    fn the_held_out_half_stays_within_the_stated_errors() {
        let Some(data) = crate::calibrate::score::data() else {
            return;
        };
        let all = score(&data, |_, _| ()).expect("the sample can be read");
        for (figure, most) in [("TPOT", 0.06), ("TTFT", 0.20)] {
            let errors = errors(&all, |row| row.figure == figure && row.half == Half::HeldOut).expect("rows");
            assert!(errors.rows > 200, "{}", errors.rows);
            assert!(errors.median <= most, "{figure}: median error {}", errors.median);
        }
    }
}
