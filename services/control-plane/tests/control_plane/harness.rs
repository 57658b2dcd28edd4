//! A control plane on free ports, and agents and routers that say what a test wants.

use equipoise_control_plane::{ControlPlane, ControlPlaneConfig, RunningControlPlane};
use equipoise_proto::v1::admin_service_client::AdminServiceClient;
use equipoise_proto::v1::agent_service_client::AgentServiceClient;
use equipoise_proto::v1::energy_service_client::EnergyServiceClient;
use equipoise_proto::v1::routing_service_client::RoutingServiceClient;
use equipoise_proto::v1::routing_update::Update;
use equipoise_proto::v1::{
    EngineSample, Instance, LedgerReport, Model, RegisterRequest, RegisterResponse, RoutingUpdate, TelemetryAck,
    TelemetryBatch, Tier, WatchRequest,
};
use equipoise_store::{SharedStore, open};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn config() -> ControlPlaneConfig {
    let any_port: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    ControlPlaneConfig {
        grpc_addr: any_port,
        page_addr: Some(any_port),
        ..ControlPlaneConfig::default()
    }
}

pub(crate) async fn start_on(store: SharedStore) -> RunningControlPlane {
    ControlPlane::start(config(), store).await.expect("starts")
}

pub(crate) async fn start() -> RunningControlPlane {
    start_on(open("embedded").await.expect("opens")).await
}

pub(crate) fn unix_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(elapsed.as_nanos()).expect("before 2554")
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) fn instance(name: &str, pool: &str) -> Instance {
    Instance {
        name: name.to_owned(),
        pool: pool.to_owned(),
        model: Some(Model {
            name: "qwen2.5-7b".to_owned(),
            architecture: "Qwen2.5-7B".to_owned(),
            quality: Some(0.7),
            ..Model::default()
        }),
        tier: Some(Tier {
            gpu: "A100-80G".to_owned(),
            tensor_parallel: 1,
            measured: String::new(),
            serving: String::new(),
        }),
        endpoint: "http://127.0.0.1:8000".to_owned(),
        ..Instance::default()
    }
}

pub(crate) fn sample(instance: &str) -> EngineSample {
    EngineSample {
        instance: instance.to_owned(),
        unix_ns: unix_ns(),
        healthy: true,
        running: 3,
        ..EngineSample::default()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) agents: AgentServiceClient<Channel>,
    pub(crate) routing: RoutingServiceClient<Channel>,
    pub(crate) energy: EnergyServiceClient<Channel>,
    pub(crate) admin: AdminServiceClient<Channel>,
}

impl Clients {
    pub(crate) async fn of(plane: &RunningControlPlane) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", plane.grpc_addr())).expect("a URL");
        let channel = endpoint.connect().await.expect("connects");
        Self {
            agents: AgentServiceClient::new(channel.clone()),
            routing: RoutingServiceClient::new(channel.clone()),
            energy: EnergyServiceClient::new(channel.clone()),
            admin: AdminServiceClient::new(channel),
        }
    }

    pub(crate) async fn register(
        &mut self,
        node: &str,
        instances: Vec<Instance>,
        lease_ttl_ms: u32,
    ) -> Result<RegisterResponse, Status> {
        self.register_as("", node, instances, lease_ttl_ms).await
    }

    pub(crate) async fn register_as(
        &mut self,
        agent: &str,
        node: &str,
        instances: Vec<Instance>,
        lease_ttl_ms: u32,
    ) -> Result<RegisterResponse, Status> {
        let request = RegisterRequest {
            node: node.to_owned(),
            instances,
            lease_ttl_ms,
            agent: agent.to_owned(),
        };
        self.agents.register(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn telemetry(&mut self, lease_id: u64) -> Telemetry {
        let (batches, receiver) = mpsc::channel(16);
        let acks = self
            .agents
            .stream_telemetry(ReceiverStream::new(receiver))
            .await
            .expect("streams")
            .into_inner();
        Telemetry {
            batches,
            acks,
            lease_id,
            sequence: 0,
        }
    }

    pub(crate) async fn watch(&mut self, router: &str) -> Watched {
        self.watch_as("", router).await.expect("watches")
    }

    pub(crate) async fn watch_as(&mut self, process: &str, router: &str) -> Result<Watched, Status> {
        let request = WatchRequest {
            router: router.to_owned(),
            instance: process.to_owned(),
        };
        let updates = self.routing.watch(request).await?.into_inner();
        Ok(Watched {
            updates,
            revision: 0,
            epoch: 0,
            instances: BTreeMap::new(),
        })
    }

    /// A stream of ledger reports; dropping the sender ends it.
    pub(crate) fn publish(&self) -> mpsc::Sender<LedgerReport> {
        let (reports, receiver) = mpsc::channel(16);
        let mut client = self.routing.clone();
        tokio::spawn(async move { client.publish_ledger(ReceiverStream::new(receiver)).await });
        reports
    }
}

/// An agent's stream.
#[derive(Debug)]
pub(crate) struct Telemetry {
    batches: mpsc::Sender<TelemetryBatch>,
    acks: Streaming<TelemetryAck>,
    lease_id: u64,
    sequence: u64,
}

impl Telemetry {
    /// Sends a batch and waits for its acknowledgement.
    pub(crate) async fn send(&mut self, batch: TelemetryBatch) -> Result<(), Status> {
        self.sequence += 1;
        let batch = TelemetryBatch {
            lease_id: self.lease_id,
            sequence: self.sequence,
            ..batch
        };
        self.batches
            .send(batch)
            .await
            .map_err(|_| Status::unavailable("the stream ended"))?;
        let ack = soon(self.acks.message())
            .await?
            .ok_or_else(|| Status::unavailable("the stream ended"))?;
        assert_eq!(ack.sequence, self.sequence);
        Ok(())
    }

    pub(crate) async fn send_samples(&mut self, engines: Vec<EngineSample>) -> Result<(), Status> {
        self.send(TelemetryBatch {
            engines,
            ..TelemetryBatch::default()
        })
        .await
    }
}

/// A router's view, kept as a router keeps it.
#[derive(Debug)]
pub(crate) struct Watched {
    updates: Streaming<RoutingUpdate>,
    pub(crate) revision: u64,
    pub(crate) epoch: u64,
    pub(crate) instances: BTreeMap<String, equipoise_proto::v1::InstanceState>,
}

impl Watched {
    /// The next update, applied and checked; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Update> {
        let update = soon(self.updates.message()).await.ok().flatten()?;
        assert!(self.revision == 0 || update.revision > self.revision, "revisions rise");
        self.revision = update.revision;
        self.epoch = update.epoch;
        let update = update.update.expect("has content");
        match &update {
            Update::Snapshot(snapshot) => {
                self.instances.clear();
                self.apply(&snapshot.instances);
            }
            Update::Delta(delta) => {
                self.apply(&delta.upserted);
                for name in &delta.removed {
                    self.instances.remove(name);
                }
                for sample in &delta.samples {
                    if let Some(state) = self.instances.get_mut(&sample.instance) {
                        state.sample = Some(sample.clone());
                    }
                }
            }
            Update::Heartbeat(_) => {}
        }
        Some(update)
    }

    fn apply(&mut self, states: &[equipoise_proto::v1::InstanceState]) {
        for state in states {
            let name = state.instance.as_ref().expect("has an instance").name.clone();
            self.instances.insert(name, state.clone());
        }
    }

    /// Reads updates until the view is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        soon(async {
            while !wanted(self) {
                self.next().await.expect("the stream goes on");
            }
        })
        .await;
    }
}
