//! What a step costs on an instance, for the split of its energy.

use equipoise_energy::StepTerms;
use equipoise_engine::{DeclaredEngine, EngineLimits, Serving, gpu, model};
use equipoise_proto::v1::Instance;

/// What the split assumes of an instance whose architecture or GPU is not in the catalogue: the shares of a 7-billion
/// model on one A100-80G by the engine model, rounded. Only the proportions matter, since the split is scaled to what was
/// measured: most of a step's energy is its fixed part, shared by time, and each pays for its own tokens.
const TYPICAL: StepTerms = StepTerms {
    fixed_joules: 3.2,
    joules_per_prefill_token: 0.018,
    joules_per_decode_token: 0.031,
    joules_per_kv_token: 1.3e-5,
};

/// What the terms depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    architecture: String,
    gpu: String,
    tensor_parallel: u32,
    measured: String,
    serving: String,
    max_num_seqs: Option<u32>,
    max_num_batched_tokens: Option<u32>,
}

impl Shape {
    pub(super) fn of(instance: &Instance) -> Self {
        let limits = instance.limits.unwrap_or_default();
        let tier = instance.tier.clone().unwrap_or_default();
        Self {
            architecture: instance
                .model
                .as_ref()
                .map(|model| model.architecture.clone())
                .unwrap_or_default(),
            gpu: tier.gpu,
            tensor_parallel: tier.tensor_parallel.max(1),
            measured: tier.measured,
            serving: tier.serving,
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.max_num_batched_tokens,
        }
    }
}

/// The terms of a shape by the engine model, or typical ones where it is not known.
pub(super) fn terms_of(shape: &Shape) -> StepTerms {
    if gpu(&shape.gpu).is_none() || model(&shape.architecture).is_none() {
        return TYPICAL;
    }
    let usual = EngineLimits::default();
    let serving = Serving::from_text(&shape.serving).unwrap_or_default();
    let declared = DeclaredEngine {
        model: &shape.architecture,
        gpu: &shape.gpu,
        tensor_parallel: shape.tensor_parallel,
        limits: EngineLimits {
            max_num_seqs: shape.max_num_seqs.unwrap_or(usual.max_num_seqs),
            max_num_batched_tokens: shape.max_num_batched_tokens.unwrap_or(usual.max_num_batched_tokens),
            ..usual
        },
        measured: (!shape.measured.is_empty()).then_some(&shape.measured),
        serving: serving.as_ref(),
    };
    let modelled = DeclaredEngine {
        measured: None,
        ..declared
    };
    // A table that does not hold this tier: the roofline's shares are near enough.
    let built = declared.step_model().or_else(|_| modelled.step_model());
    match built {
        Ok(step) => {
            let terms = step.energy_terms();
            StepTerms {
                fixed_joules: terms.fixed_joules,
                joules_per_prefill_token: terms.joules_per_prefill_token,
                joules_per_decode_token: terms.joules_per_decode_token,
                joules_per_kv_token: terms.joules_per_kv_token,
            }
        }
        Err(error) => {
            tracing::debug!(%error, "the engine model has no such shape; typical shares are used");
            TYPICAL
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_shape_has_its_own_terms_and_typical_ones_are_typical() {
        let shape = |architecture: &str| Shape {
            architecture: architecture.to_owned(),
            gpu: "A100-80G".to_owned(),
            tensor_parallel: 1,
            ..Shape::default()
        };
        let known = terms_of(&shape("Qwen2.5-7B"));
        assert_ne!(known, TYPICAL);
        assert_eq!(terms_of(&shape("nothing known")), TYPICAL);
        let near = |ours: f64, engine: f64| assert!((0.5..2.0).contains(&(ours / engine)), "{ours} against {engine}");
        near(TYPICAL.fixed_joules, known.fixed_joules);
        near(TYPICAL.joules_per_prefill_token, known.joules_per_prefill_token);
        near(TYPICAL.joules_per_decode_token, known.joules_per_decode_token);
        near(TYPICAL.joules_per_kv_token, known.joules_per_kv_token);
    }
}
