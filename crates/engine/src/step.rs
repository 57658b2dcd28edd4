//! What one step of the engine costs in time and energy.

mod decoding;
mod operators;
mod physical;
mod replicas;
mod speculation;
#[cfg(test)]
mod tests;
mod tier;

pub use decoding::Decoding;

use crate::deployment::{Batching, Deployment};
use crate::measured::MeasuredTier;
use crate::prefill_side::PrefillSide;
use crate::rest::{Rest, Sleep, Waking};
use crate::shape::{EngineLimits, EngineShape, ShapeError};
use equipoise_types::{Joules, Watts};
use physical::Physical;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tier::Tier;

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

impl StepWork {
    /// The decoding of it alone.
    pub(crate) fn without_prefill(&self) -> Self {
        Self {
            decode_seqs: self.decode_seqs,
            kv_tokens: self.kv_tokens,
            ..Self::default()
        }
    }
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
    deployment: Deployment,
    kv_blocks: u32,
    kind: Kind,
    prefill: Option<PrefillSide>,
    rest: Rest,
    sleep: Option<Sleep>,
    /// Asked for in every prediction.
    terms: EnergyTerms,
}

#[derive(Debug)]
enum Kind {
    Fixed { service_seconds: f64 },
    Physical(Box<Physical>),
    Measured(Box<Tier>),
}

/// Time slice of an engine with fixed service time: an arrival waits this long at most for a free slot.
pub(crate) const SLICE_SECONDS: f64 = 1e-3;

impl StepModel {
    /// The model of a shape; all tables are computed here.
    ///
    /// # Errors
    /// When the shape cannot run: see [`ShapeError`].
    pub fn new(shape: &EngineShape) -> Result<Self, ShapeError> {
        Self::assembled(shape, None, None, None)
    }

    /// The model of a shape whose steps were measured; what the rows do not tell (prompts, long contexts, memory) is the
    /// shape's own.
    ///
    /// # Errors
    /// When the shape cannot run.
    pub fn measured(shape: &EngineShape, tier: &MeasuredTier) -> Result<Self, ShapeError> {
        Self::assembled(shape, Some(tier), None, None)
    }

    pub(crate) fn assembled(
        shape: &EngineShape,
        tier: Option<&MeasuredTier>,
        prefill: Option<PrefillSide>,
        sleep: Option<Sleep>,
    ) -> Result<Self, ShapeError> {
        // Of each replica; those of the engine are that many times as large.
        let kv_blocks = shape.kv_blocks()?;
        let replicas = shape.deployment.data_parallel;
        let limits = EngineLimits {
            max_num_seqs: shape.limits.max_num_seqs.saturating_mul(replicas),
            max_num_batched_tokens: shape.limits.max_num_batched_tokens.saturating_mul(replicas),
            ..shape.limits
        };
        let physical = Physical::new(shape);
        let gpus = f64::from(replicas) * physical.gpus;
        let (gpu, loaded_watts) = (shape.gpu, shape.gpu.power.loaded_idle_watts(shape.gpu.idle_watts));
        let weight_bytes = f64::from(replicas) * shape.weight_bytes();
        let kind = match tier {
            None => Kind::Physical(Box::new(physical)),
            Some(tier) => Kind::Measured(Box::new(Tier::new(physical, shape.model, tier))),
        };
        let seqs = shape.limits.max_num_seqs.min(64);
        let mut terms = match &kind {
            Kind::Fixed { .. } => EnergyTerms::default(),
            Kind::Physical(physical) => physical.energy_terms(seqs),
            Kind::Measured(tier) => tier.energy_terms(seqs),
        };
        terms.fixed_joules *= f64::from(replicas);
        if let Some(side) = &prefill {
            terms.joules_per_prefill_token = side.engine.energy_terms().joules_per_prefill_token;
        }
        Ok(Self(Arc::new(Model {
            limits,
            deployment: shape.deployment,
            kv_blocks: kv_blocks.saturating_mul(replicas),
            kind,
            prefill,
            rest: Rest::of(gpus, gpu.idle_watts, loaded_watts, gpu.tdp_watts, weight_bytes),
            sleep,
            terms,
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
            deployment: Deployment::default(),
            kv_blocks: u32::MAX,
            kind: Kind::Fixed { service_seconds },
            prefill: None,
            rest: Rest::default(),
            sleep: None,
            terms: EnergyTerms::default(),
        }))
    }

    /// The service time of an opaque box; `None` for a physical model.
    #[must_use]
    pub fn fixed_seconds(&self) -> Option<f64> {
        match self.0.kind {
            Kind::Fixed { service_seconds } => Some(service_seconds),
            Kind::Physical(_) | Kind::Measured(_) => None,
        }
    }

    /// Which work goes into a step together.
    #[must_use]
    pub fn batching(&self) -> Batching {
        self.0
            .deployment
            .calibration
            .map_or(Batching::Mixed, |known| known.batching)
    }

    /// What a request of so many prompt tokens spends outside of the engine's steps before its first token, while the engine
    /// has so many sequences, seconds: HTTP, tokeniser, queues between processes. Zero where the deployment names no engine.
    #[must_use]
    pub fn request_seconds(&self, prompt_tokens: u32, sequences: u32) -> f64 {
        self.0.deployment.calibration.map_or(0.0, |known| {
            known.request_seconds
                + f64::from(prompt_tokens) * known.request_seconds_per_token
                + f64::from(sequences) * known.request_seconds_per_sequence
        })
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
            Kind::Measured(tier) => tier.roofline.context_tokens,
        }
    }

    /// True where both are clones of one model: what is computed with one holds for the other.
    #[must_use]
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Draw of all GPUs of the instance with the engine loaded and no step running, those that compute its prompts included.
    #[must_use]
    pub fn idle_watts(&self) -> Watts {
        let prompts = self.0.prefill.as_ref().map_or(0.0, |side| side.idle_watts().0);
        Watts(self.0.rest.loaded.0 + prompts)
    }

    /// What it draws at rest and how it comes back; all zero for an opaque box.
    #[must_use]
    pub fn rest(&self) -> Rest {
        self.0.rest
    }

    /// When it goes to sleep; `None`: never.
    #[must_use]
    pub fn sleep(&self) -> Option<Sleep> {
        self.0.sleep
    }

    /// What it draws in so many seconds without work.
    #[must_use]
    pub fn idle_energy(&self, seconds: f64) -> Joules {
        let prompts = self.0.prefill.as_ref().map_or(0.0, |side| side.idle_watts().0);
        self.0.rest.idle_energy(self.0.sleep, seconds) + Watts(prompts) * seconds
    }

    /// What the first request after so many seconds without work has to wait and to pay for; `None`: it finds the engine awake.
    #[must_use]
    pub fn waking(&self, idle_s: f64) -> Option<Waking> {
        self.0.rest.waking(self.0.sleep, idle_s)
    }

    /// The other GPUs that compute its prompts, if there are any.
    #[must_use]
    pub fn prefill_side(&self) -> Option<&PrefillSide> {
        self.0.prefill.as_ref()
    }

    fn kind_seconds(&self, work: &StepWork) -> f64 {
        match &self.0.kind {
            Kind::Fixed { .. } => SLICE_SECONDS,
            Kind::Physical(physical) => physical.seconds(work),
            Kind::Measured(tier) => tier.seconds(work),
        }
    }

    fn kind_cost(&self, work: &StepWork) -> StepCost {
        match &self.0.kind {
            Kind::Fixed { .. } => StepCost {
                seconds: SLICE_SECONDS,
                ..StepCost::default()
            },
            Kind::Physical(physical) => physical.cost(work),
            Kind::Measured(tier) => tier.cost(work),
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
    ///
    /// Replicas step together, as vLLM's do where they share experts: the one with a part of every kind of work sets the time, and
    /// those without any idle along.
    #[must_use]
    pub fn cost(&self, work: &StepWork) -> StepCost {
        let replicas = self.0.deployment.data_parallel;
        if replicas == 1 {
            return self.kind_cost(work);
        }
        let fullest = self.kind_cost(&replicas::fullest(work, replicas));
        if fullest.seconds <= 0.0 {
            return fullest;
        }
        let (prompts, answers) = replicas::busy(work, replicas);
        let only_answers = replicas::fullest(&work.without_prefill(), replicas);
        let idle_joules = self.0.rest.loaded.0 / f64::from(replicas) * fullest.seconds;
        let answering = answers.saturating_sub(prompts);
        let resting = replicas - prompts.max(answers);
        let joules = f64::from(prompts) * fullest.joules.0
            + f64::from(answering) * self.kind_cost(&only_answers).joules.0.max(idle_joules)
            + f64::from(resting) * idle_joules;
        StepCost {
            seconds: fullest.seconds,
            watts: Watts(joules / fullest.seconds),
            joules: Joules(joules),
        }
    }

    /// Time to prefill `tokens` after a cached `prefix`, in chunks of the step budget, beside a batch of `decode_seqs` that
    /// reads `kv_tokens` of context a step, seconds. For an opaque box its whole service time.
    #[must_use]
    pub fn prefill_seconds(&self, tokens: u32, prefix: u32, decode_seqs: u32, kv_tokens: u64) -> f64 {
        if let Some(side) = &self.0.prefill {
            return side.engine.prefill_seconds(tokens, prefix, 0, 0)
                + side.transfer_seconds(tokens.saturating_add(prefix));
        }
        let replicas = self.0.deployment.data_parallel;
        let (decode_seqs, kv_tokens) = (decode_seqs.div_ceil(replicas), kv_tokens / u64::from(replicas));
        let budget = self.0.limits.max_num_batched_tokens / replicas;
        let chunk = budget.saturating_sub(decode_seqs).max(1);
        match &self.0.kind {
            Kind::Fixed { service_seconds } => *service_seconds,
            Kind::Physical(physical) => physical.prefill_seconds(tokens, prefix, chunk, decode_seqs, kv_tokens),
            Kind::Measured(tier) => tier.prefill_seconds(tokens, prefix, chunk, decode_seqs, kv_tokens),
        }
    }

    /// Time to the first token of a prompt of `tokens` with `ahead` tokens of other prompts before it, seconds: as
    /// [`Self::prefill_seconds`] of both together, but those ahead are shared out over replicas or the engines that compute prompts.
    #[must_use]
    pub fn prompt_seconds(&self, ahead: u32, tokens: u32, decode_seqs: u32, kv_tokens: u64) -> f64 {
        let shared_by = match &self.0.prefill {
            Some(side) => side.count,
            None => self.0.deployment.data_parallel,
        };
        self.prefill_seconds((ahead / shared_by).saturating_add(tokens), 0, decode_seqs, kv_tokens)
    }

    /// Time of a step that decodes one token for each of `seqs` sequences with `kv_tokens` of context in all, seconds. Zero
    /// for an opaque box, so that prefill and decode together make its service time.
    #[must_use]
    pub fn decode_step_seconds(&self, seqs: u32, kv_tokens: u64) -> f64 {
        if self.fixed_seconds().is_some() {
            return 0.0;
        }
        let work = StepWork {
            decode_seqs: seqs,
            kv_tokens,
            ..StepWork::default()
        };
        match self.0.deployment.data_parallel {
            1 => self.kind_seconds(&work),
            replicas => self.kind_seconds(&replicas::fullest(&work, replicas)),
        }
    }

    /// Step energy, linearised around a typical batch: 64 sequences (or the limit) at 512 tokens of context each, with 32
    /// prompt tokens a step. No coefficient is negative.
    #[must_use]
    pub fn energy_terms(&self) -> EnergyTerms {
        self.0.terms
    }
}
