//! Steps of one batch that only decodes: what does not change from one to the next, worked out once.

use super::physical::Physical;
use super::tier::Tier;
use super::{Kind, StepCost, StepModel, StepWork};
use equipoise_types::{Joules, Watts};

/// What steps cost that each decode one token for so many sequences, against their contexts alone: the very figures of
/// [`StepModel::cost`], to the bit, for a fraction of the arithmetic.
#[derive(Clone, Debug)]
pub struct Decoding(Form);

#[derive(Clone, Debug)]
enum Form {
    Roofline(RooflineDecoding),
    Measured(MeasuredDecoding),
    /// What has no shorter form.
    Any(StepModel, u32),
}

/// Time, traffic and FLOPs of one GPU that are each affine in the tokens of context; and the power of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct RooflineDecoding {
    pub(super) seconds: f64,
    pub(super) seconds_per_kv_token: f64,
    pub(super) bytes: f64,
    pub(super) bytes_per_kv_token: f64,
    pub(super) flops: f64,
    pub(super) flops_per_pair: f64,
    pub(super) bandwidth: f64,
    pub(super) peak_flops: f64,
    pub(super) gpus: f64,
    pub(super) base_watts: f64,
    pub(super) memory_watts: f64,
    pub(super) compute_watts: f64,
    pub(super) tdp_watts: f64,
}

/// Time and energy of a measured step, both at the contexts that it was measured with.
#[derive(Clone, Copy, Debug)]
pub(super) struct MeasuredDecoding {
    pub(super) seconds: f64,
    pub(super) joules: f64,
    pub(super) kv_tokens: f64,
    pub(super) seconds_per_kv_token: f64,
    pub(super) idle_watts: f64,
}

impl StepModel {
    /// The steps of a batch of `seqs` sequences that only decode.
    #[must_use]
    pub fn decoding(&self, seqs: u32) -> Decoding {
        let short = match &self.0.kind {
            _ if seqs == 0 || self.0.deployment.data_parallel != 1 => None,
            Kind::Fixed { .. } => None,
            Kind::Physical(physical) => Physical::decoding(physical, seqs).map(Form::Roofline),
            Kind::Measured(tier) => Some(Form::Measured(Tier::decoding(tier, seqs))),
        };
        Decoding(short.unwrap_or_else(|| Form::Any(self.clone(), seqs)))
    }
}

impl Decoding {
    /// The cost of the step that reads so many tokens of context in all.
    #[inline]
    #[must_use]
    pub fn cost(&self, kv_tokens: u64) -> StepCost {
        match &self.0 {
            Form::Roofline(roofline) => roofline.cost(kv_tokens as f64),
            Form::Measured(measured) => measured.cost(kv_tokens as f64),
            Form::Any(model, seqs) => model.cost(&StepWork {
                decode_seqs: *seqs,
                kv_tokens,
                ..StepWork::default()
            }),
        }
    }
}

impl RooflineDecoding {
    #[inline]
    fn cost(&self, kv_tokens: f64) -> StepCost {
        let seconds = self.seconds + kv_tokens * self.seconds_per_kv_token;
        if seconds <= 0.0 {
            return StepCost::default();
        }
        let bytes = self.bytes + kv_tokens * self.bytes_per_kv_token;
        let flops = self.flops + kv_tokens * self.flops_per_pair;
        let memory_share = bytes / (seconds * self.bandwidth);
        let compute_share = flops / (seconds * self.peak_flops);
        let each = self.base_watts + self.memory_watts * memory_share + self.compute_watts * compute_share.sqrt();
        let watts = Watts(self.gpus * each.min(self.tdp_watts));
        StepCost {
            seconds,
            watts,
            joules: watts * seconds,
        }
    }
}

impl MeasuredDecoding {
    #[inline]
    fn cost(&self, kv_tokens: f64) -> StepCost {
        let more = (kv_tokens - self.kv_tokens) * self.seconds_per_kv_token;
        let seconds = (self.seconds + more).max(0.5 * self.seconds);
        if seconds <= 0.0 {
            return StepCost::default();
        }
        let joules = (self.joules * seconds / self.seconds).max(self.idle_watts * seconds);
        StepCost {
            seconds,
            watts: Watts(joules / seconds),
            joules: Joules(joules),
        }
    }
}
