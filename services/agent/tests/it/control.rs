//! A control plane that remembers what it was told and can be killed, forget leases, or fall silent.

use equipoise_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use equipoise_proto::v1::{
    DeregisterRequest, DeregisterResponse, EnergySample, RegisterRequest, RegisterResponse, TelemetryAck,
    TelemetryBatch,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What a control plane was told, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) registered: Mutex<Vec<RegisterRequest>>,
    pub(crate) batches: Mutex<Vec<TelemetryBatch>>,
    pub(crate) deregistered: Mutex<Vec<u64>>,
    /// The one lease that is known.
    lease: AtomicU64,
    /// Takes batches without a word.
    pub(crate) silent: AtomicBool,
    /// Loses batches, as a process does that dies before it has stored them.
    pub(crate) deaf: AtomicBool,
    /// Refuses to register anyone.
    pub(crate) refusing: AtomicBool,
}

impl Memory {
    /// Forgets the lease, as when it has run out.
    pub(crate) fn forget_lease(&self) {
        self.lease.fetch_add(1_000, Ordering::SeqCst);
    }

    pub(crate) fn registrations(&self) -> usize {
        self.registered.lock().expect("whole").len()
    }

    pub(crate) fn batch_count(&self) -> usize {
        self.batches.lock().expect("whole").len()
    }

    /// Every energy interval of an instance, by start; an interval that came again must be the same.
    pub(crate) fn energy(&self, instance: &str) -> Vec<EnergySample> {
        let mut by_start: BTreeMap<u64, EnergySample> = BTreeMap::new();
        for sample in self
            .batches
            .lock()
            .expect("whole")
            .iter()
            .flat_map(|batch| &batch.energy)
        {
            if sample.instance == instance
                && let Some(before) = by_start.insert(sample.start_unix_ns, sample.clone())
            {
                assert_eq!(&before, sample, "sent again, but changed");
            }
        }
        by_start.into_values().collect()
    }
}

#[derive(Clone)]
struct Service(Arc<Memory>);

#[tonic::async_trait]
impl AgentService for Service {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        if self.0.refusing.load(Ordering::SeqCst) {
            return Err(Status::unavailable("not now"));
        }
        self.0.registered.lock().expect("whole").push(request.into_inner());
        let lease_id = self.0.lease.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Response::new(RegisterResponse {
            lease_id,
            lease_ttl_ms: 5_000,
            telemetry_interval_ms: 50,
        }))
    }

    type StreamTelemetryStream = ReceiverStream<Result<TelemetryAck, Status>>;

    async fn stream_telemetry(
        &self,
        request: Request<Streaming<TelemetryBatch>>,
    ) -> Result<Response<Self::StreamTelemetryStream>, Status> {
        let (memory, mut batches) = (Arc::clone(&self.0), request.into_inner());
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(Ok(batch)) = batches.next().await {
                if batch.lease_id != memory.lease.load(Ordering::SeqCst) {
                    drop(sender.send(Err(Status::not_found("no such lease"))).await);
                    return;
                }
                if memory.deaf.load(Ordering::SeqCst) {
                    continue;
                }
                let sequence = batch.sequence;
                memory.batches.lock().expect("whole").push(batch);
                if !memory.silent.load(Ordering::SeqCst) && sender.send(Ok(TelemetryAck { sequence })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Result<Response<DeregisterResponse>, Status> {
        self.0
            .deregistered
            .lock()
            .expect("whole")
            .push(request.into_inner().lease_id);
        Ok(Response::new(DeregisterResponse {}))
    }
}

/// A control plane process: on a runtime of its own, so that killing it closes every connection at once.
pub(crate) struct Control {
    pub(crate) memory: Arc<Memory>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Control {
    pub(crate) fn start() -> Self {
        let mut control = Self {
            memory: Arc::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            runtime: None,
        };
        control.revive();
        control
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts it, again on the same port.
    pub(crate) fn revive(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let (service, address) = (Service(Arc::clone(&self.memory)), self.address);
        let (ready, bound) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            // The life before may take a moment to let go of the port.
            let listener = loop {
                match tokio::net::TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            };
            ready
                .send(listener.local_addr().expect("bound"))
                .expect("the test waits");
            let server = Server::builder().add_service(AgentServiceServer::new(service));
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves");
        });
        self.address = bound.recv().expect("bound");
        self.runtime = Some(runtime);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.kill();
    }
}
