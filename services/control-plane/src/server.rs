//! Start, run, drain.

use crate::ControlPlaneConfig;
use crate::accounting::{self, Accounting};
use crate::fleet::{INSTANCES, WISHES};
use crate::follow::{follow, load};
use crate::plane::{Plane, unix_ns};
use crate::routing::Routing;
use crate::service::Services;
use crate::{page, validate};
use equipoise_proto::v1::admin_service_server::AdminServiceServer;
use equipoise_proto::v1::agent_service_server::AgentServiceServer;
use equipoise_proto::v1::energy_service_server::EnergyServiceServer;
use equipoise_proto::v1::routing_service_server::RoutingServiceServer;
use equipoise_store::{SharedStore, StoreError};
use equipoise_telemetry::{ControlMetrics, Registry};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::{Router, TcpIncoming};

/// How often routers hear of samples and of one another.
const TICK: Duration = Duration::from_millis(100);
/// How long changes of the registry are gathered before routers hear of them.
const GATHER: Duration = Duration::from_millis(5);
/// How long open calls may take to end at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// HTTP/2 pings, so that a peer that vanished without a word is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest message taken from an agent or a router, bytes.
const LIMIT_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose} ({source}): stop what uses that port, or choose another address")]
    Listen {
        /// What would be served there.
        purpose: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The configuration is not usable.
    #[error("control plane: {reason}")]
    Config {
        /// What is wrong with it.
        reason: String,
    },
    /// The store cannot be read.
    #[error("cannot load the cluster's state: {0}")]
    Store(#[from] StoreError),
    /// The energy ledger in the store is damaged.
    #[error("the energy ledger's record {key:?} is damaged ({reason}): move it away to start a new one")]
    Ledger {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The control plane.
#[derive(Debug)]
pub struct ControlPlane;

/// A control plane that serves. Dropping it ends it at once; [`RunningControlPlane::shutdown`] drains first.
#[derive(Debug)]
pub struct RunningControlPlane {
    grpc_addr: SocketAddr,
    page_addr: Option<SocketAddr>,
    plane: Arc<Plane>,
    tasks: JoinSet<()>,
    _cancel: DropGuard,
}

impl ControlPlane {
    /// Binds, loads the cluster's state and serves. The store stays the caller's to close, after the shutdown.
    ///
    /// # Errors
    /// A taken address, an unusable name, a store that cannot be read.
    pub async fn start(config: ControlPlaneConfig, store: SharedStore) -> Result<RunningControlPlane, StartError> {
        validate::name("name", &config.name).map_err(|status| StartError::Config {
            reason: status.message().to_owned(),
        })?;
        if config.name.contains('/') {
            return Err(StartError::Config {
                reason: format!("name {:?} holds a slash", config.name),
            });
        }
        let (grpc, grpc_addr) = listen("gRPC", config.grpc_addr).await?;
        let page = match config.page_addr {
            Some(address) => Some(listen("the fleet page", address).await?),
            None => None,
        };
        let mut registry = Registry::default();
        let metrics = ControlMetrics::new(&mut registry);
        let accounting = Accounting::load(&config, &*store, metrics.clone()).await?;
        let plane = Arc::new(Plane {
            // Starts later than any process before it, on one machine or on machines with sane clocks.
            routing: Mutex::new(Routing::new(unix_ns())),
            accounting: Mutex::new(accounting),
            leases: dashmap::DashMap::new(),
            changed: Notify::new(),
            shutdown: CancellationToken::new(),
            config,
            store,
            metrics,
            registry,
        });
        let mut tasks = JoinSet::new();
        for prefix in [INSTANCES, WISHES] {
            let revision = load(&plane, prefix).await?;
            tasks.spawn(follow(Arc::clone(&plane), prefix, revision));
        }
        tasks.spawn(tell_routers(Arc::clone(&plane)));
        tasks.spawn(accounting::run(Arc::clone(&plane)));
        tasks.spawn(serve_grpc(services(&plane)?, grpc, plane.shutdown.clone()));
        let page_addr = page.map(|(listener, address)| {
            tasks.spawn(page::serve(Arc::clone(&plane), listener));
            address
        });
        tracing::info!(%grpc_addr, page_addr = page_addr.map(tracing::field::display), store = plane.store.kind(), "serving");
        let cancel = plane.shutdown.clone().drop_guard();
        Ok(RunningControlPlane {
            grpc_addr,
            page_addr,
            plane,
            tasks,
            _cancel: cancel,
        })
    }
}

impl RunningControlPlane {
    /// Where agents, routers and operators connect.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where the fleet page is, if it is served.
    #[must_use]
    pub fn page_addr(&self) -> Option<SocketAddr> {
        self.page_addr
    }

    /// Ends streams, waits a few seconds for open calls, settles the energy that was measured and writes the ledger.
    ///
    /// # Errors
    /// The ledger could not be written: what was measured since the last write is lost.
    pub async fn shutdown(mut self) -> Result<(), StoreError> {
        self.plane.shutdown.cancel();
        self.plane.routing.lock().end_watches();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
            tracing::warn!("open calls did not end in time and are cut off");
            self.tasks.shutdown().await;
        }
        self.plane.accounting.lock().settle_all();
        accounting::persist(&self.plane).await
    }
}

async fn listen(purpose: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen {
        purpose,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn services(plane: &Arc<Plane>) -> Result<Router, StartError> {
    let services = Services(Arc::clone(plane));
    let agents = AgentServiceServer::new(services.clone()).max_decoding_message_size(LIMIT_MESSAGE_BYTES);
    let routers = RoutingServiceServer::new(services.clone()).max_decoding_message_size(LIMIT_MESSAGE_BYTES);
    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = plane.config.tls.clone() {
        server = server.tls_config(tls).map_err(|error| StartError::Config {
            reason: format!("its certificates cannot be served: {error}"),
        })?;
    }
    Ok(server
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .tcp_nodelay(true)
        .add_service(agents)
        .add_service(routers)
        .add_service(EnergyServiceServer::new(services.clone()))
        .add_service(AdminServiceServer::new(services)))
}

async fn serve_grpc(router: Router, listener: TcpListener, shutdown: CancellationToken) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    if let Err(error) = router
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
    {
        tracing::error!(%error, "the gRPC server ended");
    }
}

/// Sends routers what changed: soon after a change of the registry or of somebody's ledger, else on every tick. Telling
/// takes a tenth of its time at most: a large fleet is told of less often.
async fn tell_routers(plane: Arc<Plane>) {
    let mut pause = GATHER;
    loop {
        tokio::select! {
            () = plane.shutdown.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
            () = plane.changed.notified() => tokio::time::sleep(pause).await,
        }
        let now = Instant::now();
        let (ticked, (instances, healthy)) = {
            let mut routing = plane.routing.lock();
            (routing.tick(now), routing.fleet.counts(now))
        };
        pause = (9 * now.elapsed()).clamp(GATHER, TICK);
        plane.forget_silent_leases();
        let metrics = &plane.metrics;
        metrics.watch_overflows.inc_by(ticked.overflowed);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.watchers.set(gauge(ticked.watchers));
        metrics.routers.set(gauge(ticked.routers));
        metrics.instances.set(gauge(instances));
        metrics.healthy_instances.set(gauge(healthy));
        metrics.leases.set(gauge(plane.leases.len()));
    }
}
