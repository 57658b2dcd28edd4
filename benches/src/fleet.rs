//! A whole Equipoise in this process: emulated boxes, an agent, a control plane, one router or several.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use equipoise_agent::{Agent, AgentConfig, NvmlMode, RunningAgent};
use equipoise_control_plane::{ControlPlane, ControlPlaneConfig, RunningControlPlane};
use equipoise_emulator::{Emulator, EmulatorConfig, RunningEmulator};
use equipoise_engine::{EngineLimits, StepModel};
use equipoise_proto::v1;
use equipoise_router::{RouterConfig, RunningRouter};
use equipoise_scheduler::SchedulerConfig;
use tokio::runtime::Handle;

/// How long the routers may take to see the fleet.
const FIRST_PICTURE: Duration = Duration::from_secs(20);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// An engine of unknown make: every request takes `service` once it has one of the `slots`.
#[derive(Clone, Copy, Debug)]
pub struct OpaqueBox {
    /// Its instance name.
    pub name: &'static str,
    /// Time of one request.
    pub service: Duration,
    /// Requests it serves at the same time.
    pub slots: u32,
    /// Whether the router is told the number of slots. It is never told the time.
    pub declared: bool,
}

/// A running fleet. Dropped, it ends at once.
#[derive(Debug)]
pub struct LocalFleet {
    routers: Vec<RunningRouter>,
    agent: RunningAgent,
    emulators: Vec<RunningEmulator>,
    plane: RunningControlPlane,
}

/// An instance of `model` at `endpoint` of which nothing else is said.
#[must_use]
pub fn instance(name: &str, model: &str, endpoint: String) -> v1::Instance {
    v1::Instance {
        name: name.to_owned(),
        pool: "pool".to_owned(),
        model: Some(v1::Model {
            name: model.to_owned(),
            ..v1::Model::default()
        }),
        endpoint,
        ..v1::Instance::default()
    }
}

impl LocalFleet {
    /// Emulates `boxes`, all serving `model`, behind `routers` routers.
    ///
    /// # Errors
    /// When anything does not start, or the routers do not see all boxes within 20 s.
    pub async fn of_boxes(
        model: &str,
        boxes: &[OpaqueBox],
        routers: usize,
        scheduler: &SchedulerConfig,
    ) -> anyhow::Result<Self> {
        let (mut emulators, mut instances) = (Vec::new(), Vec::new());
        for opaque in boxes {
            let limits = EngineLimits {
                max_num_seqs: opaque.slots,
                ..EngineLimits::default()
            };
            let step_model = StepModel::fixed(opaque.service.as_secs_f64(), limits);
            let emulator = Emulator::start(EmulatorConfig::new(model, step_model)).await?;
            let mut declared = instance(opaque.name, model, format!("http://{}", emulator.addr()));
            declared.limits = opaque.declared.then(|| v1::EngineLimits {
                max_num_seqs: Some(opaque.slots),
                ..v1::EngineLimits::default()
            });
            instances.push(declared);
            emulators.push(emulator);
        }
        let mut fleet = Self::in_front_of(instances, routers, scheduler, &Handle::current()).await?;
        fleet.emulators = emulators;
        Ok(fleet)
    }

    /// Puts an agent, a control plane and, on the runtime `on`, `routers` routers in front of engines that run already.
    ///
    /// # Errors
    /// When anything does not start, or the routers do not see all instances within 20 s.
    pub async fn in_front_of(
        instances: Vec<v1::Instance>,
        routers: usize,
        scheduler: &SchedulerConfig,
        on: &Handle,
    ) -> anyhow::Result<Self> {
        let store = equipoise_store::open("embedded").await?;
        let plane_config = ControlPlaneConfig {
            grpc_addr: ANY_PORT,
            page_addr: None,
            telemetry_interval: Duration::from_millis(200),
            ..ControlPlaneConfig::default()
        };
        let plane = ControlPlane::start(plane_config, Arc::clone(&store)).await?;
        let control = format!("http://{}", plane.grpc_addr());
        let expected = instances.len();
        let mut agent_config = AgentConfig::new(&control, "node-0", instances);
        agent_config.nvml = NvmlMode::Off;
        let agent = Agent::start(agent_config).await?;
        let mut running = Vec::with_capacity(routers);
        for index in 0..routers {
            let mut config = RouterConfig::new(format!("router-{index}"), ANY_PORT, &control);
            config.scheduler = scheduler.clone();
            running.push(on.spawn(equipoise_router::start(config)).await??);
        }
        let fleet = Self {
            routers: running,
            agent,
            emulators: Vec::new(),
            plane,
        };
        let settled = async {
            while fleet
                .routers
                .iter()
                .any(|router| router.available_instances() < expected)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(FIRST_PICTURE, settled).await.is_err() {
            bail!("the routers do not see all {expected} instances after {FIRST_PICTURE:?}");
        }
        Ok(fleet)
    }

    /// `http://host:port` of every router.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.routers
            .iter()
            .map(|router| format!("http://{}", router.addr()))
            .collect()
    }

    /// `http://host:port` of the control plane: for routers that are started elsewhere.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}", self.plane.grpc_addr())
    }

    /// Lets what runs finish and stops everything.
    ///
    /// # Errors
    /// When the control plane cannot put its state away.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        for router in self.routers {
            router.shutdown().await;
        }
        self.agent.shutdown().await;
        for emulator in self.emulators {
            emulator.shutdown().await;
        }
        self.plane
            .shutdown()
            .await
            .context("the control plane did not stop in order")
    }
}
