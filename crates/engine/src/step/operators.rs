//! The matrix products of a model's layers, as one GPU computes them.

use crate::deployment::Precision;
use crate::gpu::GpuSpec;
use crate::model::{BYTES, Experts, ModelSpec};
use crate::roofline::{Gemm, operator_seconds};
use crate::shape::EngineShape;

/// What a layer of experts takes more in a step where each GPU holds whole ones, seconds: tokens are gathered from and scattered to
/// the others.
///
/// Fitted with [`FP8_LAYER_SECONDS`] to the step times of 44 rows of ML.ENERGY v3 on H100 and B200 (Qwen3-30B and -235B, Llama-4,
/// DeepSeek-V3.1, gpt-oss): 10.7 % median error; 10.9 % on the 60 rows of the other half (`equipoise calibrate report`). No other
/// constant is of mixtures: bandwidth, launch times and overheads are those of dense models.
const APART_LAYER_SECONDS: f64 = 81e-6;

/// What a layer of experts in 8 bits takes more in a step, seconds: activations are quantised block by block before both products.
const FP8_LAYER_SECONDS: f64 = 67e-6;

/// Expected largest of so many standard normal draws, for 1, 2, 4, ... 64 (Harter 1961, Biometrika 48).
const LARGEST_NORMAL: [f64; 7] = [0.0, 0.5642, 1.0294, 1.4236, 1.7660, 2.0697, 2.3436];

/// How much more the GPU with the most to read has than the mean, where each of `gpus` holds whole experts.
///
/// Tokens draw their experts at random, so how many a GPU's share has touched is binomial; the largest of `gpus` such counts is
/// the mean and so many standard deviations, and all of its own at most. Near 1 where everybody's experts are touched.
fn imbalance(experts: &Experts, gpus: f64, tokens: f64) -> f64 {
    let own = f64::from(experts.count) / gpus;
    let share = experts.touched(tokens) / f64::from(experts.count);
    if gpus <= 1.0 || share <= 0.0 {
        return 1.0;
    }
    let doublings = gpus.log2().min((LARGEST_NORMAL.len() - 1) as f64);
    let below = (doublings as usize).min(LARGEST_NORMAL.len() - 2);
    let along = doublings - below as f64;
    let deviations = LARGEST_NORMAL[below] + along * (LARGEST_NORMAL[below + 1] - LARGEST_NORMAL[below]);
    let largest = own * share + deviations * (own * share * (1.0 - share)).sqrt();
    let possible = own.min(tokens * f64::from(experts.active));
    (largest.min(possible) / (own * share)).max(1.0)
}

/// One product of a layer.
#[derive(Clone, Copy, Debug)]
enum Operator {
    /// Every token goes through all of it.
    Dense(Gemm),
    /// One product for each expert, and a token goes through some.
    Experts(Gemm, Experts),
}

/// The products of all layers.
#[derive(Clone, Debug)]
pub(super) struct Operators {
    /// Each with the number of layers that have it.
    all: Vec<(f64, Operator)>,
    /// What the layers' experts take beside their products, seconds.
    pub(super) expert_seconds: f64,
    /// GPUs that hold whole experts; 1: each holds a part of all.
    apart: f64,
    /// Of `expert_seconds`: quantising, which keeps the GPU busy.
    pub(super) quantising_seconds: f64,
}

/// What one GPU reads and computes in a pass through its layers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerToken {
    pub(super) activation_bytes: f64,
    pub(super) flops: f64,
}

/// The experts of a mixture, one of each layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routed {
    experts: Experts,
    /// Weights of one expert in all layers.
    bytes: f64,
    /// FLOPs of a row through it.
    flops: f64,
}

impl Routed {
    /// Weights that a pass of so many tokens reads, bytes.
    pub(super) fn read_bytes(&self, tokens: f64) -> f64 {
        self.experts.touched(tokens) * self.bytes
    }

    /// FLOPs of so many tokens through their experts.
    pub(super) fn flops(&self, tokens: f64) -> f64 {
        tokens * f64::from(self.experts.active) * self.flops
    }
}

impl Operator {
    fn seconds(self, gpu: &GpuSpec, tokens: f64, apart: f64) -> f64 {
        match self {
            Self::Dense(gemm) => gemm.seconds(gpu, tokens),
            Self::Experts(gemm, experts) => {
                let through = tokens * f64::from(experts.active);
                let bytes = experts.touched(tokens) * gemm.weight_bytes() + through * gemm.activation_bytes();
                let flops = through * gemm.flops_per_token();
                let imbalance = imbalance(&experts, apart, tokens);
                operator_seconds(gpu, imbalance * bytes, imbalance * flops)
            }
        }
    }

    fn weight_bytes(self, tokens: f64) -> f64 {
        match self {
            Self::Dense(gemm) => gemm.weight_bytes(),
            Self::Experts(gemm, experts) => experts.touched(tokens) * gemm.weight_bytes(),
        }
    }

    fn per_token(self) -> PerToken {
        let (gemm, times) = match self {
            Self::Dense(gemm) => (gemm, 1.0),
            Self::Experts(gemm, experts) => (gemm, f64::from(experts.active)),
        };
        PerToken {
            activation_bytes: times * gemm.activation_bytes(),
            flops: times * gemm.flops_per_token(),
        }
    }
}

impl Operators {
    /// The products of a shape; every layer is split over its tensor-parallel GPUs.
    pub(super) fn of(shape: &EngineShape) -> Self {
        let (model, gpus) = (shape.model, f64::from(shape.tensor_parallel));
        let weights = shape.deployment.weights;
        let hidden = f64::from(model.hidden);
        let layers = f64::from(model.layers);
        let outside = weights.outside_experts().bytes();
        let dense = |width_in, width_out, bytes| {
            Operator::Dense(Gemm {
                width_in,
                width_out,
                bytes,
            })
        };
        let mut all: Vec<(f64, Operator)> = attention(shape, outside)
            .into_iter()
            .map(|gemm| (layers, Operator::Dense(gemm)))
            .collect();
        // Gate and up projection together, then down.
        let gated = |wide: f64| [(hidden, 2.0 * wide), (wide, hidden)];
        let expert_layers = model.experts.map_or(0.0, |experts| f64::from(experts.layers));
        if expert_layers < layers {
            let products = gated(f64::from(model.intermediate) / gpus);
            let of = |(width_in, width_out)| (layers - expert_layers, dense(width_in, width_out, outside));
            all.extend(products.map(of));
        }
        if let Some(experts) = model.experts {
            if experts.shared_intermediate > 0 {
                let products = gated(f64::from(experts.shared_intermediate) / gpus);
                let of = |(width_in, width_out)| (expert_layers, dense(width_in, width_out, outside));
                all.extend(products.map(of));
            }
            // The router is small and computed on every GPU.
            all.push((expert_layers, dense(hidden, f64::from(experts.count), BYTES)));
            let of = |(width_in, width_out)| {
                let gemm = Gemm {
                    width_in,
                    width_out,
                    bytes: weights.bytes(),
                };
                (expert_layers, Operator::Experts(gemm, experts))
            };
            all.extend(gated(f64::from(experts.intermediate) / gpus).map(of));
        }
        let whole = shape.deployment.expert_parallel && shape.tensor_parallel > 1;
        let quantising_seconds = match weights {
            Precision::Fp8 => expert_layers * FP8_LAYER_SECONDS,
            Precision::Bf16 | Precision::Int8 | Precision::Int4 | Precision::Fp4 | Precision::Mxfp4 => 0.0,
        };
        let apart_seconds = if whole {
            expert_layers * APART_LAYER_SECONDS
        } else {
            0.0
        };
        Self {
            all,
            expert_seconds: quantising_seconds + apart_seconds,
            apart: if whole { gpus } else { 1.0 },
            quantising_seconds,
        }
    }

    /// All products of one pass of so many tokens, seconds.
    pub(super) fn seconds(&self, gpu: &GpuSpec, tokens: f64) -> f64 {
        let each = |(layers, operator): &(f64, Operator)| layers * operator.seconds(gpu, tokens, self.apart);
        self.all.iter().map(each).sum()
    }

    /// Weights that every pass reads, bytes.
    pub(super) fn resident_bytes(&self) -> f64 {
        let dense = self
            .all
            .iter()
            .filter(|(_, operator)| matches!(operator, Operator::Dense(_)));
        dense
            .map(|(layers, operator)| layers * operator.weight_bytes(0.0))
            .sum()
    }

    /// What a pass reads and computes of a mixture's experts; `None`: there are none.
    pub(super) fn routed(&self) -> Option<Routed> {
        let mut found: Option<Routed> = None;
        for (layers, operator) in &self.all {
            if let Operator::Experts(gemm, experts) = operator {
                let before = found.map_or((0.0, 0.0), |routed| (routed.bytes, routed.flops));
                found = Some(Routed {
                    experts: *experts,
                    bytes: before.0 + layers * gemm.weight_bytes(),
                    flops: before.1 + layers * gemm.flops_per_token(),
                });
            }
        }
        found
    }

    /// What a token adds to a pass.
    pub(super) fn per_token(&self) -> PerToken {
        self.all.iter().fold(PerToken::default(), |sum, (layers, operator)| {
            let one = operator.per_token();
            PerToken {
                activation_bytes: sum.activation_bytes + layers * one.activation_bytes,
                flops: sum.flops + layers * one.flops,
            }
        })
    }
}

/// Projections of one layer's attention.
fn attention(shape: &EngineShape, bytes: f64) -> Vec<Gemm> {
    let model: &ModelSpec = shape.model;
    let hidden = f64::from(model.hidden);
    let head_dim = f64::from(model.head_dim);
    let heads = f64::from(model.heads) / f64::from(shape.tensor_parallel);
    let widths = match model.latent {
        None => {
            let kv_heads = f64::from(shape.kv_heads_per_gpu());
            vec![
                (hidden, (heads + 2.0 * kv_heads) * head_dim),
                (heads * head_dim, hidden),
            ]
        }
        // Compressions are computed on every GPU, the heads are shared out.
        Some(latent) => {
            let [query, cached, rope, value] =
                [latent.query_rank, latent.kv_rank, latent.rope_dim, latent.value_dim].map(f64::from);
            vec![
                (hidden, query + cached + rope),
                (query, heads * (head_dim + rope)),
                (cached, heads * (head_dim + value)),
                (heads * value, hidden),
            ]
        }
    };
    let of = |(width_in, width_out)| Gemm {
        width_in,
        width_out,
        bytes,
    };
    widths.into_iter().map(of).collect()
}

impl Precision {
    /// The format of what is not an expert: `MXFP4` models keep it in bf16.
    pub(crate) fn outside_experts(self) -> Self {
        match self {
            Self::Mxfp4 => Self::Bf16,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    #[test]
    fn one_gpu_has_more_to_read_until_all_experts_are_touched() {
        let experts = model("Qwen3-235B-A22B").expect("known").experts.expect("a mixture");
        assert_eq!(imbalance(&experts, 1.0, 8.0), 1.0);
        // 128 experts on 8 GPUs, 8 tokens with 8 each: 51.6 touched, 6.45 of each GPU's 16, standard deviation 1.96.
        let few = imbalance(&experts, 8.0, 8.0);
        assert!((few - (6.45 + 1.4236 * 1.963) / 6.45).abs() < 0.01, "{few}");
        assert!(imbalance(&experts, 8.0, 2000.0) < 1.001);
        // What the fullest GPU reads grows with the batch.
        for gpus in [2.0, 4.0, 6.0, 8.0, 128.0] {
            let reads = |tokens: f64| imbalance(&experts, gpus, tokens) * experts.touched(tokens);
            let all: Vec<f64> = (1..3000).map(|tokens| reads(f64::from(tokens))).collect();
            assert!(all.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9), "{gpus}");
        }
    }
}
