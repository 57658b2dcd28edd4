//! Replays a workload from standard input through aisimulate-core and prints its speed and what it found.
//!
//! The first line holds the step times of our engine model: seconds of a decoding step, per sequence, per token of context,
//! and per prompt token. Each further line is a request: arrival in seconds, prompt tokens, answer tokens.
//! `aisimulate-speed WORKERS KV_BLOCKS < workload`

use std::io::{BufRead as _, stdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aisimulate_core::engine::{Backend, EngineConfig};
use aisimulate_core::replay::{ReplayEngineConfig, run_engine_replay_with_timing};
use aisimulate_core::{ReplaySpec, TimingModel};
use anyhow::Context as _;
use serde_json::json;

/// Affine in the batch, as our model nearly is.
struct Affine {
    step_s: f64,
    per_sequence_s: f64,
    per_kv_token_s: f64,
    per_prompt_token_s: f64,
    calls: AtomicU64,
}

impl TimingModel for Affine {
    fn prefill_batch_validation_can_fail(&self) -> bool {
        false
    }

    fn prefill_prediction_can_fail(&self) -> bool {
        false
    }

    fn predict_prefill_ms(&self, batch: usize, mean_isl: usize, mean_prefix: usize) -> anyhow::Result<f64> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let tokens = (batch * mean_isl.saturating_sub(mean_prefix)) as f64;
        // Beside decodes the step's fixed part is in theirs.
        Ok(1e3 * tokens * self.per_prompt_token_s)
    }

    fn predict_decode_ms(&self, batch: usize, active_kv: usize, _mean: usize, _total: usize) -> anyhow::Result<f64> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let seconds = self.step_s + batch as f64 * self.per_sequence_s + active_kv as f64 * self.per_kv_token_s;
        Ok(1e3 * seconds)
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |what: &str| -> anyhow::Result<usize> { Ok(arguments.next().context(what.to_owned())?.parse()?) };
    let (workers, blocks) = (number("workers")?, number("KV blocks")?);
    let mut lines = stdin().lock().lines();
    let numbers = |line: &str| -> anyhow::Result<Vec<f64>> {
        line.split_whitespace().map(|word| Ok(word.parse()?)).collect()
    };
    let times = numbers(&lines.next().context("no step times")??)?;
    let [step_s, per_sequence_s, per_kv_token_s, per_prompt_token_s] = times[..] else {
        anyhow::bail!("the first line has four step times");
    };
    let mut requests = Vec::new();
    for line in lines {
        let of = numbers(&line?)?;
        requests.push(json!({
            "id": requests.len().to_string(),
            "arrival_time_ms": 1e3 * of[0],
            "input_tokens": of[1] as u64,
            "output_tokens": of[2] as u64,
        }));
    }
    let count = requests.len();
    let engine = ReplayEngineConfig {
        rank: EngineConfig {
            num_gpu_blocks: blocks,
            block_size: 16,
            max_num_seqs: 128,
            max_num_batched_tokens: 512,
            enable_prefix_caching: false,
            ..EngineConfig::for_backend(Backend::Vllm)
        },
        ..ReplayEngineConfig::default()
    };
    let spec: ReplaySpec = serde_json::from_value(json!({
        "topology": {"kind": "aggregated", "workers": {"initial_workers": workers}},
        "engine": serde_json::to_value(engine)?,
        "record_per_request": false,
        "requests": requests,
    }))?;
    let timing = Arc::new(Affine {
        step_s,
        per_sequence_s,
        per_kv_token_s,
        per_prompt_token_s,
        calls: AtomicU64::new(0),
    });
    let (before, began) = (cpu_s()?, Instant::now());
    let shared: Arc<dyn TimingModel> = timing.clone();
    let report = run_engine_replay_with_timing(spec, shared).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let cpu_s = cpu_s()? - before;
    let (ttft, e2e) = (&report.latency.ttft, &report.latency.e2e);
    println!(
        "| aisimulate-core 0.13.0, {workers} | {count} | {cpu_s:.2} | {:.0} | {:.0} | {:.0} | {} | {:.4}/{:.3} | {:.4}/{:.3} | - |",
        count as f64 / cpu_s,
        report.request_counts.total_output_tokens as f64 / cpu_s,
        peak_mb()?,
        report.request_counts.completed_requests,
        ttft.median_ms / 1e3,
        ttft.p99_ms / 1e3,
        e2e.median_ms / 1e3,
        e2e.p99_ms / 1e3,
    );
    eprintln!(
        "{} calls of the timing model, {:.1} s",
        timing.calls.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn cpu_s() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanos: f64 = text.split_whitespace().next().context("no figure")?.parse()?;
    Ok(nanos / 1e9)
}

fn peak_mb() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kb / 1024.0)
}
