//! The JSON of the fleet page. Energies are millijoules, ages and times seconds.

use crate::fleet::STALE_AFTER;
use crate::plane::Plane;
use equipoise_proto::v1::{self as wire, EnergySource, InstanceState, PeerLoad};
use serde::Serialize;
use std::time::Instant;

#[derive(Debug, Serialize)]
pub(crate) struct FleetBody {
    store: &'static str,
    version: &'static str,
    revision: u64,
    routers: Vec<String>,
    summary: Summary,
    instances: Vec<InstanceBody>,
    energy: EnergyRowBody,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    instances: usize,
    healthy: usize,
    draining: usize,
    running: u64,
    waiting: u64,
    /// Instances whose draw is known.
    metered: usize,
    watts: f64,
    /// The part of it that is modelled, not metered.
    modelled_watts: f64,
}

/// What can be said about an instance's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Healthy,
    Unhealthy,
    /// The last sample is old.
    Stale,
    /// No sample has come yet.
    Unknown,
}

#[derive(Debug, Serialize)]
struct InstanceBody {
    name: String,
    pool: String,
    model: String,
    gpu: String,
    tensor_parallel: u32,
    node: String,
    endpoint: String,
    emulated: bool,
    health: Health,
    sample_age_s: Option<f64>,
    running: Option<u32>,
    waiting: Option<u32>,
    kv_usage: Option<f64>,
    max_num_seqs: Option<u32>,
    /// What routers have in flight.
    in_flight: u32,
    watts: Option<f64>,
    joules_per_token: Option<f64>,
    energy_source: Option<&'static str>,
    draining: bool,
    weight: f64,
    gpus: Vec<GpuBody>,
}

#[derive(Debug, Serialize)]
struct GpuBody {
    uuid: String,
    name: String,
    power_mw: Option<u32>,
    utilization_percent: Option<u32>,
    temperature_c: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EnergyBody {
    rows: Vec<EnergyRowBody>,
    total: EnergyRowBody,
}

#[derive(Debug, Default, Serialize)]
struct EnergyRowBody {
    key: String,
    measured_mj: u64,
    attributed_mj: u64,
    wasted_mj: u64,
    idle_mj: u64,
    unattributed_mj: u64,
    modelled_mj: u64,
    requests: u64,
    prefill_tokens: u64,
    decode_tokens: u64,
    flawed_intervals: u64,
}

impl From<&wire::EnergyReport> for EnergyBody {
    fn from(report: &wire::EnergyReport) -> Self {
        let total = report.total.as_ref().map(EnergyRowBody::from).unwrap_or_default();
        Self {
            rows: report.rows.iter().map(EnergyRowBody::from).collect(),
            total,
        }
    }
}

impl From<&wire::EnergyRow> for EnergyRowBody {
    fn from(row: &wire::EnergyRow) -> Self {
        Self {
            key: row.key.clone(),
            measured_mj: row.measured_mj,
            attributed_mj: row.attributed_mj,
            wasted_mj: row.wasted_mj,
            idle_mj: row.idle_mj,
            unattributed_mj: row.unattributed_mj,
            modelled_mj: row.modelled_mj,
            requests: row.requests,
            prefill_tokens: row.prefill_tokens,
            decode_tokens: row.decode_tokens,
            flawed_intervals: row.flawed_intervals,
        }
    }
}

/// The whole page's data, of this control plane.
pub(crate) fn fleet(plane: &Plane) -> FleetBody {
    let now = Instant::now();
    let energy = EnergyRowBody::from(&plane.accounting.lock().total());
    let routing = plane.routing.lock();
    let in_flight = routing.in_flight(now);
    let states = routing.fleet.states();
    let instances: Vec<_> = states
        .iter()
        .filter_map(|state| {
            let name = &state.instance.as_ref()?.name;
            instance(&routing.fleet, state, in_flight.get(name), now)
        })
        .collect();
    FleetBody {
        store: plane.store.kind(),
        version: env!("CARGO_PKG_VERSION"),
        revision: routing.revision(),
        routers: routing.routers(now),
        summary: summary(&instances),
        instances,
        energy,
    }
}

fn summary(instances: &[InstanceBody]) -> Summary {
    let mut summary = Summary {
        instances: instances.len(),
        ..Summary::default()
    };
    for instance in instances {
        summary.healthy += usize::from(instance.health == Health::Healthy);
        summary.draining += usize::from(instance.draining);
        // What a stale sample says is no longer so.
        if instance.health == Health::Healthy {
            summary.running += u64::from(instance.running.unwrap_or(0));
            summary.waiting += u64::from(instance.waiting.unwrap_or(0));
        }
        if let Some(watts) = instance.watts {
            summary.metered += 1;
            summary.watts += watts;
            if instance.energy_source == Some("modelled") {
                summary.modelled_watts += watts;
            }
        }
    }
    summary
}

fn instance(
    fleet: &crate::fleet::Fleet,
    state: &InstanceState,
    load: Option<&PeerLoad>,
    now: Instant,
) -> Option<InstanceBody> {
    let instance = state.instance.as_ref()?;
    let sampled = fleet.sampled(&instance.name);
    let age = sampled.map(|sampled| now.duration_since(sampled.received));
    let health = match (sampled, age) {
        (Some(_), Some(age)) if age > STALE_AFTER => Health::Stale,
        (Some(sampled), _) if sampled.sample.healthy => Health::Healthy,
        (Some(_), _) => Health::Unhealthy,
        (None, _) => Health::Unknown,
    };
    let sample = sampled.map(|sampled| &sampled.sample).filter(|sample| sample.healthy);
    let draw = fleet.draw(&instance.name, now);
    let admin = state.admin.unwrap_or_default();
    let tier = instance.tier.clone().unwrap_or_default();
    let gpus = fleet.gpus_of(instance).map(|gpu| GpuBody {
        uuid: gpu.uuid.clone(),
        name: gpu.name.clone(),
        power_mw: gpu.power_mw,
        utilization_percent: gpu.utilization_percent,
        temperature_c: gpu.temperature_c,
    });
    Some(InstanceBody {
        name: instance.name.clone(),
        pool: instance.pool.clone(),
        model: instance
            .model
            .as_ref()
            .map(|model| model.name.clone())
            .unwrap_or_default(),
        gpu: tier.gpu,
        tensor_parallel: tier.tensor_parallel.max(1),
        node: instance.node.clone(),
        endpoint: instance.endpoint.clone(),
        emulated: instance.emulated,
        health,
        sample_age_s: age.map(|age| age.as_secs_f64()),
        running: sample.map(|sample| sample.running),
        waiting: sample.map(|sample| sample.waiting),
        kv_usage: sample.map(|sample| sample.kv_usage.clamp(0.0, 1.0)),
        max_num_seqs: instance.limits.as_ref().and_then(|limits| limits.max_num_seqs),
        in_flight: load.map_or(0, |load| load.in_flight),
        watts: draw.map(|draw| draw.watts),
        joules_per_token: draw.and_then(|draw| draw.joules_per_token),
        energy_source: draw.map(|draw| source_name(draw.source)),
        draining: admin.draining,
        weight: admin.weight.unwrap_or(1.0),
        gpus: gpus.collect(),
    })
}

fn source_name(source: EnergySource) -> &'static str {
    match source {
        EnergySource::Counter => "counter",
        EnergySource::Power => "power",
        EnergySource::Modelled => "modelled",
        EnergySource::Unspecified => "unknown",
    }
}
