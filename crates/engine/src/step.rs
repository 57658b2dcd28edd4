//! What one step of the engine costs in time and energy.

use crate::gpu::GpuSpec;
use crate::model::BYTES;
use crate::roofline::{Gemm, TimeTable};
use crate::shape::{EngineLimits, EngineShape, ShapeError};
use equipoise_types::{Joules, Watts};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The work of one step, summed over its sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepWork {
    /// Prompt tokens computed.
    pub prefill_tokens: u32,
    /// Sequences that these belong to.
    pub prefill_seqs: u32,
    /// Sum over prefill chunks of `chunk * (prefix + chunk / 2)`: query-key pairs, tokens squared.
    pub prefill_attention: f64,
    /// Tokens whose keys and values the prefill chunks read from the cache: the sum of their prefixes.
    pub prefill_kv_tokens: u64,
    /// Sequences that decode one token.
    pub decode_seqs: u32,
    /// Tokens whose keys and values decoding reads: the sum of the contexts.
    pub kv_tokens: u64,
}

/// What a step costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepCost {
    /// How long it takes, seconds.
    pub seconds: f64,
    /// Mean draw of all GPUs of the instance while it runs.
    pub watts: Watts,
    /// Energy of all GPUs of the instance.
    pub joules: Joules,
}

/// Step energy as an affine function, for attribution and for marginal estimates:
/// `fixed + prefill_tokens * a + decode_tokens * b + kv_tokens * c`. The energy crate's `StepTerms` has the same fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EnergyTerms {
    /// Joules of a step whatever it does: weights, overhead, context.
    pub fixed_joules: f64,
    /// Joules per prompt token computed.
    pub joules_per_prefill_token: f64,
    /// Joules per sequence that decodes one token.
    pub joules_per_decode_token: f64,
    /// Joules per token of context that decoding reads.
    pub joules_per_kv_token: f64,
}

/// The time and power model of one instance. Immutable; a clone shares the tables.
#[derive(Clone, Debug)]
pub struct StepModel(Arc<Model>);

#[derive(Debug)]
struct Model {
    limits: EngineLimits,
    kv_blocks: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Fixed { service_seconds: f64 },
    Physical(Box<Physical>),
}

/// Time slice of an engine with fixed service time: an arrival waits this long at most for a free slot.
pub(crate) const SLICE_SECONDS: f64 = 1e-3;

/// Latency of one all-reduce beside its bytes, seconds (AIConfigurator `systems/*.yaml`: 10 us peer to peer).
const ALL_REDUCE_SECONDS: f64 = 10e-6;

impl StepModel {
    /// The model of a shape; all tables are computed here.
    ///
    /// # Errors
    /// When the shape cannot run: see [`ShapeError`].
    pub fn new(shape: &EngineShape) -> Result<Self, ShapeError> {
        let kv_blocks = shape.kv_blocks()?;
        let kind = Kind::Physical(Box::new(Physical::new(shape)));
        Ok(Self(Arc::new(Model {
            limits: shape.limits,
            kv_blocks,
            kind,
        })))
    }

    /// An opaque box: every request takes `service_seconds` from the moment it gets one of `max_num_seqs` slots, whatever
    /// its length, and its whole answer appears at the end. It draws no power and has no KV limit.
    ///
    /// Not finite or not positive times read as one microsecond, limits of zero as one.
    #[must_use]
    pub fn fixed(service_seconds: f64, limits: EngineLimits) -> Self {
        let service_seconds = if service_seconds.is_finite() {
            service_seconds.max(1e-6)
        } else {
            1e-6
        };
        let limits = EngineLimits {
            max_num_seqs: limits.max_num_seqs.max(1),
            max_num_batched_tokens: limits.max_num_batched_tokens.max(1),
            block_tokens: limits.block_tokens.max(1),
            ..limits
        };
        Self(Arc::new(Model {
            limits,
            kv_blocks: u32::MAX,
            kind: Kind::Fixed { service_seconds },
        }))
    }

    /// The service time of an opaque box; `None` for a physical model.
    #[must_use]
    pub fn fixed_seconds(&self) -> Option<f64> {
        match self.0.kind {
            Kind::Fixed { service_seconds } => Some(service_seconds),
            Kind::Physical(_) => None,
        }
    }

    /// The limits of the engine.
    #[must_use]
    pub fn limits(&self) -> &EngineLimits {
        &self.0.limits
    }

    /// Longest context, prompt and output together, tokens.
    #[must_use]
    pub fn context_tokens(&self) -> u32 {
        match &self.0.kind {
            Kind::Fixed { .. } => u32::MAX,
            Kind::Physical(physical) => physical.context_tokens,
        }
    }

    /// Draw of all GPUs of the instance with the engine loaded and no step running.
    #[must_use]
    pub fn idle_watts(&self) -> Watts {
        match &self.0.kind {
            Kind::Fixed { .. } => Watts(0.0),
            Kind::Physical(physical) => physical.idle_watts,
        }
    }

    /// KV blocks of the instance.
    #[must_use]
    pub fn kv_blocks(&self) -> u32 {
        self.0.kv_blocks
    }

    /// Tokens that the KV cache holds.
    #[must_use]
    pub fn kv_capacity_tokens(&self) -> u64 {
        u64::from(self.0.kv_blocks) * u64::from(self.0.limits.block_tokens)
    }

    /// What a step costs. A step without work costs nothing.
    #[must_use]
    pub fn cost(&self, work: &StepWork) -> StepCost {
        match &self.0.kind {
            Kind::Fixed { .. } => StepCost {
                seconds: SLICE_SECONDS,
                ..StepCost::default()
            },
            Kind::Physical(physical) => physical.cost(work),
        }
    }

    /// Time to prefill `tokens` after a cached `prefix`, in chunks of the step budget, beside a batch of `decode_seqs` that
    /// reads `kv_tokens` of context a step, seconds. For an opaque box its whole service time.
    #[must_use]
    pub fn prefill_seconds(&self, tokens: u32, prefix: u32, decode_seqs: u32, kv_tokens: u64) -> f64 {
        match &self.0.kind {
            Kind::Fixed { service_seconds } => *service_seconds,
            Kind::Physical(physical) => {
                let chunk = self.0.limits.max_num_batched_tokens.saturating_sub(decode_seqs).max(1);
                physical.prefill_seconds(tokens, prefix, chunk, decode_seqs, kv_tokens)
            }
        }
    }

    /// Time of a step that decodes one token for each of `seqs` sequences with `kv_tokens` of context in all, seconds. Zero
    /// for an opaque box, so that prefill and decode together make its service time.
    #[must_use]
    pub fn decode_step_seconds(&self, seqs: u32, kv_tokens: u64) -> f64 {
        match &self.0.kind {
            Kind::Fixed { .. } => 0.0,
            Kind::Physical(physical) => physical.seconds(&StepWork {
                decode_seqs: seqs,
                kv_tokens,
                ..StepWork::default()
            }),
        }
    }

    /// Step energy, linearised around a typical batch: 64 sequences (or the limit) at 512 tokens of context each, with 32
    /// prompt tokens a step. No coefficient is negative.
    #[must_use]
    pub fn energy_terms(&self) -> EnergyTerms {
        match &self.0.kind {
            Kind::Fixed { .. } => EnergyTerms::default(),
            Kind::Physical(physical) => physical.energy_terms(self.0.limits.max_num_seqs.min(64)),
        }
    }
}

/// Everything about the shape that a step needs, per GPU unless said otherwise.
#[derive(Debug)]
struct Physical {
    gpu: GpuSpec,
    gpus: f64,
    context_tokens: u32,
    idle_watts: Watts,
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
    flops_per_token: f64,
    head_flops: f64,
    flops_per_pair: f64,
}

impl Physical {
    fn new(shape: &EngineShape) -> Self {
        let EngineShape {
            gpu,
            model,
            tensor_parallel,
            limits,
        } = *shape;
        let gpus = f64::from(tensor_parallel);
        let layers = f64::from(model.layers);
        let hidden = f64::from(model.hidden);
        let head_dim = f64::from(model.head_dim);
        let heads = f64::from(model.heads) / gpus;
        let kv_heads = f64::from(shape.kv_heads_per_gpu());
        let wide = f64::from(model.intermediate) / gpus;
        let products = [
            Gemm {
                width_in: hidden,
                width_out: (heads + 2.0 * kv_heads) * head_dim,
            },
            Gemm {
                width_in: heads * head_dim,
                width_out: hidden,
            },
            Gemm {
                width_in: hidden,
                width_out: 2.0 * wide,
            },
            Gemm {
                width_in: wide,
                width_out: hidden,
            },
        ];
        let head = Gemm {
            width_in: hidden,
            width_out: f64::from(model.vocab) / gpus,
        };
        // Two all-reduces a layer, each moving 2 (n - 1) / n of the activations over the link.
        let (reduce_fixed, reduce_per_token) = if tensor_parallel > 1 {
            (
                2.0 * ALL_REDUCE_SECONDS,
                2.0 * 2.0 * (gpus - 1.0) / gpus * hidden * BYTES / gpu.link_bandwidth,
            )
        } else {
            (0.0, 0.0)
        };
        let layer_seconds = |tokens: f64| {
            let products: f64 = products.iter().map(|product| product.seconds(gpu, tokens)).sum();
            layers * (products + gpu.layer_seconds + reduce_fixed + tokens * reduce_per_token)
        };
        let head_seconds = |rows: f64| head.seconds(gpu, rows) + rows * gpu.sequence_seconds;
        let bytes_per_kv_token = layers * 2.0 * BYTES * kv_heads * head_dim;
        // Four FLOPs per pair and head width: scores and values, a multiply and an add each.
        let flops_per_pair = layers * 4.0 * heads * head_dim;
        Self {
            gpus,
            context_tokens: model.context_tokens,
            idle_watts: Watts(gpus * gpu.power.loaded_idle_watts(gpu.idle_watts)),
            layers: TimeTable::new(limits.max_num_batched_tokens.min(65_536), layer_seconds),
            head: TimeTable::new(limits.max_num_seqs.min(65_536), head_seconds),
            seconds_per_kv_token: bytes_per_kv_token / (gpu.kv_efficiency * gpu.bandwidth),
            seconds_per_pair: flops_per_pair / (gpu.attention_efficiency * gpu.peak_flops),
            weight_bytes: layers * products.iter().map(|product| product.weight_bytes()).sum::<f64>()
                + head.weight_bytes(),
            bytes_per_token: layers * products.iter().map(|product| product.activation_bytes()).sum::<f64>(),
            bytes_per_kv_token,
            flops_per_token: layers * products.iter().map(|product| product.flops_per_token()).sum::<f64>(),
            head_flops: head.flops_per_token(),
            flops_per_pair,
            gpu: gpu.clone(),
        }
    }

    fn seconds(&self, work: &StepWork) -> f64 {
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

    fn cost(&self, work: &StepWork) -> StepCost {
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
    fn utilisation(&self, work: &StepWork, seconds: f64) -> (f64, f64) {
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

    fn prefill_seconds(&self, tokens: u32, prefix: u32, chunk: u32, decode_seqs: u32, kv_tokens: u64) -> f64 {
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
        whole * step(chunk) + last + pairs * self.seconds_per_pair + prefixes * self.seconds_per_kv_token
    }

    fn energy_terms(&self, seqs: u32) -> EnergyTerms {
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

#[cfg(test)]
mod tests;
