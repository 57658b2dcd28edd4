//! Shapes of dense decoder models, as their published configurations give them.

/// A dense decoder-only model served in bf16 (two bytes a parameter).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The name by which fleets are described.
    pub name: &'static str,
    /// Parameters in all.
    pub parameters: u64,
    /// Decoder layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Width of the gated feed-forward layer.
    pub intermediate: u32,
    /// Rows of the output head.
    pub vocab: u32,
    /// Longest context, prompt and output together, tokens.
    pub context_tokens: u32,
    /// Whether input embedding and output head share their weights.
    pub tied_embeddings: bool,
}

/// Bytes of a bf16 number.
pub(crate) const BYTES: f64 = 2.0;

impl ModelSpec {
    /// Bytes of all weights, over all GPUs.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        2 * self.parameters
    }

    /// Bytes of key and value for one token over all layers, before tensor parallelism.
    #[must_use]
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * 2 * u64::from(self.layers) * u64::from(self.kv_heads) * u64::from(self.head_dim)
    }
}

/// Every model known.
#[must_use]
pub fn models() -> &'static [ModelSpec] {
    &MODELS
}

/// The model called `name`, in any case, with or without its organisation and its `-Instruct`, `-it` or `-chat` ending.
#[must_use]
pub fn model(name: &str) -> Option<&'static ModelSpec> {
    let lower = name.to_ascii_lowercase();
    let mut stem = lower.rsplit('/').next().unwrap_or(&lower);
    stem = stem.strip_prefix("meta-").unwrap_or(stem);
    MODELS.iter().find(|model| {
        let Some(rest) = strip_prefix_ignoring_case(stem, model.name) else {
            return false;
        };
        matches!(
            rest,
            "" | "-instruct" | "-it" | "-chat" | "-hf" | "-instruct-hf" | "-instruct-2407"
        )
    })
}

fn strip_prefix_ignoring_case<'a>(lower: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = lower.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// One row of the table, in the order of [`ModelSpec`]'s fields; head width and embedding tie last.
#[expect(clippy::too_many_arguments, reason = "a table row")]
const fn row(
    name: &'static str,
    parameters: u64,
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    intermediate: u32,
    vocab: u32,
    context_tokens: u32,
    tied_embeddings: bool,
) -> ModelSpec {
    ModelSpec {
        name,
        parameters,
        layers,
        hidden,
        heads,
        kv_heads,
        head_dim,
        intermediate,
        vocab,
        context_tokens,
        tied_embeddings,
    }
}

/// From each model's published `config.json` and parameter count. Gemma-2's sliding windows (every other layer, 4,096
/// tokens) are left out: its context is 8,192, so KV is over-counted by at most a quarter.
static MODELS: [ModelSpec; 19] = [
    row(
        "Qwen2.5-0.5B",
        494_032_768,
        24,
        896,
        14,
        2,
        64,
        4864,
        151_936,
        32_768,
        true,
    ),
    row(
        "Qwen2.5-1.5B",
        1_543_714_304,
        28,
        1536,
        12,
        2,
        128,
        8960,
        151_936,
        32_768,
        true,
    ),
    row(
        "Qwen2.5-3B",
        3_085_938_688,
        36,
        2048,
        16,
        2,
        128,
        11_008,
        151_936,
        32_768,
        true,
    ),
    row(
        "Qwen2.5-7B",
        7_615_616_512,
        28,
        3584,
        28,
        4,
        128,
        18_944,
        152_064,
        32_768,
        false,
    ),
    row(
        "Qwen2.5-14B",
        14_770_033_664,
        48,
        5120,
        40,
        8,
        128,
        13_824,
        152_064,
        32_768,
        false,
    ),
    row(
        "Qwen2.5-32B",
        32_763_876_352,
        64,
        5120,
        40,
        8,
        128,
        27_648,
        152_064,
        32_768,
        false,
    ),
    row(
        "Qwen2.5-72B",
        72_706_203_648,
        80,
        8192,
        64,
        8,
        128,
        29_568,
        152_064,
        32_768,
        false,
    ),
    row(
        "Qwen3-8B",
        8_190_735_360,
        36,
        4096,
        32,
        8,
        128,
        12_288,
        151_936,
        40_960,
        false,
    ),
    row(
        "Qwen3-14B",
        14_768_307_200,
        40,
        5120,
        40,
        8,
        128,
        17_408,
        151_936,
        40_960,
        false,
    ),
    row(
        "Qwen3-32B",
        32_762_123_264,
        64,
        5120,
        64,
        8,
        128,
        25_600,
        151_936,
        40_960,
        false,
    ),
    row(
        "Llama-2-70B",
        68_976_648_192,
        80,
        8192,
        64,
        8,
        128,
        28_672,
        32_000,
        4096,
        false,
    ),
    row(
        "Llama-3.1-8B",
        8_030_261_248,
        32,
        4096,
        32,
        8,
        128,
        14_336,
        128_256,
        131_072,
        false,
    ),
    row(
        "Llama-3.1-70B",
        70_553_706_496,
        80,
        8192,
        64,
        8,
        128,
        28_672,
        128_256,
        131_072,
        false,
    ),
    row(
        "Llama-3.1-405B",
        405_853_388_800,
        126,
        16_384,
        128,
        8,
        128,
        53_248,
        128_256,
        131_072,
        false,
    ),
    row(
        "Gemma-2-2B",
        2_614_341_888,
        26,
        2304,
        8,
        4,
        256,
        9216,
        256_000,
        8192,
        true,
    ),
    row(
        "Gemma-2-9B",
        9_241_705_984,
        42,
        3584,
        16,
        8,
        256,
        14_336,
        256_000,
        8192,
        true,
    ),
    row(
        "Gemma-2-27B",
        27_227_128_320,
        46,
        4608,
        32,
        16,
        128,
        36_864,
        256_000,
        8192,
        true,
    ),
    row(
        "Mistral-7B-v0.3",
        7_248_023_552,
        32,
        4096,
        32,
        8,
        128,
        14_336,
        32_768,
        32_768,
        false,
    ),
    row(
        "Mistral-Large",
        122_610_069_504,
        88,
        12_288,
        96,
        8,
        128,
        28_672,
        32_768,
        131_072,
        false,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_organisation_and_ending() {
        let name = |text: &str| model(text).map(|model| model.name);
        for spec in models() {
            assert_eq!(name(spec.name), Some(spec.name));
        }
        assert_eq!(name("Qwen/Qwen2.5-7B-Instruct"), Some("Qwen2.5-7B"));
        assert_eq!(name("meta-llama/Meta-Llama-3.1-8B-Instruct"), Some("Llama-3.1-8B"));
        assert_eq!(name("google/gemma-2-27b-it"), Some("Gemma-2-27B"));
        assert_eq!(name("mistralai/Mistral-Large-Instruct-2407"), Some("Mistral-Large"));
        assert_eq!(name("Qwen2.5-7B-Instruct-AWQ"), None);
        assert_eq!(name("é"), None);
    }

    #[test]
    fn the_shape_accounts_for_the_parameters() {
        for model in models() {
            let [layers, hidden, heads, kv, dim, wide, vocab] = [
                model.layers,
                model.hidden,
                model.heads,
                model.kv_heads,
                model.head_dim,
                model.intermediate,
                model.vocab,
            ]
            .map(f64::from);
            let layer = hidden * (heads + 2.0 * kv) * dim + hidden * heads * dim + 3.0 * hidden * wide;
            let tables = if model.tied_embeddings { 1.0 } else { 2.0 };
            let counted = layers * layer + tables * vocab * hidden;
            let error = counted / model.parameters as f64 - 1.0;
            assert!(error.abs() < 0.003, "{}: {error}", model.name);
        }
    }
}
