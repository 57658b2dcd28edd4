//! Shapes of decoder models, dense and mixtures of experts, as their published configurations give them.

mod catalogue;

use catalogue::MODELS;

/// A decoder-only model.
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
    /// Width of the gated feed-forward layer, where it is dense.
    pub intermediate: u32,
    /// Rows of the output head.
    pub vocab: u32,
    /// Longest context, prompt and output together, tokens.
    pub context_tokens: u32,
    /// Whether input embedding and output head share their weights.
    pub tied_embeddings: bool,
    /// The experts of a mixture; `None`: every layer is dense.
    pub experts: Option<Experts>,
    /// Ranks of latent attention (MLA); `None`: keys and values are cached as they are.
    pub latent: Option<Latent>,
    /// Layers whose attention sees a short window only. What they cache does not grow with the context and is left out.
    pub windowed_layers: u32,
}

/// Feed-forward layers of which a token takes a few of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer among which the router chooses.
    pub count: u32,
    /// How many of them a token goes through.
    pub active: u32,
    /// Width of one.
    pub intermediate: u32,
    /// Width of what every token goes through beside them; 0: nothing.
    pub shared_intermediate: u32,
    /// Layers that have experts; the others are dense.
    pub layers: u32,
}

/// Multi-head latent attention: the cache holds one compressed vector a token and layer, whatever the number of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Width that queries are compressed to.
    pub query_rank: u32,
    /// Width that keys and values are compressed to.
    pub kv_rank: u32,
    /// Width of the rotary part of a key, shared by all heads.
    pub rope_dim: u32,
    /// Width of a head's value.
    pub value_dim: u32,
}

/// Bytes of a bf16 number.
pub(crate) const BYTES: f64 = 2.0;

impl Experts {
    const fn all_layers(count: u32, active: u32, intermediate: u32, layers: u32) -> Self {
        Self {
            count,
            active,
            intermediate,
            shared_intermediate: 0,
            layers,
        }
    }

    /// How many different experts of a layer a step of so many tokens touches, if each token draws its own at random:
    /// `E (1 - (1 - k/E)^tokens)`. Their weights are what the step reads.
    #[must_use]
    pub fn touched(&self, tokens: f64) -> f64 {
        let count = f64::from(self.count);
        let missed = 1.0 - f64::from(self.active) / count;
        count * (1.0 - missed.powf(tokens))
    }
}

impl ModelSpec {
    /// Bytes of all weights in bf16, over all GPUs.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        2 * self.parameters
    }

    /// Numbers that are cached for one token over all layers, before tensor parallelism.
    #[must_use]
    pub fn kv_values_per_token(&self) -> u64 {
        let layers = u64::from(self.layers - self.windowed_layers);
        let values = match self.latent {
            Some(latent) => u64::from(latent.kv_rank) + u64::from(latent.rope_dim),
            None => 2 * u64::from(self.kv_heads) * u64::from(self.head_dim),
        };
        layers * values
    }

    /// Parameters of all experts that the router chooses among; zero for a dense model.
    #[must_use]
    pub fn expert_parameters(&self) -> u64 {
        self.experts.map_or(0, |experts| {
            let one = 3 * u64::from(self.hidden) * u64::from(experts.intermediate);
            u64::from(experts.layers) * u64::from(experts.count) * one
        })
    }

    /// Parameters that one token goes through: all of a dense model, the chosen experts and the rest of a mixture.
    #[must_use]
    pub fn active_parameters(&self) -> u64 {
        self.experts.map_or(self.parameters, |experts| {
            let routed = self.expert_parameters();
            self.parameters - routed + routed / u64::from(experts.count) * u64::from(experts.active)
        })
    }
}

/// Every model known.
#[must_use]
pub fn models() -> &'static [ModelSpec] {
    &MODELS
}

/// Other names of an architecture: later versions that have the same shape.
const ALIASES: [(&str, &str); 9] = [
    ("deepseek-r1", "DeepSeek-V3"),
    ("deepseek-r1-0528", "DeepSeek-V3"),
    ("deepseek-v3-0324", "DeepSeek-V3"),
    ("deepseek-v3.1", "DeepSeek-V3"),
    ("llama-3.3-70b", "Llama-3.1-70B"),
    ("llama-4-scout-17b-16e", "Llama-4-Scout"),
    ("llama-4-maverick-17b-128e", "Llama-4-Maverick"),
    ("qwen3-coder-30b-a3b", "Qwen3-30B-A3B"),
    ("mixtral-8x7b-instruct-v0.1", "Mixtral-8x7B"),
];

/// Endings that say how a model was tuned, not what its shape is.
const ENDINGS: [&str; 10] = [
    "",
    "-instruct",
    "-it",
    "-chat",
    "-hf",
    "-instruct-hf",
    "-instruct-2407",
    "-instruct-2507",
    "-thinking-2507",
    "-instruct-v0.1",
];

/// The model called `name`, in any case, with or without its organisation and its `-Instruct`, `-it` or `-chat` ending.
#[must_use]
pub fn model(name: &str) -> Option<&'static ModelSpec> {
    let lower = name.to_ascii_lowercase();
    let mut stem = lower.rsplit('/').next().unwrap_or(&lower);
    stem = stem.strip_prefix("meta-").unwrap_or(stem);
    let is = |known: &str| strip_prefix_ignoring_case(stem, known).is_some_and(|rest| ENDINGS.contains(&rest));
    let known = MODELS.iter().find(|model| is(model.name));
    known.or_else(|| {
        let (_, same) = ALIASES.iter().find(|(alias, _)| is(alias))?;
        MODELS.iter().find(|model| model.name == *same)
    })
}

fn strip_prefix_ignoring_case<'a>(lower: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = lower.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

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
        assert_eq!(name("Qwen/Qwen3-30B-A3B-Thinking-2507"), Some("Qwen3-30B-A3B"));
        assert_eq!(name("deepseek-ai/DeepSeek-V3.1"), Some("DeepSeek-V3"));
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
            let attention = match model.latent {
                None => hidden * (heads + 2.0 * kv) * dim + hidden * heads * dim,
                Some(latent) => {
                    let [query, cached, rope, value] =
                        [latent.query_rank, latent.kv_rank, latent.rope_dim, latent.value_dim].map(f64::from);
                    hidden * (query + cached + rope)
                        + heads * (query * (dim + rope) + cached * (dim + value) + value * hidden)
                }
            };
            let sparse = model.experts.map_or(0.0, |experts| f64::from(experts.layers));
            let shared = model
                .experts
                .map_or(0.0, |experts| f64::from(experts.shared_intermediate));
            let router = model.experts.map_or(0.0, |experts| f64::from(experts.count));
            let dense = 3.0 * hidden * ((layers - sparse) * wide + sparse * shared) + sparse * hidden * router;
            let tables = if model.tied_embeddings { 1.0 } else { 2.0 };
            let counted = layers * attention + dense + model.expert_parameters() as f64 + tables * vocab * hidden;
            let error = counted / model.parameters as f64 - 1.0;
            assert!(error.abs() < 0.003, "{}: {error}", model.name);
        }
    }

    #[test]
    fn a_mixture_has_the_active_parameters_that_its_name_says() {
        for (name, billions) in [
            ("Mixtral-8x7B", 12.9),
            ("Qwen3-30B-A3B", 3.3),
            ("Qwen3-235B-A22B", 22.0),
            ("gpt-oss-120b", 5.7),
            ("Llama-4-Maverick", 17.0),
            ("DeepSeek-V3", 37.5),
        ] {
            let active = model(name).expect("known").active_parameters() as f64 / 1e9;
            assert!((active / billions - 1.0).abs() < 0.06, "{name}: {active}");
        }
        let dense = model("Qwen3-8B").expect("known");
        assert_eq!(dense.active_parameters(), dense.parameters);
    }

    #[test]
    fn experts_touched_grow_from_those_of_one_token_to_all() {
        let experts = model("Qwen3-30B-A3B").expect("known").experts.expect("a mixture");
        assert_eq!(experts.touched(0.0), 0.0);
        assert!((experts.touched(1.0) - 8.0).abs() < 1e-9);
        // Two tokens share an expert now and then: 128 (1 - (15/16)^2).
        assert!((experts.touched(2.0) - 15.5).abs() < 1e-9);
        assert!(experts.touched(512.0) > 127.99);
    }
}
