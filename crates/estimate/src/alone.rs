//! What a request costs an engine that has nothing else to do: the same on every instance of a tier, whatever its load.

use equipoise_engine::{StepModel, StepWork};

/// One request on one engine model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone {
    /// Time of its prompt, seconds.
    pub(crate) prefill_s: f64,
    /// Draw above idle of its prompt, joules.
    pub(crate) prefill_joules: f64,
    /// A step of its answer.
    pub(crate) step: Step,
    /// A step that it shares with one more of its kind.
    pub(crate) pair: Step,
}

/// One decoding step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) seconds: f64,
    /// Draw above idle: idle draw is paid anyway, and kept apart.
    pub(crate) joules: f64,
}

impl Step {
    pub(crate) fn of(physics: &StepModel, decode_seqs: u32, kv_tokens: u64) -> Self {
        let cost = physics.cost(&StepWork {
            decode_seqs,
            kv_tokens,
            ..StepWork::default()
        });
        Self {
            seconds: cost.seconds,
            joules: cost.joules.0 - physics.idle_watts().0 * cost.seconds,
        }
    }
}

impl Alone {
    fn of(physics: &StepModel, prompt_tokens: u32, context: u64) -> Self {
        let idle = physics.idle_watts().0;
        let prefill_s = physics.prefill_seconds(prompt_tokens.max(1), 0, 0, 0);
        let terms = physics.energy_terms();
        Self {
            prefill_s,
            prefill_joules: (f64::from(prompt_tokens) * terms.joules_per_prefill_token - idle * prefill_s).max(0.0),
            step: Step::of(physics, 1, context),
            pair: Step::of(physics, 2, 2 * context),
        }
    }
}

/// Remembers, for each engine model, the last request that was computed alone on it. Everything it depends on is compared,
/// so it may be kept for as long as is convenient; a decision keeps one over its candidates.
#[derive(Clone, Debug, Default)]
pub struct AloneMemo(Vec<Remembered>);

#[derive(Clone, Debug)]
struct Remembered {
    physics: StepModel,
    prompt_tokens: u32,
    context: u64,
    alone: Alone,
}

impl AloneMemo {
    pub(crate) fn of(&mut self, physics: &StepModel, prompt_tokens: u32, context: u64) -> Alone {
        let known = self.0.iter_mut().find(|known| known.physics.is_shared_with(physics));
        if let Some(known) = &known
            && (known.prompt_tokens, known.context) == (prompt_tokens, context)
        {
            return known.alone;
        }
        let alone = Alone::of(physics, prompt_tokens, context);
        let now = Remembered {
            physics: physics.clone(),
            prompt_tokens,
            context,
            alone,
        };
        match known {
            Some(known) => *known = now,
            None => self.0.push(now),
        }
        alone
    }
}

#[cfg(test)]
mod tests {
    use equipoise_engine::{Deployment, EngineLimits, EngineShape, gpu, model};

    use super::*;

    #[test]
    fn what_is_remembered_is_what_would_be_computed() {
        let physics = |gpu_name: &str| {
            StepModel::new(&EngineShape {
                gpu: gpu(gpu_name).expect("in the catalogue"),
                model: model("Llama-3.1-8B").expect("in the catalogue"),
                tensor_parallel: 1,
                limits: EngineLimits::default(),
                deployment: Deployment::default(),
            })
            .expect("fits")
        };
        let engines = [physics("H100"), physics("A100-80G")];
        let mut memo = AloneMemo::default();
        for (prompt_tokens, context) in [(100, 200), (100, 200), (100, 300), (7, 300), (100, 200)] {
            for engine in engines.iter().chain(&engines) {
                let (known, fresh) = (
                    memo.of(engine, prompt_tokens, context),
                    Alone::of(engine, prompt_tokens, context),
                );
                assert_eq!(format!("{known:?}"), format!("{fresh:?}"));
            }
        }
        assert_eq!(memo.0.len(), 2, "one for each engine model");
    }
}
