//! The contracts' words into the fleet's.

use std::collections::BTreeMap;

use equipoise_fleet::{
    CongestionPrice, EngineSample, FleetDelta, InstanceSpec, LimitsSpec, ModelProfile, PeerLoad, Price, Serving,
};
use equipoise_proto::v1;
use equipoise_types::Watts;

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// An instance as declared on the wire; what is missing is unknown.
pub(crate) fn spec(instance: v1::Instance) -> InstanceSpec {
    let model = instance.model.unwrap_or_default();
    let tier = instance.tier.unwrap_or_default();
    let limits = instance.limits.unwrap_or_default();
    // A declaration of a later version: then its physics is better taken for unknown than for another's.
    let (gpu, serving) = match Serving::from_text(&tier.serving) {
        Ok(serving) => (some_text(tier.gpu), serving),
        Err(_) => (None, None),
    };
    let price = match (model.input_usd_per_mtok, model.output_usd_per_mtok) {
        (None, None) => None,
        (input, output) => Some(Price {
            input_usd_per_mtok: input.unwrap_or_default(),
            output_usd_per_mtok: output.unwrap_or_default(),
        }),
    };
    InstanceSpec {
        name: instance.name,
        pool: instance.pool,
        model: ModelProfile {
            name: model.name,
            architecture: some_text(model.architecture),
            quality: model.quality,
            context_tokens: (model.context_tokens > 0).then_some(model.context_tokens),
            price,
            mean_output_tokens: model.mean_output_tokens,
        },
        gpu,
        tensor_parallel: tier.tensor_parallel.max(1),
        endpoint: some_text(instance.endpoint),
        limits: LimitsSpec {
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            block_tokens: limits.block_tokens,
            num_gpu_blocks: limits.num_gpu_blocks,
        },
        labels: instance.labels.into_iter().collect::<BTreeMap<_, _>>(),
        gpus: instance.gpus,
        emulated: instance.emulated,
        measured: some_text(tier.measured),
        serving,
    }
}

/// An operator's wishes.
pub(crate) fn admin(name: String, admin: &v1::InstanceAdmin) -> FleetDelta {
    FleetDelta::Admin {
        name,
        draining: admin.draining,
        weight: admin.weight.unwrap_or(1.0),
    }
}

/// A sample, `age_s` old.
pub(crate) fn sample(sample: v1::EngineSample, age_s: f64) -> FleetDelta {
    FleetDelta::Sample {
        name: sample.instance,
        sample: EngineSample {
            healthy: sample.healthy,
            running: sample.running,
            waiting: sample.waiting,
            kv_usage: sample.kv_usage.clamp(0.0, 1.0),
            power: sample.power_mw.map(|milliwatts| Watts(f64::from(milliwatts) / 1e3)),
            age_s,
        },
    }
}

/// What another version may have sent wrong: not a number, negative, or beyond `most`.
fn usable(value: f64, most: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, most) }
}

/// Others' work, `age_s` old.
pub(crate) fn peers(peer: v1::PeerLoad, age_s: f64) -> FleetDelta {
    FleetDelta::Peers {
        name: peer.instance,
        load: PeerLoad {
            in_flight: peer.in_flight,
            pending_prefill_tokens: peer.pending_prefill_tokens,
            pending_decode_tokens: peer.pending_decode_tokens,
            age_s,
            prefilling: peer.prefilling,
            overdue_s: usable(peer.overdue_s, f64::MAX),
            routers: peer.routers,
            price: usable(peer.price, CongestionPrice::MOST),
        },
    }
}
