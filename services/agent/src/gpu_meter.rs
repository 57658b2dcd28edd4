//! The task that reads the GPUs every interval and turns their counters into the instances' energy.

use crate::gpu_thread::{GpuThread, Round};
use crate::idle::IdleDraw;
use crate::shared::Shared;
use equipoise_device::{DeviceError, GpuIdentity, GpuReading, find_gpu};
use equipoise_energy::{CounterReading, InstanceMeter, IntervalEnergy, MeterLimits};
use equipoise_engine::GpuSpec;
use equipoise_proto::v1::{EnergyFlaw, EnergySample, EnergySource, GpuSample, Instance};
use equipoise_types::{MilliJoules, Timestamp, Watts};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Idle draw assumed of an unknown board where only its order of magnitude matters: no data-centre board idles below.
const UNKNOWN_IDLE: Watts = Watts(20.0);
/// The most that a board of unknown type and limit may draw: above every board there is.
const UNKNOWN_MOST: Watts = Watts(3_000.0);

/// The meters of a node's instances.
#[derive(Debug)]
pub(crate) struct GpuMeters {
    thread: GpuThread,
    instances: Vec<Metered>,
    /// GPUs that failed in the last round, so that each failure is logged once.
    failing: BTreeMap<u32, DeviceError>,
}

/// One instance and its GPUs.
#[derive(Debug)]
struct Metered {
    instance: String,
    spec: Option<&'static GpuSpec>,
    /// Positions in a round.
    gpus: Vec<usize>,
    /// Made at the first round, for the boards tell their limits then.
    meter: Option<InstanceMeter>,
    idle: IdleDraw,
}

impl GpuMeters {
    pub(crate) fn new(thread: GpuThread, instances: &[Instance]) -> Self {
        let mut taken: BTreeMap<usize, &str> = BTreeMap::new();
        let mut metered = Vec::new();
        for instance in instances
            .iter()
            .filter(|instance| !instance.gpus.is_empty() && !instance.emulated)
        {
            let found: Result<Vec<usize>, DeviceError> =
                instance.gpus.iter().map(|gpu| find_gpu(thread.gpus(), gpu)).collect();
            let gpus = match found {
                Ok(gpus) => gpus,
                Err(error) => {
                    tracing::error!(instance = instance.name, %error, "energy is not metered");
                    continue;
                }
            };
            // One by index, the other by UUID: that shows only here.
            if let Some(other) = gpus.iter().find_map(|gpu| taken.get(gpu)) {
                tracing::error!(
                    instance = instance.name,
                    other,
                    "energy is not metered: a GPU is claimed twice"
                );
                continue;
            }
            taken.extend(gpus.iter().map(|&gpu| (gpu, instance.name.as_str())));
            metered.push(Metered::new(instance, gpus, thread.gpus()));
        }
        Self {
            thread,
            instances: metered,
            failing: BTreeMap::new(),
        }
    }

    /// Reads until the agent stops, and once more then, so that the last interval is not lost.
    pub(crate) async fn run(mut self, shared: Arc<Shared>) {
        loop {
            let running = shared.tick(1).await;
            if let Some(round) = self.thread.round().await {
                self.observe(&round, &shared);
            }
            if !running {
                return;
            }
        }
    }

    fn observe(&mut self, round: &Round, shared: &Shared) {
        let now = shared.clock.now();
        {
            // One lock for the round: a batch has all of it or nothing.
            let mut outbox = shared.outbox.lock();
            for reading in round.iter().flatten() {
                outbox.put_gpu(gpu_sample(reading));
            }
        }
        for (position, result) in round.iter().enumerate() {
            let index = self.thread.gpus()[position].index;
            match result {
                Ok(reading) => {
                    if self.failing.remove(&index).is_some() {
                        tracing::info!(gpu = index, "GPU answers again");
                    }
                    if let Some(power_mw) = reading.power_mw {
                        shared.metrics.set_gpu_power(&reading.gpu.uuid, power_mw);
                    }
                }
                Err(error) => {
                    if self.failing.insert(index, error.clone()).as_ref() != Some(error) {
                        tracing::warn!(%error, "GPU is not read");
                    }
                }
            }
        }
        for metered in &mut self.instances {
            if let Some(sample) = metered.observe(round, now, shared) {
                shared.put_energy(sample);
            }
        }
    }
}

impl Metered {
    fn new(instance: &Instance, gpus: Vec<usize>, found: &[GpuIdentity]) -> Self {
        let declared = instance.tier.as_ref().and_then(|tier| equipoise_engine::gpu(&tier.gpu));
        let spec = declared.or_else(|| gpus.first().and_then(|&gpu| equipoise_engine::gpu(&found[gpu].name)));
        let idle = IdleDraw::new(spec, gpus.len());
        Self {
            instance: instance.name.clone(),
            spec,
            gpus,
            meter: None,
            idle,
        }
    }

    fn observe(&mut self, round: &Round, now: Timestamp, shared: &Shared) -> Option<EnergySample> {
        let limits = || {
            self.gpus
                .iter()
                .map(|&gpu| limits(self.spec, round[gpu].as_ref().ok()))
                .collect::<Vec<_>>()
        };
        let meter = match &mut self.meter {
            Some(meter) => meter,
            empty => {
                let limits = limits();
                empty.insert(InstanceMeter::new(&limits))
            }
        };
        let mut end = Timestamp::ZERO;
        let mut power_mw = Some(0);
        for (number, &gpu) in self.gpus.iter().enumerate() {
            let reading = match &round[gpu] {
                Ok(reading) => CounterReading {
                    at: reading.at,
                    energy_mj: reading.energy.map(|energy| energy.0),
                    power_mw: reading.power_mw,
                },
                Err(DeviceError::Lost { .. }) => CounterReading {
                    at: now,
                    energy_mj: None,
                    power_mw: None,
                },
                // A passing failure: the next reading of the counter makes up for it.
                Err(_) => {
                    power_mw = None;
                    continue;
                }
            };
            end = end.max(reading.at);
            power_mw = power_mw
                .zip(reading.power_mw)
                .map(|(sum, power)| sum + u64::from(power));
            meter.observe(number, reading);
        }
        let interval = meter.take(end)?;
        let power = power_mw.map(|power_mw| Watts(power_mw as f64 / 1e3));
        self.idle
            .observe(interval.start, interval.end, power, &shared.idle_window(&self.instance));
        let idle = self.idle.share(interval.start, interval.end, interval.measured);
        Some(energy_sample(&self.instance, &interval, idle))
    }
}

/// What is plausible for a board: by the catalogue, or by the limit that it enforces now and half as much again, for the
/// limit may be raised later.
fn limits(spec: Option<&GpuSpec>, reading: Option<&GpuReading>) -> MeterLimits {
    let enforced = reading
        .and_then(|reading| reading.power_limit_mw)
        .map(|limit| f64::from(limit) / 1e3);
    let (idle, most) = match (spec, enforced) {
        (Some(spec), enforced) => (
            Watts(spec.idle_watts),
            Watts(spec.tdp_watts.max(enforced.unwrap_or(0.0))),
        ),
        (None, Some(enforced)) => (UNKNOWN_IDLE, Watts(1.5 * enforced)),
        (None, None) => (UNKNOWN_IDLE, UNKNOWN_MOST),
    };
    MeterLimits::new(idle, most)
}

fn energy_sample(instance: &str, interval: &IntervalEnergy, idle: MilliJoules) -> EnergySample {
    let source = match interval.source {
        equipoise_energy::EnergySource::Counter => EnergySource::Counter,
        equipoise_energy::EnergySource::Power => EnergySource::Power,
        equipoise_energy::EnergySource::Modelled => EnergySource::Modelled,
    };
    let flaw = |flaw: &equipoise_energy::EnergyFlaw| match flaw {
        equipoise_energy::EnergyFlaw::CounterReset => EnergyFlaw::CounterReset,
        equipoise_energy::EnergyFlaw::CounterFrozen => EnergyFlaw::CounterFrozen,
        equipoise_energy::EnergyFlaw::GpuLost => EnergyFlaw::GpuLost,
        equipoise_energy::EnergyFlaw::Disagreement => EnergyFlaw::Disagreement,
    };
    EnergySample {
        instance: instance.to_owned(),
        start_unix_ns: interval.start.0,
        end_unix_ns: interval.end.0,
        measured_mj: interval.measured.0,
        idle_mj: idle.0,
        source: source.into(),
        flaws: interval.flaws.iter().map(|found| flaw(found).into()).collect(),
    }
}

fn gpu_sample(reading: &GpuReading) -> GpuSample {
    GpuSample {
        uuid: reading.gpu.uuid.clone(),
        name: reading.gpu.name.clone(),
        unix_ns: reading.at.0,
        power_mw: reading.power_mw,
        energy_mj: reading.energy.map(|energy| energy.0),
        utilization_percent: reading.utilization_percent,
        memory_used_bytes: reading.memory.map(|memory| memory.used_bytes),
        memory_total_bytes: reading.memory.map(|memory| memory.total_bytes),
        temperature_c: reading.temperature_c,
        throttle_reasons: reading.throttle_reasons,
        power_limit_mw: reading.power_limit_mw,
    }
}
