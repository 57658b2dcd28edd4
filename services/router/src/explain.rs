//! Explanations for people: a decision's candidates and verdicts with names, as JSON.

use equipoise_scheduler::{Explanation, Scheduler};
use equipoise_types::InstanceId;
use serde_json::{Value, json};

/// Rounded to what a person reads: six significant digits.
fn short(value: f64) -> Value {
    let digits = 5 - value.abs().max(1e-12).log10().floor() as i32;
    let scale = 10_f64.powi(digits.clamp(0, 15));
    json!((value * scale).round() / scale)
}

/// The explanation of a decision called `name`.
pub(crate) fn json(scheduler: &Scheduler, name: &str, explanation: &Explanation) -> Value {
    let fleet = scheduler.fleet();
    let instance = |id: InstanceId| {
        fleet
            .instance(id)
            .map_or_else(|| id.to_string(), |i| i.spec.name.clone())
    };
    let candidates: Vec<Value> = explanation
        .scored()
        .map(|(candidate, score)| {
            let estimate = candidate.estimate();
            // Of those that no SLO was held against, nothing was bounded.
            let bound = |value: f64| (estimate.bounds.confidence > 0.0).then(|| short(value));
            json!({
                "instance": instance(candidate.instance),
                "model": fleet.model(candidate.model).map(|model| model.name.as_str()),
                "chosen": candidate.instance == explanation.chosen,
                "score": score.map(short),
                "quality": short(estimate.quality),
                "quality_from": candidate.prediction.quality.source.name(),
                "quality_before_feedback": short(candidate.prediction.quality.base),
                "quality_sd": short(estimate.quality_sd),
                "output_tokens": short(estimate.output_tokens),
                "queue_s": short(estimate.queue_s),
                "ttft_s": short(estimate.ttft_s),
                "tpot_s": short(estimate.tpot_s),
                "e2e_s": short(estimate.e2e_s),
                "confidence": bound(estimate.bounds.confidence),
                "ttft_bound_s": bound(estimate.bounds.ttft_s),
                "e2e_bound_s": bound(estimate.bounds.e2e_s),
                "joules": short(estimate.energy.0),
                "joules_bound": bound(estimate.bounds.energy.0),
                "cost_usd": short(estimate.cost_usd),
                "price": short(candidate.peers.price),
                "in_flight": candidate.load.in_flight,
                "slots": candidate.slots,
                "saturated": candidate.is_saturated(),
            })
        })
        .collect();
    let ruled_out: Vec<Value> = explanation
        .ruled_out
        .iter()
        .map(|(id, constraint)| json!({"instance": instance(*id), "constraint": constraint.code()}))
        .collect();
    json!({
        "decision": name,
        "policy": scheduler.config().policy,
        "at_s": short(explanation.at.as_secs_f64()),
        "chosen": instance(explanation.chosen),
        "explored": explanation.explored,
        "candidates": candidates,
        "ruled_out": ruled_out,
    })
}
