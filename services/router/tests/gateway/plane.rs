//! A control plane that names a fixed fleet and keeps the ledgers that it is told, and a router under it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use equipoise_proto::v1;
use equipoise_proto::v1::routing_service_server::{RoutingService, RoutingServiceServer};
use equipoise_proto::v1::routing_update::Update;
use equipoise_router::{PredictorSource, RouterConfig, RunningRouter, start};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `so` answers something.
pub(crate) async fn eventually<T>(what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = so() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("it never came to this: {what}"))
}

/// What the router has told of its ledger.
#[derive(Default)]
pub(crate) struct Told {
    reports: u64,
    in_flight: Vec<v1::InFlight>,
    pub(crate) activity: Vec<v1::Activity>,
}

struct Plane {
    fleet: Vec<v1::InstanceState>,
    told: Arc<Mutex<Told>>,
}

#[tonic::async_trait]
impl RoutingService for Plane {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::RoutingUpdate, Status>> + Send>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let update = |update| {
            Ok(v1::RoutingUpdate {
                revision: 1,
                epoch: 1,
                update: Some(update),
            })
        };
        let snapshot = v1::Snapshot {
            instances: self.fleet.clone(),
        };
        let first = tokio_stream::once(update(Update::Snapshot(snapshot)));
        let heartbeats = tokio_stream::iter(std::iter::repeat(()))
            .then(|()| tokio::time::sleep(Duration::from_millis(500)))
            .map(move |()| update(Update::Heartbeat(v1::Heartbeat {})));
        Ok(Response::new(Box::pin(first.chain(heartbeats))))
    }

    async fn publish_ledger(
        &self,
        request: Request<Streaming<v1::LedgerReport>>,
    ) -> Result<Response<v1::PublishLedgerResponse>, Status> {
        let mut reports = request.into_inner();
        while let Some(report) = reports.message().await? {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.reports += 1;
            told.in_flight = report.in_flight;
            told.activity.extend(report.activity);
        }
        Ok(Response::new(v1::PublishLedgerResponse {}))
    }
}

/// An instance called `name` of the model `model`, at an address of its own; nobody is there.
pub(crate) fn instance(name: &str, model: &str, port: u16) -> v1::InstanceState {
    let instance = v1::Instance {
        name: name.to_owned(),
        pool: "pool".to_owned(),
        model: Some(v1::Model {
            name: model.to_owned(),
            ..v1::Model::default()
        }),
        endpoint: format!("http://10.0.0.1:{port}"),
        ..v1::Instance::default()
    };
    v1::InstanceState {
        instance: Some(instance),
        ..v1::InstanceState::default()
    }
}

/// The same, for so many requests at a time.
pub(crate) fn small_instance(name: &str, model: &str, port: u16, slots: u32) -> v1::InstanceState {
    let mut state = instance(name, model, port);
    let limits = v1::EngineLimits {
        max_num_seqs: Some(slots),
        ..v1::EngineLimits::default()
    };
    if let Some(instance) = &mut state.instance {
        instance.limits = Some(limits);
    }
    state
}

/// A router and its control plane.
pub(crate) struct Router {
    pub(crate) running: RunningRouter,
    pub(crate) channel: Channel,
    told: Arc<Mutex<Told>>,
}

impl Router {
    pub(crate) async fn start(fleet: Vec<v1::InstanceState>, change: impl FnOnce(&mut RouterConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let told = Arc::new(Mutex::new(Told::default()));
        let available = fleet.iter().filter(|state| state.admin.is_none()).count();
        let plane = Plane {
            fleet,
            told: Arc::clone(&told),
        };
        let service = RoutingServiceServer::new(plane);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        let any = "127.0.0.1:0".parse().expect("an address");
        let mut config = RouterConfig::new("router-a", any, url);
        config.predictor = PredictorSource::Off;
        config.grpc_listen = Some(any);
        config.publish_interval = Duration::from_millis(10);
        change(&mut config);
        let running = start(config).await.expect("starts");
        eventually("the fleet is known", || {
            (running.available_instances() == available).then_some(())
        })
        .await;
        let url = format!("http://{}", running.grpc_addr().expect("listens"));
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        Self {
            channel: endpoint.connect().await.expect("answers"),
            running,
            told,
        }
    }

    pub(crate) fn told<T>(&self, read: impl FnOnce(&Told) -> T) -> T {
        read(&self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until so many requests are in the ledger, as of a report from after this call.
    pub(crate) async fn holds(&self, requests: u32) {
        let before = self.told(|told| told.reports);
        eventually(&format!("{requests} in flight"), || {
            self.told(|told| {
                let now: u32 = told.in_flight.iter().map(|instance| instance.requests).sum();
                // The one that was being written may have looked before.
                (told.reports > before + 1 && now == requests).then_some(())
            })
        })
        .await;
    }

    /// Requests in the ledger of an instance.
    pub(crate) fn in_flight(&self, instance: &str) -> u32 {
        self.told(|told| {
            let of = told.in_flight.iter().find(|entry| entry.instance == instance);
            of.map_or(0, |entry| entry.requests)
        })
    }

    /// The last slices of requests, in order: whether each was wasted, and its answer's tokens in all.
    pub(crate) fn ended(&self) -> Vec<(bool, u32)> {
        self.told(|told| {
            let last = told.activity.iter().filter(|slice| slice.finished);
            last.map(|slice| {
                let of = told.activity.iter().filter(|other| other.decision == slice.decision);
                (slice.wasted, of.map(|slice| slice.decode_tokens).sum())
            })
            .collect()
        })
    }
}
