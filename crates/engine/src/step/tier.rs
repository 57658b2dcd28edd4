//! The step of a measured tier: affine in the batch as fitted, with the roofline for what no row tells.

use super::decoding::MeasuredDecoding;
use super::physical::Physical;
use super::{EnergyTerms, StepCost, StepWork};
use crate::measured::{CONTEXT_TOKENS, MeasuredTier};
use crate::model::{Experts, ModelSpec};
use equipoise_types::{Joules, Watts};

/// A measured tier and the roofline of the same shape.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) roofline: Physical,
    step_s: f64,
    step_s_per_seq: f64,
    step_joules: f64,
    step_joules_per_seq: f64,
    /// The model's experts, and what reading all of them costs: seconds, joules.
    experts: Option<(Experts, f64, f64)>,
    prefill_scale: f64,
    /// Of a token of context more than the rows had, from the roofline.
    seconds_per_kv_token: f64,
}

impl Tier {
    pub(super) fn new(roofline: Physical, model: &ModelSpec, tier: &MeasuredTier) -> Self {
        let at = |kv_tokens: u64| {
            roofline.seconds(&StepWork {
                decode_seqs: 1,
                kv_tokens,
                ..StepWork::default()
            })
        };
        let seconds_per_kv_token = (at(100_000) - at(0)) / 100_000.0;
        Self {
            roofline,
            step_s: tier.step_ms / 1e3,
            step_s_per_seq: tier.step_ms_per_seq / 1e3,
            step_joules: tier.step_joules,
            step_joules_per_seq: tier.step_joules_per_seq,
            experts: model
                .experts
                .zip(tier.experts)
                .map(|(experts, cost)| (experts, cost.ms / 1e3, cost.joules)),
            prefill_scale: tier.prefill_scale,
            seconds_per_kv_token,
        }
    }

    /// Seconds and joules of decoding alone, at the contexts of the rows.
    fn at_rows(&self, seqs: u32) -> (f64, f64) {
        let batch = f64::from(seqs);
        let (expert_s, expert_joules) = self.experts.map_or((0.0, 0.0), |(experts, seconds, joules)| {
            let share = experts.touched(batch) / f64::from(experts.count);
            (share * seconds, share * joules)
        });
        let seconds = self.step_s + batch * self.step_s_per_seq + expert_s;
        let joules = self.step_joules + batch * self.step_joules_per_seq + expert_joules;
        (seconds, joules)
    }

    /// Steps that only decode.
    pub(super) fn decoding(&self, seqs: u32) -> MeasuredDecoding {
        let (seconds, joules) = self.at_rows(seqs);
        MeasuredDecoding {
            seconds,
            joules,
            kv_tokens: f64::from(seqs) * CONTEXT_TOKENS,
            seconds_per_kv_token: self.seconds_per_kv_token,
            idle_watts: self.roofline.idle_watts.0,
        }
    }

    /// Seconds and joules of decoding alone; nothing where nobody decodes.
    fn decode(&self, seqs: u32, kv_tokens: u64) -> (f64, f64) {
        if seqs == 0 {
            return (0.0, 0.0);
        }
        let batch = f64::from(seqs);
        let (seconds, joules) = self.at_rows(seqs);
        // Longer or shorter contexts than those of the rows: so much more or less of the same draw.
        let more = (kv_tokens as f64 - batch * CONTEXT_TOKENS) * self.seconds_per_kv_token;
        let stretched = (seconds + more).max(0.5 * seconds);
        (stretched, joules * stretched / seconds)
    }

    pub(super) fn seconds(&self, work: &StepWork) -> f64 {
        let (decode_s, _) = self.decode(work.decode_seqs, work.kv_tokens);
        if work.prefill_tokens == 0 {
            return decode_s;
        }
        let more = self.roofline.seconds(work) - self.roofline.seconds(&work.without_prefill());
        decode_s + self.prefill_scale * more.max(0.0)
    }

    /// Prompts draw the roofline's joules, in whatever time; a step never draws less than the idle board.
    pub(super) fn cost(&self, work: &StepWork) -> StepCost {
        let seconds = self.seconds(work);
        if seconds <= 0.0 {
            return StepCost::default();
        }
        let (_, decode_joules) = self.decode(work.decode_seqs, work.kv_tokens);
        let prefill_joules = if work.prefill_tokens == 0 {
            0.0
        } else {
            let whole = self.roofline.cost(work).joules.0;
            (whole - self.roofline.cost(&work.without_prefill()).joules.0).max(0.0)
        };
        let joules = (decode_joules + prefill_joules).max(self.roofline.idle_watts.0 * seconds);
        StepCost {
            seconds,
            watts: Watts(joules / seconds),
            joules: Joules(joules),
        }
    }

    pub(super) fn prefill_seconds(
        &self,
        tokens: u32,
        prefix: u32,
        chunk: u32,
        decode_seqs: u32,
        kv_tokens: u64,
    ) -> f64 {
        let (beside_s, _) = self.decode(decode_seqs, kv_tokens);
        let steps = f64::from(tokens.div_ceil(chunk.max(1)));
        let beside = StepWork {
            decode_seqs,
            kv_tokens,
            ..StepWork::default()
        };
        let roofline = self
            .roofline
            .prefill_seconds(tokens, prefix, chunk, decode_seqs, kv_tokens);
        let more = roofline - steps * self.roofline.seconds(&beside);
        steps * beside_s + self.prefill_scale * more.max(0.0)
    }

    pub(super) fn energy_terms(&self, seqs: u32) -> EnergyTerms {
        // Experts in a tangent at the batch: most of them are touched by then.
        let of_experts = |batch: f64| {
            self.experts.map_or(0.0, |(experts, _, joules)| {
                experts.touched(batch) / f64::from(experts.count) * joules
            })
        };
        let batch = f64::from(seqs);
        let per_seq = of_experts(batch + 1.0) - of_experts(batch);
        EnergyTerms {
            fixed_joules: self.step_joules + of_experts(batch) - batch * per_seq,
            joules_per_decode_token: self.step_joules_per_seq + per_seq,
            ..self.roofline.energy_terms(seqs)
        }
    }
}
