//! Speculative decoding in expectation: a small model drafts, the large one verifies several tokens in one pass.

use super::StepWork;
use super::physical::{Pass, Physical};
use crate::deployment::{Deployment, Speculation};
use crate::shape::EngineShape;

/// What speculation changes in a step. An engine step stands for one token of every sequence, so it takes the part of a drafting
/// round that one token is: `1 / E` of its time and traffic, where `E` is how many tokens a round yields on average.
#[derive(Debug)]
pub(super) struct Speculated {
    /// Tokens drafted in a round.
    drafted: u32,
    /// Tokens that a round yields, accepted ones and the one that verification gives.
    yielded: f64,
    /// The drafting model, if that is one.
    draft: Option<Box<Physical>>,
}

impl Speculation {
    /// Tokens that a round of `k` drafted ones yields on average, where each is accepted with probability `a` independently and
    /// the first refusal ends the round: `(1 - a^(k+1)) / (1 - a)` (Leviathan et al. 2023, equation 1).
    #[must_use]
    pub fn tokens_per_round(&self) -> f64 {
        // The same sum, written so that certain acceptance needs no case of its own.
        (0..=self.draft_tokens)
            .map(|n| self.acceptance.powf(f64::from(n)))
            .sum()
    }
}

impl Speculated {
    pub(super) fn new(shape: &EngineShape, speculation: Speculation) -> Self {
        let draft = speculation.draft.map(|model| {
            // The draft model lies on the GPUs of one stage, whole or split as far as its heads allow.
            let mut tensor_parallel = shape.tensor_parallel;
            while tensor_parallel > 1 && !model.heads.is_multiple_of(tensor_parallel) {
                tensor_parallel -= 1;
            }
            Box::new(Physical::new(&EngineShape {
                model,
                tensor_parallel,
                deployment: Deployment {
                    weights: shape.deployment.weights,
                    kv_cache: shape.deployment.kv_cache,
                    calibration: shape.deployment.calibration,
                    link: shape.deployment.link,
                    ..Deployment::default()
                },
                ..*shape
            }))
        });
        Self {
            drafted: speculation.draft_tokens,
            yielded: speculation.tokens_per_round(),
            draft,
        }
    }

    /// The decoding of a step as the large model's verification sees it: all drafted tokens and one more of each sequence, whose
    /// context is read once.
    fn verification(&self, work: &StepWork) -> Pass {
        let tokens = work.decode_seqs.saturating_mul(self.drafted + 1);
        Pass {
            tokens,
            rows: tokens,
            seqs: work.decode_seqs,
            kv_tokens: work.kv_tokens as f64,
            pairs: 0.0,
            prompt_tokens: 0.0,
        }
    }

    pub(super) fn seconds(&self, target: &Physical, work: &StepWork) -> f64 {
        let alone = work.without_prefill();
        let drafting = self.draft.as_ref().map_or(0.0, |draft| {
            f64::from(self.drafted) * draft.pass_seconds(Pass::of(&alone))
        });
        let round = target.pass_seconds(self.verification(work)) + drafting;
        // Prompts go through both models, as much as they add to a step without speculation.
        let more = |model: &Physical| {
            let whole = model.pass_seconds(Pass::of(work));
            (whole - model.pass_seconds(Pass::of(&alone))).max(0.0)
        };
        let prompts = if work.prefill_tokens > 0 {
            more(target) + self.draft.as_ref().map_or(0.0, |draft| more(draft))
        } else {
            0.0
        };
        round / self.yielded + prompts
    }

    /// Bytes and FLOPs of a step, likewise.
    pub(super) fn traffic(&self, target: &Physical, work: &StepWork) -> (f64, f64) {
        let alone = work.without_prefill();
        let kv_tokens = work.kv_tokens as f64;
        let mut round = target.traffic(self.verification(work), f64::from(self.drafted + 1) * kv_tokens);
        if let Some(draft) = &self.draft {
            let (bytes, flops) = draft.traffic(Pass::of(&alone), kv_tokens);
            round.0 += f64::from(self.drafted) * bytes;
            round.1 += f64::from(self.drafted) * flops;
        }
        let more = |model: &Physical| {
            let (whole, rest) = (
                model.traffic(Pass::of(work), kv_tokens),
                model.traffic(Pass::of(&alone), kv_tokens),
            );
            ((whole.0 - rest.0).max(0.0), (whole.1 - rest.1).max(0.0))
        };
        let mut prompts = (0.0, 0.0);
        if work.prefill_tokens > 0 {
            prompts = more(target);
            if let Some(draft) = &self.draft {
                let (bytes, flops) = more(draft);
                prompts = (prompts.0 + bytes, prompts.1 + flops);
            }
        }
        (round.0 / self.yielded + prompts.0, round.1 / self.yielded + prompts.1)
    }
}
