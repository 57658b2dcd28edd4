//! The step of a modelled engine: matrix products by roofline, attention, all-reduce, overhead; and its power.

use super::{EnergyTerms, StepCost, StepWork};
use crate::deployment::Deployment;
use crate::gpu::GpuSpec;
use crate::model::BYTES;
use crate::roofline::{Gemm, TimeTable};
use crate::shape::EngineShape;
use equipoise_types::Watts;

/// Latency of one all-reduce beside its bytes, seconds (AIConfigurator `systems/*.yaml`: 10 us peer to peer).
const ALL_REDUCE_SECONDS: f64 = 10e-6;

/// Everything about the shape that a step needs, per GPU unless said otherwise.
#[derive(Debug)]
pub(super) struct Physical {
    gpu: GpuSpec,
    pub(super) gpus: f64,
    pub(super) context_tokens: u32,
    pub(super) idle_watts: Watts,
    /// All layers' matrix products, all-reduces and per-layer overhead, against tokens.
    layers: TimeTable,
    /// The output head and per-sequence overhead, against sequences.
    head: TimeTable,
    /// Seconds per token of context read.
    seconds_per_kv_token: f64,
    /// Seconds per query-key pair of prefill attention.
    seconds_per_pair: f64,
    weight_bytes: f64,
    bytes_per_token: f64,
    bytes_per_kv_token: f64,
    /// In FLOPs of bf16: a format of twice the peak counts half.
    flops_per_token: f64,
    head_flops: f64,
    flops_per_pair: f64,
}

/// What the deployment reaches on a GPU.
struct Reached {
    /// The GPU as the layers' matrix products see it.
    layers_gpu: GpuSpec,
    kv_efficiency: f64,
    link_efficiency: f64,
    /// All-reduces' latency included.
    layer_seconds: f64,
    sequence_seconds: f64,
    step_seconds: f64,
}

impl Reached {
    fn of(gpu: &GpuSpec, deployment: &Deployment, tensor_parallel: u32) -> Self {
        let many = tensor_parallel > 1;
        let faster = GpuSpec {
            peak_flops: gpu.peak_flops * deployment.weights.peak_factor(),
            ..gpu.clone()
        };
        let Some(known) = deployment.calibration else {
            let reduces = if many { 2.0 * ALL_REDUCE_SECONDS } else { 0.0 };
            return Self {
                layers_gpu: faster,
                kv_efficiency: gpu.kv_efficiency,
                link_efficiency: 1.0,
                layer_seconds: gpu.layer_seconds + reduces,
                sequence_seconds: gpu.sequence_seconds,
                step_seconds: 0.0,
            };
        };
        let shared = if many {
            2.0 * known.reduce_seconds * f64::from(tensor_parallel).log2() + known.parallel_layer_seconds
        } else {
            0.0
        };
        Self {
            layers_gpu: GpuSpec {
                bandwidth_efficiency: known.bandwidth_efficiency,
                flops_efficiency: known.flops_efficiency,
                ..faster
            },
            kv_efficiency: known.kv_efficiency,
            link_efficiency: known.link_efficiency,
            layer_seconds: known.layer_seconds + shared,
            sequence_seconds: known.sequence_seconds,
            step_seconds: known.step_seconds,
        }
    }
}

impl Physical {
    pub(super) fn new(shape: &EngineShape) -> Self {
        let EngineShape {
            gpu,
            model,
            tensor_parallel,
            limits,
            deployment,
        } = *shape;
        let gpus = f64::from(tensor_parallel);
        let layers = f64::from(model.layers);
        let hidden = f64::from(model.hidden);
        let head_dim = f64::from(model.head_dim);
        let heads = f64::from(model.heads) / gpus;
        let kv_heads = f64::from(shape.kv_heads_per_gpu());
        let wide = f64::from(model.intermediate) / gpus;
        let weight = deployment.weights.bytes();
        let products = [
            Gemm {
                width_in: hidden,
                width_out: (heads + 2.0 * kv_heads) * head_dim,
                bytes: weight,
            },
            Gemm {
                width_in: heads * head_dim,
                width_out: hidden,
                bytes: weight,
            },
            Gemm {
                width_in: hidden,
                width_out: 2.0 * wide,
                bytes: weight,
            },
            Gemm {
                width_in: wide,
                width_out: hidden,
                bytes: weight,
            },
        ];
        let head = Gemm {
            width_in: hidden,
            width_out: f64::from(model.vocab) / gpus,
            bytes: BYTES,
        };
        // Two all-reduces a layer, each moving 2 (n - 1) / n of the activations over the link.
        let reached = Reached::of(gpu, &deployment, tensor_parallel);
        let reduce_per_token = if tensor_parallel > 1 {
            2.0 * 2.0 * (gpus - 1.0) / gpus * hidden * BYTES / (reached.link_efficiency * gpu.link_bandwidth)
        } else {
            0.0
        };
        let layer_seconds = |tokens: f64| {
            let products: f64 = products
                .iter()
                .map(|product| product.seconds(&reached.layers_gpu, tokens))
                .sum();
            reached.step_seconds + layers * (products + reached.layer_seconds + tokens * reduce_per_token)
        };
        let head_seconds = |rows: f64| head.seconds(gpu, rows) + rows * reached.sequence_seconds;
        let bytes_per_kv_token = layers * 2.0 * deployment.kv_cache.bytes() * kv_heads * head_dim;
        // Four FLOPs per pair and head width: scores and values, a multiply and an add each.
        let flops_per_pair = layers * 4.0 * heads * head_dim;
        Self {
            gpus,
            context_tokens: model.context_tokens,
            idle_watts: Watts(gpus * gpu.power.loaded_idle_watts(gpu.idle_watts)),
            layers: TimeTable::new(limits.max_num_batched_tokens.min(65_536), layer_seconds),
            head: TimeTable::new(limits.max_num_seqs.min(65_536), head_seconds),
            seconds_per_kv_token: bytes_per_kv_token / (reached.kv_efficiency * gpu.bandwidth),
            seconds_per_pair: flops_per_pair / (gpu.attention_efficiency * gpu.peak_flops),
            weight_bytes: layers * products.iter().map(|product| product.weight_bytes()).sum::<f64>()
                + head.weight_bytes(),
            bytes_per_token: layers * products.iter().map(|product| product.activation_bytes()).sum::<f64>(),
            bytes_per_kv_token,
            flops_per_token: layers * products.iter().map(|product| product.flops_per_token()).sum::<f64>()
                / deployment.weights.peak_factor(),
            head_flops: head.flops_per_token(),
            flops_per_pair,
            gpu: gpu.clone(),
        }
    }

    pub(super) fn seconds(&self, work: &StepWork) -> f64 {
        let tokens = work.prefill_tokens.saturating_add(work.decode_seqs);
        if tokens == 0 {
            return 0.0;
        }
        let rows = work.prefill_seqs.saturating_add(work.decode_seqs).max(1);
        let kv_tokens = work.kv_tokens.saturating_add(work.prefill_kv_tokens) as f64;
        // MFU grows with length as L / (L + half): that is `half / 2` more pairs for every prompt token.
        let pairs = work.prefill_attention + f64::from(work.prefill_tokens) * 0.5 * self.gpu.attention_half_tokens;
        self.layers.seconds(tokens)
            + self.head.seconds(rows)
            + kv_tokens * self.seconds_per_kv_token
            + pairs * self.seconds_per_pair
    }

    pub(super) fn cost(&self, work: &StepWork) -> StepCost {
        let seconds = self.seconds(work);
        if seconds <= 0.0 {
            return StepCost::default();
        }
        let (memory_share, compute_share) = self.utilisation(work, seconds);
        let watts = Watts(
            self.gpus
                * self
                    .gpu
                    .power
                    .watts(memory_share, compute_share, self.gpus > 1.0, self.gpu.tdp_watts),
        );
        StepCost {
            seconds,
            watts,
            joules: watts * seconds,
        }
    }

    /// Shares of peak bandwidth and of peak FLOP/s that the step uses.
    pub(super) fn utilisation(&self, work: &StepWork, seconds: f64) -> (f64, f64) {
        let tokens = f64::from(work.prefill_tokens) + f64::from(work.decode_seqs);
        let rows = f64::from(work.prefill_seqs) + f64::from(work.decode_seqs);
        let kv_tokens = work.kv_tokens.saturating_add(work.prefill_kv_tokens) as f64;
        let bytes = self.weight_bytes + tokens * self.bytes_per_token + kv_tokens * self.bytes_per_kv_token;
        let pairs = work.prefill_attention + work.kv_tokens as f64;
        let flops = tokens * self.flops_per_token + rows * self.head_flops + pairs * self.flops_per_pair;
        (
            bytes / (seconds * self.gpu.bandwidth),
            flops / (seconds * self.gpu.peak_flops),
        )
    }

    pub(super) fn prefill_seconds(
        &self,
        tokens: u32,
        prefix: u32,
        chunk: u32,
        decode_seqs: u32,
        kv_tokens: u64,
    ) -> f64 {
        let step = |prefill_tokens: u32| {
            let prefill_seqs = u32::from(prefill_tokens > 0);
            self.seconds(&StepWork {
                prefill_tokens,
                prefill_seqs,
                decode_seqs,
                kv_tokens,
                ..StepWork::default()
            })
        };
        let whole = f64::from(tokens / chunk);
        let rest = tokens % chunk;
        let last = if rest > 0 { step(rest) } else { 0.0 };
        // What depends on the prefix is linear in it, so all chunks together have a closed form.
        let pairs = f64::from(tokens) * (f64::from(prefix) + 0.5 * f64::from(tokens));
        let chunks = whole + f64::from(u32::from(rest > 0));
        let prefixes = chunks * f64::from(prefix) + f64::from(chunk) * 0.5 * chunks * (chunks - 1.0).max(0.0);
        // Most prompts fit into one chunk: a whole one is not asked for where there is none.
        let wholes = if whole > 0.0 { whole * step(chunk) } else { 0.0 };
        wholes + last + pairs * self.seconds_per_pair + prefixes * self.seconds_per_kv_token
    }

    pub(super) fn energy_terms(&self, seqs: u32) -> EnergyTerms {
        let context = u64::from(self.context_tokens.min(512));
        let typical = StepWork {
            prefill_tokens: 32,
            prefill_seqs: 1,
            prefill_attention: 32.0 * 256.0,
            prefill_kv_tokens: 0,
            decode_seqs: seqs,
            kv_tokens: u64::from(seqs) * context,
        };
        let joules = |work: StepWork| self.cost(&work).joules.0;
        let at = joules(typical);
        let more_prefill = StepWork {
            prefill_tokens: 64,
            prefill_attention: 64.0 * 256.0,
            ..typical
        };
        let more_decode = StepWork {
            decode_seqs: seqs + 8,
            ..typical
        };
        let more_kv = StepWork {
            kv_tokens: typical.kv_tokens + 4096,
            ..typical
        };
        let joules_per_prefill_token = ((joules(more_prefill) - at) / 32.0).max(0.0);
        let joules_per_decode_token = ((joules(more_decode) - at) / 8.0).max(0.0);
        let joules_per_kv_token = ((joules(more_kv) - at) / 4096.0).max(0.0);
        let own = 32.0 * joules_per_prefill_token
            + f64::from(seqs) * joules_per_decode_token
            + typical.kv_tokens as f64 * joules_per_kv_token;
        EnergyTerms {
            fixed_joules: (at - own).max(0.0),
            joules_per_prefill_token,
            joules_per_decode_token,
            joules_per_kv_token,
        }
    }
}
