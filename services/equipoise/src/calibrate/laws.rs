//! What is known of fleets without a row of measurements: another simulator's percentiles, and the 1/W law.

use std::path::Path;

use anyhow::Context as _;
use equipoise_engine::{
    Deployment, Engine, EngineEvent, EngineLimits, EngineRequest, EngineShape, GpuSpec, ModelSpec, StepModel, StepWork,
    gpu, model,
};
use equipoise_trace::{ReadOptions, Workload};
use equipoise_types::{RandomStream, RequestId, quantile_of_sorted};

/// A figure beside what somebody else has for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) asked: &'static str,
    pub(super) theirs: f64,
    pub(super) ours: f64,
    /// In the unit of both.
    pub(super) unit: &'static str,
}

pub(super) fn score(data: &Path) -> anyhow::Result<Vec<Check>> {
    let mut all = one_over_w()?;
    all.extend(vidur(data)?);
    Ok(all)
}

/// Tokens per second and watt of one GPU against the context window, with as many sequences as the KV cache has room for, each at
/// half of its window (Llama-3.1-70B on 8 H100). The law and both points: arXiv 2603.17280, analytic as well.
fn one_over_w() -> anyhow::Result<Vec<Check>> {
    let gpus = 8;
    let shape = EngineShape {
        gpu: gpu("H100").context("H100 is in the catalogue")?,
        model: model("Llama-3.1-70B").context("Llama-3.1-70B is in the catalogue")?,
        tensor_parallel: gpus,
        limits: EngineLimits {
            max_num_seqs: 1024,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    };
    let step = StepModel::new(&shape)?;
    let per_watt = |window: f64, sequences: f64| {
        let cost = step.cost(&StepWork {
            decode_seqs: sequences.round() as u32,
            kv_tokens: (sequences * window / 2.0) as u64,
            ..StepWork::default()
        });
        sequences.round() * f64::from(gpus) / cost.joules.0
    };
    let windows = [12, 13, 14, 15, 16].map(f64::from);
    let room = step.kv_capacity_tokens() as f64;
    let logs = windows.map(|window: f64| per_watt(window.exp2(), room / window.exp2()).log2());
    let (mean_x, mean_y) = (14.0, logs.iter().sum::<f64>() / 5.0);
    let products = windows.iter().zip(&logs).map(|(x, y)| (x - mean_x) * (y - mean_y));
    let check = |name: &str, asked, theirs, ours, unit| Check {
        name: name.to_owned(),
        asked,
        theirs,
        ours,
        unit,
    };
    Ok(vec![
        check(
            "V11: slope of log2 tok/W against log2 window, 4k to 64k",
            "-1 ± 0.15",
            -1.0,
            products.sum::<f64>() / 10.0,
            "",
        ),
        check(
            "V11: tok/W at 4k, 256 sequences",
            "± 20 %",
            17.6,
            per_watt(4096.0, 256.0),
            "tok/W",
        ),
        check(
            "V11: tok/W at 64k, 16 sequences",
            "± 20 %",
            1.5,
            per_watt(65_536.0, 16.0),
            "tok/W",
        ),
    ])
}

/// Requests of the comparison with Vidur.
const VIDUR_REQUESTS: usize = 10_000;
const VIDUR_REPLICAS: usize = 12;

/// What Vidur (microsoft/vidur 7d47513, MIT) says of 12 A30 with Qwen2-7B at 12 requests/s, with the kernel tables of its fork
/// AKafakA/vidur_opt_scheduler: chunks of 512 tokens, 128 sequences, least outstanding requests, Azure's conversations of 2023 cut
/// at 4,096 tokens. Ours runs on constants fitted to the same tables. Vidur leaves out the output head and the host: so does the
/// second of the two columns of checks.
fn vidur(data: &Path) -> anyhow::Result<Vec<Check>> {
    let path = data.join("traces/azure_2023_conv.csv");
    let options = ReadOptions {
        limit: Some(VIDUR_REQUESTS),
        ..ReadOptions::default()
    };
    let records = Workload::load(&path, &options)?.records;
    let mut gaps = RandomStream::new(1).derive("arrivals");
    let mut now_s = 0.0;
    let requests: Vec<(f64, u32, u32)> = records
        .iter()
        .map(|record| {
            now_s += gaps.exponential(1.0 / 12.0);
            let output = record.output_tokens.min(4095);
            (now_s, record.prompt_tokens.clamp(1, 4096 - output), output.max(2))
        })
        .collect();
    let a30 = gpu("A30").context("A30 is in the catalogue")?;
    let qwen = model("Qwen2-7B")
        .or_else(|| model("Qwen2.5-7B"))
        .context("Qwen2-7B is in the catalogue")?;
    let mut all = Vec::new();
    for (how, kernels_alone) in [("as it is", false), ("no head, no host", true)] {
        let times = replicas(&step_of(a30, qwen, kernels_alone)?, &requests)?;
        let mut e2e: Vec<f64> = Vec::new();
        let mut ttft: Vec<f64> = Vec::new();
        for ((arrival_s, _, _), (first_s, last_s)) in requests.iter().zip(&times) {
            ttft.push(first_s - arrival_s);
            e2e.push(last_s - arrival_s);
        }
        ttft.sort_by(f64::total_cmp);
        e2e.sort_by(f64::total_cmp);
        for (figure, values, q, asked, theirs) in [
            ("TTFT p50", &ttft, 0.5, "≤ 3 %", 0.270),
            ("TTFT p99", &ttft, 0.99, "≤ 5 %", 1.153),
            ("E2E p50", &e2e, 0.5, "≤ 3 %", 7.43),
            ("E2E p90", &e2e, 0.9, "≤ 3 %", 29.2),
            ("E2E p99", &e2e, 0.99, "≤ 5 %", 39.1),
        ] {
            all.push(Check {
                name: format!("V7: Vidur, {figure}, ours {how}"),
                asked,
                theirs,
                ours: quantile_of_sorted(values, q).unwrap_or(f64::NAN),
                unit: "s",
            });
        }
    }
    Ok(all)
}

/// A replica; `kernels_alone`: without the output head and what the host adds.
fn step_of(gpu: &'static GpuSpec, model: &'static ModelSpec, kernels_alone: bool) -> anyhow::Result<StepModel> {
    let (mut gpu, mut model) = (gpu.clone(), model.clone());
    if kernels_alone {
        (gpu.sequence_seconds, gpu.layer_seconds, model.vocab) = (0.0, 0.0, 1);
    }
    // Shapes refer to catalogue entries, which live as long as the program; so do these.
    Ok(StepModel::new(&EngineShape {
        gpu: Box::leak(Box::new(gpu)),
        model: Box::leak(Box::new(model)),
        tensor_parallel: 1,
        limits: EngineLimits {
            max_num_seqs: 128,
            max_num_batched_tokens: 512,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    })?)
}

/// First and last token of every request; each goes to whichever replica has the fewest.
fn replicas(step: &StepModel, requests: &[(f64, u32, u32)]) -> anyhow::Result<Vec<(f64, f64)>> {
    let mut times = vec![(f64::NAN, f64::NAN); requests.len()];
    let mut engines: Vec<(Engine, f64)> = (0..VIDUR_REPLICAS)
        .map(|_| (Engine::new(step.clone()), f64::INFINITY))
        .collect();
    let mut next = 0;
    let mut events = Vec::new();
    loop {
        let arrival_s = requests.get(next).map_or(f64::INFINITY, |request| request.0);
        let first = (0..VIDUR_REPLICAS).min_by(|a, b| engines[*a].1.total_cmp(&engines[*b].1));
        let first = first.context("there are replicas")?;
        let now_s = arrival_s.min(engines[first].1);
        if now_s.is_infinite() {
            return Ok(times);
        }
        let at = if arrival_s <= engines[first].1 {
            let out = |index: &usize| {
                let stats = engines[*index].0.stats();
                stats.running + stats.waiting
            };
            let idle = (0..VIDUR_REPLICAS).min_by_key(out).context("there are replicas")?;
            let (_, prompt_tokens, output_tokens) = requests[next];
            engines[idle].0.submit(EngineRequest {
                id: RequestId(next as u64),
                prompt_tokens,
                output_tokens,
                cached_tokens: 0,
            })?;
            next += 1;
            idle
        } else {
            engines[first].0.end_step(&mut events);
            engines[first].1 = f64::INFINITY;
            for event in events.drain(..) {
                let (first_s, last_s) = &mut times[event.id().0 as usize];
                match event {
                    EngineEvent::FirstToken { .. } if first_s.is_nan() => *first_s = now_s,
                    EngineEvent::Finished { .. } => *last_s = now_s,
                    _ => {}
                }
            }
            first
        };
        if engines[at].1.is_infinite()
            && let Some(step) = engines[at].0.begin_step()
        {
            engines[at].1 = now_s + step.cost.seconds;
        }
    }
}

/// A table of the checks.
pub(super) fn rows(checks: &[Check]) -> Vec<Vec<String>> {
    let mut rows = vec![["check", "asked", "theirs", "ours", "off"].map(str::to_owned).to_vec()];
    rows.extend(checks.iter().map(|check| {
        vec![
            check.name.clone(),
            check.asked.to_owned(),
            format!("{} {}", check.theirs, check.unit).trim().to_owned(),
            format!("{:.3} {}", check.ours, check.unit).trim().to_owned(),
            format!("{:+.1} %", 100.0 * (check.ours / check.theirs - 1.0)),
        ]
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_per_watt_halve_when_the_window_doubles() {
        let checks = one_over_w().expect("the catalogue has it");
        assert!((checks[0].ours + 1.0).abs() <= 0.15, "{checks:?}");
    }

    #[test]
    fn percentiles_are_near_those_of_vidur() {
        let Some(data) = crate::calibrate::score::data() else {
            return;
        };
        let checks = vidur(&data).expect("the trace can be read");
        assert_eq!(checks.len(), 10);
        eprintln!("{checks:#?}");
        for check in &checks {
            assert!((check.ours / check.theirs - 1.0).abs() < 0.6, "{check:?}");
        }
    }
}
