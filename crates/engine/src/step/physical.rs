//! The step of a modelled engine: matrix products by roofline, attention, all-reduce, overhead; and its power.

use super::decoding::RooflineDecoding;
use super::operators::{Operators, Routed};
use super::speculation::Speculated;
use super::{EnergyTerms, StepCost, StepWork};
use crate::deployment::{Calibration, Deployment, LARGE_MESSAGE_BYTES, Link};
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
    /// GPUs of all stages.
    pub(super) gpus: f64,
    /// Parts of the model through which a step passes one after another.
    stages: u32,
    /// Time from a stage to the next, and its part that grows with tokens; over a whole pass, seconds.
    hop_seconds: f64,
    hop_seconds_per_token: f64,
    pub(super) context_tokens: u32,
    pub(super) idle_watts: Watts,
    /// All layers' matrix products, all-reduces and per-layer overhead, against tokens.
    layers: TimeTable,
    /// The output head and per-sequence overhead, against sequences.
    head: TimeTable,
    /// The latter alone.
    sequence_seconds: f64,
    /// Seconds per token of context read.
    seconds_per_kv_token: f64,
    /// Seconds per query-key pair of prefill attention.
    seconds_per_pair: f64,
    /// Weights that every pass reads.
    weight_bytes: f64,
    /// The experts of a mixture.
    routed: Option<Routed>,
    bytes_per_token: f64,
    bytes_per_kv_token: f64,
    /// In FLOPs of bf16: a format of twice the peak counts half.
    flops_per_token: f64,
    /// Of the weights' format over bf16.
    speedup: f64,
    /// Quantising activations for experts, in a pass through all layers.
    quantising_seconds: f64,
    head_flops: f64,
    flops_per_pair: f64,
    pub(super) speculated: Option<Box<Speculated>>,
}

/// What goes through the model in one step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// Tokens through the layers.
    pub(super) tokens: u32,
    /// Rows through the output head.
    pub(super) rows: u32,
    /// Sequences that are scheduled and sampled.
    pub(super) seqs: u32,
    /// Tokens of context that attention reads.
    pub(super) kv_tokens: f64,
    /// Query-key pairs of prompts.
    pub(super) pairs: f64,
    /// Prompt tokens.
    pub(super) prompt_tokens: f64,
}

impl Pass {
    /// As often as a step's work is, one token for each sequence.
    pub(super) fn of(work: &StepWork) -> Self {
        let seqs = work.prefill_seqs.saturating_add(work.decode_seqs).max(1);
        Self {
            tokens: work.prefill_tokens.saturating_add(work.decode_seqs),
            rows: seqs,
            seqs,
            kv_tokens: work.kv_tokens.saturating_add(work.prefill_kv_tokens) as f64,
            pairs: work.prefill_attention,
            prompt_tokens: f64::from(work.prefill_tokens),
        }
    }

    /// The part of one of `parts` micro-batches; the largest, where they are not all the same.
    fn part(self, parts: u32) -> Self {
        if parts == 1 {
            return self;
        }
        let share = f64::from(parts);
        Self {
            tokens: self.tokens.div_ceil(parts),
            rows: self.rows.div_ceil(parts),
            seqs: self.seqs.div_ceil(parts),
            kv_tokens: self.kv_tokens / share,
            pairs: self.pairs / share,
            prompt_tokens: self.prompt_tokens / share,
        }
    }
}

/// What the deployment reaches on a GPU.
struct Reached {
    /// The GPU as the layers' matrix products see it.
    layers_gpu: GpuSpec,
    kv_efficiency: f64,
    link: Link,
    /// Bytes per second of large messages.
    large_bandwidth: f64,
    /// Launching a layer's kernels, seconds.
    host_layer_seconds: f64,
    /// All-reduces' latency included.
    layer_seconds: f64,
    sequence_seconds: f64,
    step_seconds: f64,
}

impl Reached {
    fn of(gpu: &GpuSpec, deployment: &Deployment, tensor_parallel: u32) -> Self {
        let many = tensor_parallel > 1;
        let faster = GpuSpec {
            peak_flops: gpu.peak_flops * deployment.weights.speedup(gpu),
            ..gpu.clone()
        };
        let efficiency = deployment.calibration.map_or(1.0, |known| known.link_efficiency);
        let link = deployment.link.unwrap_or(Link {
            bytes_per_second: efficiency * gpu.link_bandwidth,
            latency_seconds: ALL_REDUCE_SECONDS,
        });
        let of_large = |known: Calibration| known.large_link_efficiency / known.link_efficiency;
        let slower = deployment
            .calibration
            .filter(|_| tensor_parallel > 2)
            .map_or(1.0, of_large);
        let large_bandwidth = slower * link.bytes_per_second;
        let Some(known) = deployment.calibration else {
            let reduces = if many { 2.0 * link.latency_seconds } else { 0.0 };
            return Self {
                layers_gpu: faster,
                kv_efficiency: gpu.kv_efficiency,
                link,
                large_bandwidth,
                host_layer_seconds: 0.0,
                layer_seconds: gpu.layer_seconds + reduces,
                sequence_seconds: gpu.sequence_seconds,
                step_seconds: 0.0,
            };
        };
        let reduce_seconds = deployment
            .link
            .map_or(known.reduce_seconds, |link| link.latency_seconds);
        let shared = if many {
            2.0 * reduce_seconds * f64::from(tensor_parallel).log2() + known.parallel_layer_seconds
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
            link,
            large_bandwidth,
            host_layer_seconds: known.host_layer_seconds,
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
        let operators = Operators::of(shape);
        let head = Gemm {
            width_in: hidden,
            width_out: f64::from(model.vocab) / gpus,
            bytes: BYTES,
        };
        // Two all-reduces a layer, each moving 2 (n - 1) / n of the activations over the link.
        let reached = Reached::of(gpu, &deployment, tensor_parallel);
        let reduced_bytes = if tensor_parallel > 1 {
            2.0 * 2.0 * (gpus - 1.0) / gpus * hidden * BYTES
        } else {
            0.0
        };
        let reduce_seconds = |tokens: f64| {
            if tokens * hidden * BYTES > LARGE_MESSAGE_BYTES {
                tokens * (reduced_bytes / reached.large_bandwidth)
            } else {
                tokens * (reduced_bytes / reached.link.bytes_per_second)
            }
        };
        // The slowest stage sets the pace: one with a layer more where they cannot be shared out evenly.
        let stages = deployment.pipeline_parallel;
        let slowest = f64::from(model.layers.div_ceil(stages) * stages) / layers;
        let overhead = layers * reached.layer_seconds + operators.expert_seconds;
        let layer_seconds = |tokens: f64| {
            let products = operators.seconds(&reached.layers_gpu, tokens);
            let on_gpu = products + overhead + layers * reduce_seconds(tokens);
            reached.step_seconds + slowest * on_gpu.max(layers * reached.host_layer_seconds)
        };
        let head_seconds = |rows: f64| head.seconds(gpu, rows) + rows * reached.sequence_seconds;
        let kv_split = f64::from(model.kv_heads) / f64::from(shape.kv_heads_per_gpu());
        let bytes_per_kv_token = model.kv_values_per_token() as f64 * deployment.kv_cache.bytes() / kv_split;
        // Scores and values, a multiply and an add each.
        let pair_width = match model.latent {
            None => 2.0 * f64::from(model.head_dim),
            Some(latent) => f64::from(model.head_dim + latent.rope_dim + latent.value_dim),
        };
        let wide_layers = f64::from(model.layers - model.windowed_layers);
        let flops_per_pair = wide_layers * 2.0 * f64::from(model.heads) / gpus * pair_width;
        let hops = f64::from(if stages > 1 { stages } else { 0 });
        let per_token = operators.per_token();
        let all_gpus = gpus * f64::from(stages);
        Self {
            gpus: all_gpus,
            stages,
            hop_seconds: hops * reached.link.latency_seconds,
            hop_seconds_per_token: hops * hidden * BYTES / reached.link.bytes_per_second,
            context_tokens: model.context_tokens,
            idle_watts: Watts(all_gpus * gpu.power.loaded_idle_watts(gpu.idle_watts)),
            layers: TimeTable::new(limits.max_num_batched_tokens.min(65_536), layer_seconds),
            head: TimeTable::new(limits.max_num_seqs.min(65_536), head_seconds),
            sequence_seconds: reached.sequence_seconds,
            seconds_per_kv_token: bytes_per_kv_token / (reached.kv_efficiency * gpu.bandwidth),
            seconds_per_pair: flops_per_pair / (gpu.attention_efficiency * gpu.peak_flops),
            weight_bytes: operators.resident_bytes() + head.weight_bytes(),
            routed: operators.routed(),
            quantising_seconds: operators.quantising_seconds,
            speedup: deployment.weights.speedup(gpu),
            bytes_per_token: per_token.activation_bytes,
            bytes_per_kv_token,
            flops_per_token: per_token.flops / deployment.weights.speedup(gpu),
            head_flops: head.flops_per_token(),
            flops_per_pair,
            gpu: gpu.clone(),
            speculated: deployment
                .speculation
                .map(|speculation| Box::new(Speculated::new(shape, speculation))),
        }
    }

    /// Duration of a step, seconds.
    pub(super) fn seconds(&self, work: &StepWork) -> f64 {
        if work.prefill_tokens == 0 && work.decode_seqs == 0 {
            return 0.0;
        }
        match &self.speculated {
            Some(speculated) => speculated.seconds(self, work),
            None => self.pass_seconds(Pass::of(work)),
        }
    }

    /// Duration of one pass. A pipeline of `p` stages works on `p` micro-batches, and each sequence gets its next token when its
    /// own has been through all stages and the others in between: with all stages busy that is the time of a pass of a
    /// `p`-th of the work. Fewer sequences than stages leave stages empty, which is what a bubble costs.
    pub(super) fn pass_seconds(&self, pass: Pass) -> f64 {
        if pass.tokens == 0 {
            return 0.0;
        }
        let pass = pass.part(self.micro_batches(pass.seqs));
        // MFU grows with length as L / (L + half): that is `half / 2` more pairs for every prompt token.
        let pairs = pass.pairs + pass.prompt_tokens * 0.5 * self.gpu.attention_half_tokens;
        let unsampled = f64::from(pass.rows - pass.seqs) * self.sequence_seconds;
        self.layers.seconds(pass.tokens) + self.head.seconds(pass.rows) - unsampled
            + pass.kv_tokens * self.seconds_per_kv_token
            + pairs * self.seconds_per_pair
            + self.hop_seconds
            + f64::from(pass.tokens) * self.hop_seconds_per_token
    }

    fn micro_batches(&self, seqs: u32) -> u32 {
        self.stages.min(seqs).max(1)
    }

    pub(super) fn cost(&self, work: &StepWork) -> StepCost {
        let seconds = self.seconds(work);
        if seconds <= 0.0 {
            return StepCost::default();
        }
        let (memory_share, compute_share) = self.utilisation(work, seconds);
        let power = &self.gpu.power;
        let each = match self.routed {
            None => power.watts(memory_share, compute_share, self.gpus > 1.0, self.gpu.tdp_watts),
            Some(routed) => {
                let idle_watts = power.loaded_idle_watts(self.gpu.idle_watts);
                let (expert_share, quantising_share) = self.expert_shares(routed, work, seconds);
                let shares = [memory_share, expert_share, quantising_share];
                power.mixture.watts(shares, idle_watts, self.gpu.tdp_watts)
            }
        };
        let watts = Watts(self.gpus * each);
        StepCost {
            seconds,
            watts,
            joules: watts * seconds,
        }
    }

    /// The steps of `seqs` sequences that only decode, where these go through the model in one pass and one token at a time, and
    /// all of its weights are read. A mixture draws by another curve.
    pub(super) fn decoding(&self, seqs: u32) -> Option<RooflineDecoding> {
        let hops = self.hop_seconds != 0.0 || self.hop_seconds_per_token != 0.0;
        if self.stages != 1 || hops || self.speculated.is_some() || self.routed.is_some() {
            return None;
        }
        let work = StepWork {
            decode_seqs: seqs,
            ..StepWork::default()
        };
        let power = self.gpu.power;
        let (bytes, flops) = self.traffic(Pass::of(&work), 0.0);
        Some(RooflineDecoding {
            seconds: self.pass_seconds(Pass::of(&work)),
            seconds_per_kv_token: self.seconds_per_kv_token,
            bytes,
            bytes_per_kv_token: self.bytes_per_kv_token,
            flops,
            flops_per_pair: self.flops_per_pair,
            bandwidth: self.gpu.bandwidth,
            peak_flops: self.gpu.peak_flops,
            gpus: self.gpus,
            base_watts: power.base_watts(self.gpus > 1.0),
            memory_watts: power.memory_watts,
            compute_watts: power.compute_watts,
            tdp_watts: self.gpu.tdp_watts,
        })
    }

    /// Shares of peak bandwidth and of peak FLOP/s that the step uses.
    pub(super) fn utilisation(&self, work: &StepWork, seconds: f64) -> (f64, f64) {
        let (bytes, flops) = match &self.speculated {
            Some(speculated) => speculated.traffic(self, work),
            None => self.traffic(Pass::of(work), work.kv_tokens as f64),
        };
        (
            bytes / (seconds * self.gpu.bandwidth),
            flops / (seconds * self.gpu.peak_flops),
        )
    }

    /// Of a mixture: share of peak FLOP/s in its experts, and of the time in quantising for them.
    fn expert_shares(&self, routed: Routed, work: &StepWork, seconds: f64) -> (f64, f64) {
        let pass = Pass::of(work);
        let passes = f64::from(self.micro_batches(pass.seqs));
        let stages = f64::from(self.stages);
        let flops = routed.flops(f64::from(pass.tokens)) / self.speedup;
        (
            flops / (stages * seconds * self.gpu.peak_flops),
            (passes * self.quantising_seconds / (stages * seconds)).min(1.0),
        )
    }

    /// Bytes that each GPU moves and FLOPs that it computes in a step; `decode_pairs`: query-key pairs of decoding.
    pub(super) fn traffic(&self, pass: Pass, decode_pairs: f64) -> (f64, f64) {
        if pass.tokens == 0 {
            return (0.0, 0.0);
        }
        let passes = f64::from(self.micro_batches(pass.seqs));
        let tokens = f64::from(pass.tokens);
        let routed = self.routed.map_or(0.0, |routed| routed.read_bytes(tokens / passes));
        let bytes = passes * (self.weight_bytes + routed)
            + tokens * self.bytes_per_token
            + pass.kv_tokens * self.bytes_per_kv_token;
        let pairs = pass.pairs + decode_pairs;
        let flops =
            tokens * self.flops_per_token + f64::from(pass.rows) * self.head_flops + pairs * self.flops_per_pair;
        let stages = f64::from(self.stages);
        (bytes / stages, flops / stages)
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
        let parts = f64::from(self.micro_batches(decode_seqs.saturating_add(1)));
        wholes + last + (pairs * self.seconds_per_pair + prefixes * self.seconds_per_kv_token) / parts
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
