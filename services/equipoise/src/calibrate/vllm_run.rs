//! Two real vLLM runs of 300 requests, replayed arrival by arrival (published by LLMServingSim, MIT).

use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{
    Deployment, Engine, EngineEvent, EngineLimits, EngineRequest, EngineShape, GpuSpec, StepModel, gpu, model,
};
use equipoise_types::RequestId;

/// One figure of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RunFigure {
    pub(super) run: &'static str,
    pub(super) figure: &'static str,
    /// Relative errors of mean, median, 90th and 99th percentile.
    pub(super) errors: [f64; 4],
}

struct Observed {
    arrival_s: f64,
    prompt_tokens: u32,
    output_tokens: u32,
    first_s: f64,
    last_s: f64,
}

/// A board that no catalogue of data-centre GPUs has: vendor figures, what the run itself reached, and its KV blocks.
struct Board {
    run: &'static str,
    folder: &'static str,
    like: &'static str,
    peak_flops: f64,
    bandwidth: f64,
    memory_bytes: u64,
    tdp_watts: f64,
    bandwidth_efficiency: f64,
    kv_efficiency: f64,
    flops_efficiency: f64,
    attention_efficiency: f64,
    max_num_seqs: u32,
    layer_seconds: f64,
    sequence_seconds: f64,
    num_gpu_blocks: Option<u32>,
}

/// Vendor figures: GeForce RTX 4090 (bf16 with fp32 accumulation) and RTX PRO 6000 Blackwell data sheets. Efficiencies and
/// overheads of a board are fitted to the half of its own requests whose id hashes to an even CRC-32: speed is calibrated
/// here, queueing is what is tested.
const BOARDS: [Board; 2] = [
    Board {
        run: "RTX 4090, Llama-3.1-8B",
        folder: "RTX4090_Llama-3.1-8B",
        like: "L40S",
        peak_flops: 165.2e12,
        bandwidth: 1008e9,
        memory_bytes: 25_250_627_584,
        tdp_watts: 450.0,
        bandwidth_efficiency: 0.990,
        kv_efficiency: 0.965,
        flops_efficiency: 0.916,
        attention_efficiency: 0.751,
        max_num_seqs: 256,
        layer_seconds: 47.1e-6,
        sequence_seconds: 71.0e-6,
        num_gpu_blocks: Some(2588),
    },
    Board {
        run: "RTX PRO 6000, Llama-3.1-8B",
        folder: "RTXPRO6000_Llama-3.1-8B",
        like: "L40S",
        peak_flops: 503.8e12,
        bandwidth: 1792e9,
        memory_bytes: 102_000_000_000,
        tdp_watts: 600.0,
        bandwidth_efficiency: 0.771,
        kv_efficiency: 0.990,
        flops_efficiency: 0.657,
        attention_efficiency: 0.407,
        max_num_seqs: 128,
        layer_seconds: 48.6e-6,
        sequence_seconds: 31.6e-6,
        num_gpu_blocks: None,
    },
];

/// Replays both runs.
pub(super) fn score(data: &Path) -> anyhow::Result<Vec<RunFigure>> {
    let mut all = Vec::new();
    for board in &BOARDS {
        let folder = data.join("performance/vllm_runs").join(board.folder);
        let observed = read(&folder.join("requests.jsonl"))?;
        let step = step_model(board)?;
        let times = replay(&observed, &mut Engine::new(step))?;
        all.extend(figures(board.run, &observed, &times));
    }
    Ok(all)
}

fn step_model(board: &Board) -> anyhow::Result<StepModel> {
    let like = gpu(board.like).with_context(|| format!("{} is not in the catalogue", board.like))?;
    let spec = GpuSpec {
        peak_flops: board.peak_flops,
        bandwidth: board.bandwidth,
        memory_bytes: board.memory_bytes,
        tdp_watts: board.tdp_watts,
        bandwidth_efficiency: board.bandwidth_efficiency,
        kv_efficiency: board.kv_efficiency,
        attention_efficiency: board.attention_efficiency,
        flops_efficiency: board.flops_efficiency,
        layer_seconds: board.layer_seconds,
        sequence_seconds: board.sequence_seconds,
        ..like.clone()
    };
    let shape = EngineShape {
        // Shapes refer to catalogue entries, which live as long as the program; so does this one.
        gpu: Box::leak(Box::new(spec)),
        model: model("Llama-3.1-8B").context("Llama-3.1-8B is not in the catalogue")?,
        tensor_parallel: 1,
        limits: EngineLimits {
            max_num_seqs: board.max_num_seqs,
            num_gpu_blocks: board.num_gpu_blocks,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    };
    Ok(StepModel::new(&shape)?)
}

fn read(path: &Path) -> anyhow::Result<Vec<Observed>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{}, line {}", path.display(), index + 1);
        let row: serde_json::Value = serde_json::from_str(line).with_context(place)?;
        let number = |key: &str| {
            row[key]
                .as_f64()
                .with_context(|| format!("{}: no number `{key}`", place()))
        };
        all.push(Observed {
            arrival_s: number("queued_ts")?,
            prompt_tokens: number("input_toks")? as u32,
            output_tokens: number("output_toks")? as u32,
            first_s: number("first_token_ts")?,
            last_s: number("last_token_ts")?,
        });
    }
    all.sort_by(|a, b| a.arrival_s.total_cmp(&b.arrival_s));
    Ok(all)
}

/// First and last token of each request.
fn replay(requests: &[Observed], engine: &mut Engine) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut times = vec![(f64::NAN, f64::NAN); requests.len()];
    let mut now_s = requests.first().map_or(0.0, |request| request.arrival_s);
    let mut next = 0;
    let mut events = Vec::new();
    loop {
        while let Some(request) = requests.get(next).filter(|request| request.arrival_s <= now_s) {
            engine.submit(EngineRequest {
                id: RequestId(next as u64),
                prompt_tokens: request.prompt_tokens,
                output_tokens: request.output_tokens,
                cached_tokens: 0,
            })?;
            next += 1;
        }
        match (engine.begin_step(), requests.get(next)) {
            (Some(step), _) => now_s += step.cost.seconds,
            (None, Some(request)) => now_s = request.arrival_s,
            (None, None) => return Ok(times),
        }
        engine.end_step(&mut events);
        for event in events.drain(..) {
            let (first_s, last_s) = &mut times[event.id().0 as usize];
            match event {
                EngineEvent::FirstToken { .. } => *first_s = now_s,
                EngineEvent::Finished { .. } => *last_s = now_s,
                EngineEvent::Token { .. } | EngineEvent::Preempted { .. } => {}
            }
        }
    }
}

fn figures(run: &'static str, observed: &[Observed], times: &[(f64, f64)]) -> Vec<RunFigure> {
    type Figure = fn(&Observed, f64, f64) -> f64;
    let kinds: [(&str, Figure); 3] = [
        ("TTFT", |request, first_s, _| first_s - request.arrival_s),
        ("TPOT", |request, first_s, last_s| {
            (last_s - first_s) / f64::from(request.output_tokens.max(2) - 1)
        }),
        ("E2E", |request, _, last_s| last_s - request.arrival_s),
    ];
    let of = |(figure, value): (&'static str, Figure)| {
        let real: Vec<f64> = observed.iter().map(|r| value(r, r.first_s, r.last_s)).collect();
        let modelled: Vec<f64> = observed.iter().zip(times).map(|(r, t)| value(r, t.0, t.1)).collect();
        let (real, modelled) = (moments(real), moments(modelled));
        RunFigure {
            run,
            figure,
            errors: std::array::from_fn(|moment| modelled[moment] / real[moment] - 1.0),
        }
    };
    kinds.map(of).to_vec()
}

/// Mean, median, 90th and 99th percentile.
fn moments(mut values: Vec<f64>) -> [f64; 4] {
    values.sort_by(f64::total_cmp);
    let quantile = |q| equipoise_types::quantile_of_sorted(&values, q).unwrap_or(f64::NAN);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    [mean, quantile(0.5), quantile(0.9), quantile(0.99)]
}

/// What LLMServingSim states for its own replay of the run, of TTFT, TPOT and E2E: means, and 99th percentiles.
const THEIRS: [(&str, [[&str; 2]; 3]); 2] = [
    (
        "RTX 4090, Llama-3.1-8B",
        [["+0.6 %", "+0.3 %"], ["+0.2 %", "+0.9 %"], ["+0.5 %", "+0.4 %"]],
    ),
    (
        "RTX PRO 6000, Llama-3.1-8B",
        [["-4.0 %", "-2.0 %"], ["-1.0 %", "+0.6 %"], ["-1.8 %", "-1.6 %"]],
    ),
];

/// A table of the runs.
pub(super) fn rows(runs: &[RunFigure]) -> Vec<Vec<String>> {
    let mut rows = vec![
        [
            "run",
            "figure",
            "mean",
            "median",
            "p90",
            "p99",
            "LLMServingSim, mean",
            "LLMServingSim, p99",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for run in runs {
        let place = ["TTFT", "TPOT", "E2E"].iter().position(|figure| *figure == run.figure);
        let theirs = THEIRS.iter().find(|(name, _)| *name == run.run);
        let theirs = theirs.zip(place).map_or([""; 2], |((_, errors), place)| errors[place]);
        let mut row = vec![run.run.to_owned(), run.figure.to_owned()];
        row.extend(run.errors.map(|error| format!("{:+.1} %", 100.0 * error)));
        row.extend(theirs.map(str::to_owned));
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use crate::calibrate::score;

    #[test]
    fn means_and_tails_of_both_runs_stay_within_the_stated_errors() {
        let Some(data) = score::data() else { return };
        for run in super::score(&data).expect("the runs can be read") {
            let [mean, _, _, p99] = run.errors.map(f64::abs);
            assert!(mean <= 0.02, "{} {}: mean off by {mean}", run.run, run.figure);
            assert!(p99 <= 0.02, "{} {}: p99 off by {p99}", run.run, run.figure);
        }
    }
}
