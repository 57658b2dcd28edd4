//! A real vLLM run replayed request by request: 300 requests of Llama-3.1-8B on one RTX 4090 under vLLM 0.19, most of the
//! time out of KV blocks, so that admission, preemption and the block ledger decide (published by LLMServingSim, MIT).
//!
//! Reads the run from `$EQUIPOISE_DATA` (default: `shared/data` beside the repository) and is skipped without it.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test file: it fails by panic and says aloud when it is skipped"
)]

use equipoise_engine::{
    Deployment, Engine, EngineEvent, EngineLimits, EngineRequest, EngineShape, GpuSpec, StepModel, gpu, model,
};
use equipoise_types::RequestId;
use std::path::PathBuf;

struct Observed {
    arrival: f64,
    prompt_tokens: u32,
    output_tokens: u32,
    first_token: f64,
    last_token: f64,
}

fn observed() -> Option<Vec<Observed>> {
    #[expect(clippy::disallowed_methods, reason = "a test may be told where its data lies")]
    let folder = std::env::var("EQUIPOISE_DATA").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = folder.join("performance/vllm_runs/RTX4090_Llama-3.1-8B/requests.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!(
            "SKIPPED: no {}: set EQUIPOISE_DATA to replay a real run",
            path.display()
        );
        return None;
    };
    let mut requests: Vec<Observed> = text
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
            let number = |key: &str| row[key].as_f64().expect("a number");
            Observed {
                arrival: number("queued_ts"),
                prompt_tokens: number("input_toks") as u32,
                output_tokens: number("output_toks") as u32,
                first_token: number("first_token_ts"),
                last_token: number("last_token_ts"),
            }
        })
        .collect();
    requests.sort_by(|a, b| a.arrival.total_cmp(&b.arrival));
    Some(requests)
}

/// The board is in no catalogue of data-centre GPUs. Vendor figures (bf16 with fp32 accumulation), the rest as L40S (the same
/// generation); the efficiencies are set by this very run, so what the test holds is the queueing, not the speed: one wrong
/// rule of admission or preemption moves TTFT by tens of percent where 230 of 300 requests wait.
fn rtx_4090() -> &'static GpuSpec {
    let ada = gpu("L40S").expect("known");
    Box::leak(Box::new(GpuSpec {
        name: "RTX4090",
        peak_flops: 165.2e12,
        bandwidth: 1008e9,
        memory_bytes: 25_250_627_584,
        tdp_watts: 450.0,
        bandwidth_efficiency: 0.92,
        kv_efficiency: 0.92,
        flops_efficiency: 0.90,
        ..ada.clone()
    }))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    equipoise_types::quantile_of_sorted(&values, share).expect("values")
}

/// First and last token of each request, by a driver in virtual time.
fn replay(requests: &[Observed], engine: &mut Engine) -> Vec<(f64, f64)> {
    let mut times = vec![(f64::NAN, f64::NAN); requests.len()];
    let mut now = requests[0].arrival;
    let mut next = 0;
    let mut events = Vec::new();
    loop {
        while next < requests.len() && requests[next].arrival <= now {
            let Observed {
                prompt_tokens,
                output_tokens,
                ..
            } = requests[next];
            let request = EngineRequest {
                id: RequestId(next as u64),
                prompt_tokens,
                output_tokens,
                cached_tokens: 0,
            };
            engine.submit(request).expect("it ran");
            next += 1;
        }
        match engine.begin_step() {
            Some(step) => now += step.cost.seconds,
            None if next < requests.len() => now = requests[next].arrival,
            None => return times,
        }
        engine.end_step(&mut events);
        for event in events.drain(..) {
            let (first, last) = &mut times[event.id().0 as usize];
            match event {
                EngineEvent::FirstToken { .. } => *first = now,
                EngineEvent::Finished { .. } => *last = now,
                EngineEvent::Token { .. } | EngineEvent::Preempted { .. } => {}
            }
        }
    }
}

#[test]
fn a_run_that_is_short_of_kv_blocks() {
    let Some(requests) = observed() else { return };
    let shape = EngineShape {
        gpu: rtx_4090(),
        model: model("Llama-3.1-8B").expect("known"),
        tensor_parallel: 1,
        limits: EngineLimits::default(),
        deployment: Deployment::default(),
    };
    let derived = StepModel::new(&shape).expect("fits").kv_blocks();
    assert!(
        (2400..2800).contains(&derived),
        "vLLM found 2588 blocks, the model {derived}"
    );
    let limits = EngineLimits {
        num_gpu_blocks: Some(2588),
        ..EngineLimits::default()
    };
    let mut engine = Engine::new(StepModel::new(&EngineShape { limits, ..shape }).expect("fits"));
    let times = replay(&requests, &mut engine);
    let both = || requests.iter().zip(&times);
    let per_token = |first: f64, last: f64, request: &Observed| (last - first) / f64::from(request.output_tokens - 1);
    let mut worst: f64 = 0.0;
    for (name, real, modelled) in [
        (
            "TTFT",
            both().map(|(r, _)| r.first_token - r.arrival).collect::<Vec<_>>(),
            both().map(|(r, t)| t.0 - r.arrival).collect::<Vec<_>>(),
        ),
        (
            "TPOT",
            both().map(|(r, _)| per_token(r.first_token, r.last_token, r)).collect(),
            both().map(|(r, t)| per_token(t.0, t.1, r)).collect(),
        ),
        (
            "E2E",
            both().map(|(r, _)| r.last_token - r.arrival).collect(),
            both().map(|(r, t)| t.1 - r.arrival).collect(),
        ),
    ] {
        let errors = [
            mean(modelled.iter().copied()) / mean(real.iter().copied()) - 1.0,
            quantile(modelled.iter().copied(), 0.5) / quantile(real.iter().copied(), 0.5) - 1.0,
            quantile(modelled.iter().copied(), 0.9) / quantile(real.iter().copied(), 0.9) - 1.0,
        ];
        println!(
            "{name}: mean {:+.1} %, median {:+.1} %, p90 {:+.1} %",
            100.0 * errors[0],
            100.0 * errors[1],
            100.0 * errors[2]
        );
        worst = errors.iter().fold(worst, |worst, error| worst.max(error.abs()));
    }
    println!("preemptions: {}", engine.stats().preemptions_total);
    assert!(worst <= 0.10, "{worst}");
}
