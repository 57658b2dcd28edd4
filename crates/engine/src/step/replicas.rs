//! The work of a step shared out over replicas.

use super::StepWork;

/// Replicas that have prompts, and replicas that have answers.
pub(super) fn busy(work: &StepWork, replicas: u32) -> (u32, u32) {
    let prompts = if work.prefill_tokens > 0 {
        work.prefill_seqs.clamp(1, replicas)
    } else {
        0
    };
    (prompts, work.decode_seqs.min(replicas))
}

/// The part of a replica that has prompts and answers, the largest where they do not divide evenly. A sequence stays whole.
pub(super) fn fullest(work: &StepWork, replicas: u32) -> StepWork {
    let (prompts, answers) = busy(work, replicas);
    let (prompts, answers) = (prompts.max(1), answers.max(1));
    StepWork {
        prefill_tokens: work.prefill_tokens.div_ceil(prompts),
        prefill_seqs: work.prefill_seqs.div_ceil(prompts),
        prefill_attention: work.prefill_attention / f64::from(prompts),
        prefill_kv_tokens: work.prefill_kv_tokens.div_ceil(u64::from(prompts)),
        decode_seqs: work.decode_seqs.div_ceil(answers),
        kv_tokens: work.kv_tokens.div_ceil(u64::from(answers)),
    }
}
