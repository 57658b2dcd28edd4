//! A fleet of made-up engines, for people who work on the page.

use crate::harness::{Clients, Telemetry, config, instance, sample, unix_ns};
use equipoise_control_plane::{ControlPlane, ControlPlaneConfig};
use equipoise_proto::v1::{
    Activity, EnergySample, EnergySource, EngineLimits, EngineSample, InFlight, Instance, LedgerReport, Model,
    SetDrainingRequest, SetWeightRequest, TelemetryBatch, Tier,
};
use equipoise_store::open;
use equipoise_types::RandomStream;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

struct Engine {
    name: &'static str,
    pool: &'static str,
    model: &'static str,
    gpu: &'static str,
    gpus: u32,
    idle_watts: u64,
    watts_per_request: u64,
    running: u32,
    generated: u64,
}

fn engines() -> Vec<Engine> {
    let engine = |name, pool, model, gpu, gpus, idle_watts, watts_per_request| Engine {
        name,
        pool,
        model,
        gpu,
        gpus,
        idle_watts,
        watts_per_request,
        running: 6,
        generated: 0,
    };
    vec![
        engine("a100-pool/0", "a100-pool", "qwen2.5-14b", "A100-80G", 1, 62, 9),
        engine("a100-pool/1", "a100-pool", "qwen2.5-14b", "A100-80G", 1, 62, 9),
        engine("a30-pool/0", "a30-pool", "qwen2.5-3b", "A30", 1, 29, 5),
        engine("h100-pool/0", "h100-pool", "qwen2.5-72b", "H100", 4, 300, 40),
        engine("h100-pool/1", "h100-pool", "qwen2.5-72b", "H100", 4, 300, 40),
        engine("v100-pool/0", "v100-pool", "qwen2.5-7b", "V100", 1, 38, 8),
        engine("v100-pool/1", "v100-pool", "qwen2.5-7b", "V100", 1, 38, 8),
    ]
}

/// One engine is sick from the start, one goes silent after a while.
const SICK: &str = "v100-pool/0";
const SILENT: &str = "a100-pool/1";
const SILENT_AFTER_BEATS: u32 = 12;

impl Engine {
    fn registered(&self) -> Instance {
        Instance {
            model: Some(Model {
                name: self.model.to_owned(),
                ..Model::default()
            }),
            tier: Some(Tier {
                gpu: self.gpu.to_owned(),
                tensor_parallel: self.gpus,
                measured: String::new(),
                serving: String::new(),
            }),
            limits: Some(EngineLimits {
                max_num_seqs: Some(32),
                ..EngineLimits::default()
            }),
            emulated: self.pool == "a30-pool",
            ..instance(self.name, self.pool)
        }
    }

    fn step(&mut self, random: &mut RandomStream) {
        self.running = (self.running + random.below(7) as u32).saturating_sub(3).min(31);
        self.generated += u64::from(self.running) * 14;
    }

    fn engine_sample(&self) -> EngineSample {
        EngineSample {
            running: self.running,
            waiting: self.running.saturating_sub(17),
            kv_usage: f64::from(self.running) / 33.0,
            generation_tokens_total: self.generated,
            healthy: self.name != SICK,
            ..sample(self.name)
        }
    }

    fn energy_sample(&self, start_unix_ns: u64, end_unix_ns: u64) -> EnergySample {
        let span_ms = (end_unix_ns - start_unix_ns) / 1_000_000;
        let busy = if self.name == SICK { 0 } else { u64::from(self.running) };
        EnergySample {
            instance: self.name.to_owned(),
            start_unix_ns,
            end_unix_ns,
            measured_mj: (self.idle_watts + self.watts_per_request * busy) * span_ms,
            idle_mj: self.idle_watts * span_ms,
            source: if self.pool == "a30-pool" {
                EnergySource::Modelled
            } else {
                EnergySource::Counter
            }
            .into(),
            flaws: Vec::new(),
        }
    }

    fn activity(&self, random: &mut RandomStream, start_unix_ns: u64, end_unix_ns: u64) -> Option<Activity> {
        (self.name != SICK && random.below(8) > 0).then(|| Activity {
            decision: format!("{}-{start_unix_ns}", self.name),
            instance: self.name.to_owned(),
            tenant: "demo".to_owned(),
            start_unix_ns,
            end_unix_ns,
            prefill_tokens: 200,
            decode_tokens: 7 * self.running,
            context_tokens: 400,
            finished: true,
            wasted: random.below(20) == 0,
        })
    }

    fn in_flight(&self) -> InFlight {
        let (instance, requests) = (self.name.to_owned(), self.running);
        InFlight {
            instance,
            requests,
            pending_prefill_tokens: 0,
            pending_decode_tokens: 0,
            ..InFlight::default()
        }
    }
}

async fn beat(
    engines: &mut [Engine],
    random: &mut RandomStream,
    span_ns: (u64, u64),
    with_silent: bool,
    telemetry: &mut Telemetry,
    reports: &mpsc::Sender<LedgerReport>,
) {
    let (start, end) = span_ns;
    let mut batch = TelemetryBatch::default();
    let mut ledger = LedgerReport {
        router: "router-1".to_owned(),
        unix_ns: end,
        ..LedgerReport::default()
    };
    for engine in engines.iter_mut() {
        engine.step(random);
        if with_silent || engine.name != SILENT {
            batch.engines.push(engine.engine_sample());
            batch.energy.push(engine.energy_sample(start, end));
        }
        ledger.activity.extend(engine.activity(random, start, end));
        ledger.in_flight.push(engine.in_flight());
    }
    reports.send(ledger).await.expect("sends");
    telemetry.send(batch).await.expect("takes");
}

/// `DEMO_PORT=7171 DEMO_SECONDS=600 cargo test -p equipoise-control-plane -- --ignored demonstration`
#[tokio::test]
#[ignore = "serves the page with made-up data for people to look at"]
async fn demonstration() {
    let setting = |name: &str, usual: u16| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(usual)
    };
    let page: SocketAddr = ([127, 0, 0, 1], setting("DEMO_PORT", 7171)).into();
    let settings = ControlPlaneConfig {
        page_addr: Some(page),
        ..config()
    };
    let plane = ControlPlane::start(settings, open("embedded").await.expect("opens"))
        .await
        .expect("starts");
    let mut clients = Clients::of(&plane).await;
    let mut engines = engines();
    let instances = engines.iter().map(Engine::registered).collect();
    let lease = clients
        .register("gpu-node-1", instances, 60_000)
        .await
        .expect("registers");
    let wish = SetDrainingRequest {
        name: "v100-pool/1".to_owned(),
        draining: true,
    };
    clients.admin.set_draining(wish).await.expect("drains");
    clients
        .admin
        .set_weight(SetWeightRequest {
            name: "h100-pool/1".to_owned(),
            weight: 0.5,
        })
        .await
        .expect("weighs");
    let mut telemetry = clients.telemetry(lease.lease_id).await;
    let reports = clients.publish();
    let mut random = RandomStream::new(7);
    let mut last_ns = unix_ns();
    for number in 0..u32::from(setting("DEMO_SECONDS", 60)) * 2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let span_ns = (last_ns, unix_ns());
        last_ns = span_ns.1;
        beat(
            &mut engines,
            &mut random,
            span_ns,
            number < SILENT_AFTER_BEATS,
            &mut telemetry,
            &reports,
        )
        .await;
    }
    plane.shutdown().await.expect("drains");
}
