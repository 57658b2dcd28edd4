//! What a GPU can do: vendor figures, and efficiencies fitted to published measurements.

use crate::power::PowerCurve;

/// What a GPU's tensor cores can do, in order of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// P100: none.
    Pascal,
    /// V100: fp16.
    Volta,
    /// A30, A100: bf16, int8.
    Ampere,
    /// L40S: fp8 too.
    Ada,
    /// H100, H200: fp8 too.
    Hopper,
    /// B200: fp4 too.
    Blackwell,
}

/// One type of GPU. Rates are per GPU; tensor parallelism multiplies them elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuSpec {
    /// The name by which fleets are described.
    pub name: &'static str,
    /// Which number formats its tensor cores know.
    pub generation: Generation,
    /// Dense bf16 tensor throughput, FLOP/s (fp16 where the GPU has no bf16).
    pub peak_flops: f64,
    /// Memory bandwidth, bytes per second.
    pub bandwidth: f64,
    /// Memory that the driver reports, bytes.
    pub memory_bytes: u64,
    /// Board power limit, watts.
    pub tdp_watts: f64,
    /// Draw of the bare board: no process, no memory in use, watts.
    pub idle_watts: f64,
    /// Bandwidth to the other GPUs of the node, bytes per second in one direction.
    pub link_bandwidth: f64,
    /// Share of `bandwidth` that a large matrix product reaches (eta_b).
    pub bandwidth_efficiency: f64,
    /// Share of `peak_flops` that a large matrix product reaches (eta_f).
    pub flops_efficiency: f64,
    /// Exponent of the norm that joins memory time and compute time (q); larger means better overlap.
    pub roofline_exponent: f64,
    /// Fixed time of one matrix product, seconds (t0).
    pub kernel_seconds: f64,
    /// Share of `bandwidth` that decode attention reaches when it reads the KV cache.
    pub kv_efficiency: f64,
    /// Share of `peak_flops` that causal prefill attention approaches with growing length.
    pub attention_efficiency: f64,
    /// Prompt length at which prefill attention reaches half of `attention_efficiency`, tokens.
    pub attention_half_tokens: f64,
    /// Overhead of the engine per layer and step beyond the matrix products, seconds: norms, rotary embedding, launches,
    /// the fixed part of attention.
    pub layer_seconds: f64,
    /// Overhead of the engine per sequence and step, seconds: scheduling, sampling, detokenising.
    pub sequence_seconds: f64,
    /// Power against utilisation.
    pub power: PowerCurve,
    /// Where the figures come from.
    pub source: &'static str,
}

const MIB: u64 = 1024 * 1024;

/// Every GPU type known.
#[must_use]
pub fn gpus() -> &'static [GpuSpec] {
    &GPUS
}

/// The GPU called `name`, by catalogue name or as the driver spells it ("NVIDIA A100-SXM4-80GB"), in any case.
///
/// A board that differs in bandwidth or power from the catalogue's (H100 PCIe, H100 NVL, A100 PCIe) is unknown rather
/// than approximated.
#[must_use]
pub fn gpu(name: &str) -> Option<&'static GpuSpec> {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let has = |part: &str| words.iter().any(|word| word.contains(part));
    let other_board = has("pcie") || words.contains(&"nvl") || words.contains(&"mig");
    GPUS.iter().find(|gpu| {
        let (family, memory) = gpu.name.split_once('-').unwrap_or((gpu.name, ""));
        let family = family.to_ascii_lowercase();
        let named = words.iter().any(|word| {
            // "A100", "A10080G" and "P100", but not "A1000".
            word.strip_prefix(family.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('g') || rest.ends_with("gb"))
        });
        let fits_memory = match memory {
            "40G" => has("40g"),
            _ => !(gpu.name.starts_with("A100") && has("40g")),
        };
        let board_matters = matches!(family.as_str(), "a100" | "h100" | "h200" | "b200");
        named && fits_memory && !(board_matters && other_board)
    })
}

/// Peak, bandwidth, power limit and link of A30, A100-80, L40S, H100, H200, B200: AIConfigurator `systems/*.yaml`
/// (Apache-2.0). V100, P100 and A100-40: vendor data sheets. Memory: what `nvidia-smi` prints. Idle: single public
/// `nvidia-smi` listings, the middle of the range seen. Matrix efficiencies: fits over AIConfigurator's bf16 kernel tables
/// (20,646 shapes per GPU, median error 4.7-8.4 %), A30 over the kernel table of the Vidur fork by RouteBalance's authors,
/// V100 over APEX+. P100 was not measured: V100's efficiencies. KV efficiency: transfers over 1 GB in the same tables.
/// Attention: `efficiency * length / (length + half)` through the MFU at 512, 2k, 8k and 16k tokens of the same tables.
///
/// Overhead (`layer_seconds`, `sequence_seconds`): fitted to ML.ENERGY v3 (vLLM of 2025, CUDA graphs, dense bf16, batches to
/// 600), kernels as above, prompts taken as 150 tokens: H100 65 rows of 8 models, median inter-token latency 5.5 % mean error
/// and mean step 5.8 % (leaving one model out 6.2 and 6.5 %); B200 47 chat rows, 6.4 and 8.0 % (7.0 and 8.9 %), worst 41 % in
/// rows whose host was the bottleneck. Held out: 44 runs of Qwen3-32B on 4 and 8 H100 under vLLM 0.12 with prompts of 1-4k
/// tokens (AIConfigurator's silicon sample), time per token 5 % mean error. Batches above 600 are over-estimated, up to 25 % on H100 and 60 % on B200 at 2,000.
/// The overhead is the host's, so all other GPUs take H100's figures. ML.ENERGY v2 (vLLM of 2024) needs ten times the overhead
/// (A100: 0.66 ms a layer and 0.31 ms a sequence, 12.8 % error): its absolute figures are of another era and not modelled.
static GPUS: [GpuSpec; 9] = [
    GpuSpec {
        name: "P100",
        generation: Generation::Pascal,
        peak_flops: 21.2e12,
        bandwidth: 732e9,
        memory_bytes: 16_384 * MIB,
        tdp_watts: 300.0,
        idle_watts: 29.0,
        link_bandwidth: 80e9,
        bandwidth_efficiency: 0.796,
        flops_efficiency: 0.710,
        roofline_exponent: 1.80,
        kernel_seconds: 14.8e-6,
        kv_efficiency: 0.74,
        attention_efficiency: 0.45,
        attention_half_tokens: 750.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::like_a100(29.0, 40.0, 300.0),
        source: "vendor data sheet (fp16, no tensor cores, no bf16); efficiencies as V100; power scaled by TDP",
    },
    GpuSpec {
        name: "V100",
        generation: Generation::Volta,
        peak_flops: 125e12,
        bandwidth: 900e9,
        memory_bytes: 32_768 * MIB,
        tdp_watts: 300.0,
        idle_watts: 35.0,
        link_bandwidth: 150e9,
        bandwidth_efficiency: 0.796,
        flops_efficiency: 0.710,
        roofline_exponent: 1.80,
        kernel_seconds: 14.8e-6,
        kv_efficiency: 0.74,
        attention_efficiency: 0.45,
        attention_half_tokens: 750.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::like_a100(35.0, 40.0, 300.0),
        source: "vendor data sheet (SXM2 32 GB, fp16); APEX+ kernels (37,532 shapes, 11.5 % median); power scaled by TDP",
    },
    GpuSpec {
        name: "A30",
        generation: Generation::Ampere,
        peak_flops: 165e12,
        bandwidth: 933e9,
        memory_bytes: 24_576 * MIB,
        tdp_watts: 165.0,
        idle_watts: 29.0,
        link_bandwidth: 32e9,
        bandwidth_efficiency: 1.0,
        flops_efficiency: 0.706,
        roofline_exponent: 1.10,
        kernel_seconds: 25e-6,
        kv_efficiency: 0.74,
        attention_efficiency: 0.60,
        attention_half_tokens: 750.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::like_a100(29.0, 40.0, 165.0),
        source: "AIConfigurator a30.yaml; kernels: Vidur fork (1,841 points, 4.8 % median); attention as A100; power scaled by TDP",
    },
    GpuSpec {
        name: "A100-80G",
        generation: Generation::Ampere,
        peak_flops: 312e12,
        bandwidth: 2039e9,
        memory_bytes: 81_920 * MIB,
        tdp_watts: 400.0,
        idle_watts: 55.0,
        link_bandwidth: 300e9,
        bandwidth_efficiency: 0.783,
        flops_efficiency: 0.772,
        roofline_exponent: 1.59,
        kernel_seconds: 7.2e-6,
        kv_efficiency: 0.74,
        attention_efficiency: 0.60,
        attention_half_tokens: 750.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::like_a100(55.0, 40.0, 400.0),
        source: "AIConfigurator a100_sxm.yaml; kernels: sglang 0.5.10 tables (5.6 % median); power scaled by TDP",
    },
    GpuSpec {
        name: "A100-40G",
        generation: Generation::Ampere,
        peak_flops: 312e12,
        bandwidth: 1555e9,
        memory_bytes: 40_960 * MIB,
        tdp_watts: 400.0,
        idle_watts: 48.0,
        link_bandwidth: 300e9,
        bandwidth_efficiency: 0.783,
        flops_efficiency: 0.772,
        roofline_exponent: 1.59,
        kernel_seconds: 7.2e-6,
        kv_efficiency: 0.74,
        attention_efficiency: 0.60,
        attention_half_tokens: 750.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::like_a100(48.0, 40.0, 400.0),
        source: "vendor data sheet; efficiencies as A100-80G; power scaled by TDP",
    },
    GpuSpec {
        name: "L40S",
        generation: Generation::Ada,
        peak_flops: 362.05e12,
        bandwidth: 864e9,
        memory_bytes: 46_068 * MIB,
        tdp_watts: 350.0,
        idle_watts: 35.0,
        link_bandwidth: 32e9,
        bandwidth_efficiency: 0.818,
        flops_efficiency: 0.571,
        roofline_exponent: 2.05,
        kernel_seconds: 0.0,
        kv_efficiency: 0.80,
        attention_efficiency: 0.48,
        attention_half_tokens: 500.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::like_a100(35.0, 66.0, 350.0),
        source: "AIConfigurator l40s.yaml; kernels: vllm 0.22.0 tables (8.4 % median); power scaled by TDP",
    },
    GpuSpec {
        name: "H100",
        generation: Generation::Hopper,
        peak_flops: 989e12,
        bandwidth: 3350e9,
        memory_bytes: 81_559 * MIB,
        tdp_watts: 700.0,
        idle_watts: 71.0,
        link_bandwidth: 450e9,
        bandwidth_efficiency: 0.854,
        flops_efficiency: 0.766,
        roofline_exponent: 2.78,
        kernel_seconds: 4.6e-6,
        kv_efficiency: 0.90,
        attention_efficiency: 0.66,
        attention_half_tokens: 1500.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::H100,
        source: "AIConfigurator h100_sxm.yaml; kernels: trtllm 1.2.0rc5 tables (6.0 % median); overhead and power: ML.ENERGY v3",
    },
    GpuSpec {
        name: "H200",
        generation: Generation::Hopper,
        peak_flops: 989e12,
        bandwidth: 4800e9,
        memory_bytes: 143_771 * MIB,
        tdp_watts: 700.0,
        idle_watts: 80.0,
        link_bandwidth: 450e9,
        bandwidth_efficiency: 0.882,
        flops_efficiency: 0.697,
        roofline_exponent: 2.31,
        kernel_seconds: 3.9e-6,
        kv_efficiency: 0.86,
        attention_efficiency: 0.66,
        attention_half_tokens: 1500.0,
        layer_seconds: 34e-6,
        sequence_seconds: 74e-6,
        power: PowerCurve::H100,
        source: "AIConfigurator h200_sxm.yaml; kernels: vllm 0.22.0 tables (4.7 % median); overhead and power as H100",
    },
    GpuSpec {
        name: "B200",
        generation: Generation::Blackwell,
        peak_flops: 2250e12,
        bandwidth: 7700e9,
        memory_bytes: 183_359 * MIB,
        tdp_watts: 1000.0,
        idle_watts: 140.0,
        link_bandwidth: 900e9,
        bandwidth_efficiency: 0.836,
        flops_efficiency: 0.638,
        roofline_exponent: 1.96,
        kernel_seconds: 3.6e-6,
        kv_efficiency: 0.88,
        attention_efficiency: 0.65,
        attention_half_tokens: 2200.0,
        layer_seconds: 51e-6,
        sequence_seconds: 60e-6,
        power: PowerCurve::B200,
        source: "AIConfigurator b200_sxm.yaml; kernels: vllm 0.22.0 tables (7.7 % median); overhead and power: ML.ENERGY v3",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_fleets_and_drivers_spell_them() {
        let name = |text: &str| gpu(text).map(|gpu| gpu.name);
        for spec in gpus() {
            assert_eq!(name(spec.name), Some(spec.name));
            assert_eq!(name(&spec.name.to_ascii_lowercase()), Some(spec.name));
        }
        assert_eq!(name("A100"), Some("A100-80G"));
        assert_eq!(name("NVIDIA A100-SXM4-80GB"), Some("A100-80G"));
        assert_eq!(name("NVIDIA A100-SXM4-40GB"), Some("A100-40G"));
        assert_eq!(name("NVIDIA H100 80GB HBM3"), Some("H100"));
        assert_eq!(name("h100_sxm"), Some("H100"));
        assert_eq!(name("Tesla V100-SXM2-32GB"), Some("V100"));
        assert_eq!(name("NVIDIA L40S"), Some("L40S"));
        assert_eq!(name("NVIDIA H100 PCIe"), None);
        assert_eq!(name("NVIDIA GB200"), None);
        assert_eq!(name("RTX A1000"), None);
        assert_eq!(name(""), None);
    }
}
