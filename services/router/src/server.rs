//! The HTTP server of a router: listening, routing by path, draining.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use equipoise_backend::BackendError;
use equipoise_fleet::Breaker;
use equipoise_openai::{ErrorResponse, ModelCard, ModelList, Usage};
use equipoise_scheduler::{Dispatch, PrefixSettings, TokenUsage};
use equipoise_telemetry::{Direction, GatewayMetrics, ObservingMetrics, RouterMetrics, exposition};
use equipoise_types::{DecisionId, RequestId, Timestamp};
use http::{HeaderValue, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::RouterConfig;
use crate::access::{Access, Caller};
use crate::access_log::AccessLog;
use crate::activity::{ActivityLog, Ending, Running};
use crate::connection::{Door, Side};
use crate::control;
use crate::driver::{Driver, DriverError};
use crate::engines::{Engine, Engines};
use crate::forecast::{Forecaster, PredictorError};
use crate::grpc;
use crate::head::{MOST_HEAD_BYTES, MOST_HEADERS};
use crate::hedge::Hedging;
use crate::journal::Journal;
use crate::live::LiveSettings;
use crate::pii::{Pii, PiiError};
use crate::proxy::AUTO;
use crate::relay::{ClientResponse, content, error};
use crate::responses::Responses;
use crate::size::PromptSize;
use crate::span_export::SpanQueue;
use crate::tls::{Certificates, TlsError};

/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long streams that are cut off have for saying so.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Requests at a time on one HTTP/2 connection: a gateway in front may have one for all of its clients.
const MOST_H2_STREAMS: u32 = 1000;
/// Longer explanations are not sent as a header: many clients refuse heads above 16 KiB.
const LONGEST_EXPLANATION: usize = 12 << 10;
/// Model cards are under here, one each.
pub(crate) const MODELS: &str = "/v1/models/";
/// Explanations of the last decisions are under here.
pub(crate) const DECISIONS: &str = "/v1/decisions/";

/// What every connection shares.
pub(crate) struct State {
    pub(crate) name: String,
    /// Tells this process from an earlier one of the same name.
    pub(crate) process: String,
    /// What its decisions' names begin with: its own name and a tag of the process, so that what is said later of a
    /// decision from before a restart meets no new one of the same number.
    decision_prefix: String,
    connected: AtomicBool,
    pub(crate) driver: Driver,
    pub(crate) engines: Engines,
    pub(crate) activity: ActivityLog,
    pub(crate) metrics: RouterMetrics,
    pub(crate) gateway: GatewayMetrics,
    pub(crate) observing: ObservingMetrics,
    pub(crate) journal: Journal,
    pub(crate) prompt_size: PromptSize,
    pub(crate) responses: Responses,
    pub(crate) prefix: PrefixSettings,
    pub(crate) forecaster: Forecaster,
    pub(crate) hedging: Hedging,
    access: RwLock<Arc<Access>>,
    pub(crate) pii: Option<Pii>,
    pub(crate) public_metrics: bool,
    pub(crate) max_body_bytes: usize,
    pub(crate) body_timeout: Duration,
    registry: Registry,
    started_unix_s: u64,
}

impl State {
    /// Whether the control plane's stream is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Who may ask, as things are now.
    pub(crate) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read())
    }

    /// Takes other tenants over: keys, models, limits. What was used of a limit is forgotten.
    pub(crate) fn set_access(&self, tenants: &std::collections::BTreeMap<String, equipoise_scheduler::TenantSettings>) {
        *self.access.write() = Arc::new(Access::new(tenants));
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
        self.metrics.set_control_plane_connected(connected);
    }

    /// A decision's name, unique in the cluster, also after a restart.
    pub(crate) fn decision_name(&self, decision: DecisionId) -> String {
        format!("{}{}", self.decision_prefix, decision.0)
    }

    /// The decision of a name, if the name is this router's.
    pub(crate) fn decision_number(&self, name: &str) -> Option<DecisionId> {
        let number = name.strip_prefix(&self.decision_prefix)?;
        number.parse().ok().map(DecisionId)
    }

    /// What to say of a decision that is not known, or not any more.
    pub(crate) fn unknown_decision(&self, name: &str) -> String {
        format!(
            "The decision `{name}` is not known here: it is too long ago, from before a restart, or another router's. This one is `{}`.",
            self.name
        )
    }

    /// A decision's explanation as a header, if it is kept and fits.
    pub(crate) fn explanation_header(&self, decision: DecisionId) -> Option<HeaderValue> {
        let name = self.decision_name(decision);
        let json = self.driver.with_scheduler(|scheduler| {
            Some(crate::explain::json(scheduler, &name, scheduler.explanation(decision)?).to_string())
        })?;
        (json.len() <= LONGEST_EXPLANATION)
            .then(|| HeaderValue::from_str(&json).ok())
            .flatten()
    }

    /// A request goes out to an engine.
    pub(crate) fn begin(
        &self,
        id: RequestId,
        tenant: Option<String>,
        prompt_tokens: u32,
        silent: bool,
        dispatch: &Dispatch,
        engine: &Engine,
    ) {
        let decision = self.decision_name(dispatch.decision);
        let tenant = tenant.unwrap_or_else(|| "default".to_owned());
        let now = self.driver.now();
        let running = Running::new(
            decision,
            engine.name.clone(),
            tenant,
            prompt_tokens,
            silent,
            now,
            dispatch.estimate,
        );
        self.activity.begin(id, Arc::new(running));
    }

    /// Its work there is over.
    pub(crate) fn close(&self, id: RequestId, usage: Option<TokenUsage>, wasted: bool) {
        let now = self.driver.now();
        self.activity
            .end(id, now, |at| self.driver.unix_ns(at), Ending { usage, wasted });
    }

    /// The request as the energy ledger follows it.
    pub(crate) fn running(&self, id: RequestId) -> Option<Arc<Running>> {
        self.activity.running(id)
    }

    /// An answer came in full.
    pub(crate) fn observe_answer(&self, arrived_at: Timestamp, model: &str, prompt_chars: u64, usage: Option<Usage>) {
        self.metrics.observe_e2e(self.driver.now().since(arrived_at));
        if let Some(usage) = usage {
            self.prompt_size.observe(prompt_chars, usage.prompt_tokens);
            self.metrics
                .count_tokens(model, Direction::Input, u64::from(usage.prompt_tokens));
            self.metrics
                .count_tokens(model, Direction::Output, u64::from(usage.completion_tokens));
        }
    }
}

/// A router that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("the router cannot listen on {addr}: {source}; is another one running? choose another with --listen")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The driver cannot be set up.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The gate for personal data makes no sense.
    #[error(transparent)]
    Pii(#[from] PiiError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The predictor cannot be used.
    #[error(transparent)]
    Predictor(#[from] PredictorError),
    /// The access log cannot be written.
    #[error("the access log cannot be opened: {0}; name a file in a folder that exists, or `-`")]
    AccessLog(std::io::Error),
    /// The collector's address is no URL.
    #[error("spans cannot be exported: {0}")]
    Tracing(#[from] BackendError),
    /// The control plane's address is no URL.
    #[error("`{url}` is no control plane's address: {reason}; write http://host:8090")]
    Control {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// A router that is listening.
#[derive(Debug)]
pub struct RunningRouter {
    addr: SocketAddr,
    grpc_addr: Option<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    grpc: Option<JoinHandle<()>>,
    drain_timeout: Duration,
    tasks: Vec<JoinHandle<()>>,
    state: Arc<State>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RunningRouter {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where its gRPC listens, if it was asked to.
    #[must_use]
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc_addr
    }

    /// What changes its settings while it runs.
    #[must_use]
    pub fn settings(&self) -> LiveSettings {
        LiveSettings::new(Arc::clone(&self.state))
    }

    /// Where operators find its metrics, if anywhere.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// How many instances it knows that may get work now.
    #[must_use]
    pub fn available_instances(&self) -> usize {
        let now = self.state.driver.now();
        let available = |scheduler: &equipoise_scheduler::Scheduler| {
            scheduler
                .fleet()
                .iter()
                .filter(|instance| instance.is_available(now))
                .count()
        };
        self.state.driver.with_scheduler(available)
    }

    /// How old the oldest of what it knows of the other routers' requests is, seconds; `None` where it is alone.
    #[must_use]
    pub fn peers_age_s(&self) -> Option<f64> {
        let now = self.state.driver.now();
        self.state.driver.with_scheduler(|scheduler| {
            let fleet = scheduler.fleet();
            let ages = fleet.iter().filter_map(|instance| fleet.peers_age_s(now, instance));
            ages.reduce(f64::max)
        })
    }

    /// Takes no new connection, lets running answers finish within the drain time, and stops.
    pub async fn shutdown(self) {
        // The server may have gone already; then there is nobody to tell.
        self.stop.send_replace(true);
        // A gateway's requests are answers that run, too.
        let grpc = async {
            let Some(grpc) = self.grpc else { return };
            if tokio::time::timeout(self.drain_timeout, grpc).await.is_err() {
                tracing::warn!("gateways' requests still ran after {:?}", self.drain_timeout);
            }
        };
        let (server, ()) = tokio::join!(self.server, grpc);
        if let Err(error) = server {
            tracing::error!("the router's server ended badly: {error}");
        }
        // The last slices go out before the publisher is stopped.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for task in self.tasks {
            task.abort();
        }
        self.state.driver.flush_record();
    }
}

/// Listens, and says where.
async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Starts a router: it listens before this returns, and learns its fleet from the control plane as soon as it can.
///
/// # Errors
/// For an address that cannot be listened on, settings that make no sense, an event log that cannot be written.
pub async fn start(config: RouterConfig) -> Result<RunningRouter, StartError> {
    let (listener, addr) = listen(config.listen).await?;
    let grpc = match config.grpc_listen {
        Some(addr) => Some(listen(addr).await?),
        None => None,
    };
    let admin = match config.admin_listen {
        Some(addr) => Some(listen(addr).await?),
        None => None,
    };
    let pii = config.pii.as_ref().map(Pii::new).transpose()?;
    let load = |settings: &Option<_>| settings.as_ref().map(Certificates::load).transpose();
    let tls = load(&config.tls)?.map(Arc::new);
    let grpc_tls = load(&config.grpc_tls)?.map(Arc::new);
    let forecaster = Forecaster::new(&config.predictor)?;
    let access_log = config.access_log.as_ref().map(AccessLog::open).transpose();
    let access_log = access_log.map_err(StartError::AccessLog)?;
    let (spans, exporter) = config.tracing.clone().map(SpanQueue::new).transpose()?.unzip();
    let mut registry = Registry::default();
    let metrics = RouterMetrics::new(&mut registry);
    let gateway = GatewayMetrics::new(&mut registry);
    let observing = ObservingMetrics::new(&mut registry);
    let driver = Driver::new(config.scheduler.clone(), config.record.as_deref(), metrics.clone())?;
    let since_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let process = since_unix.as_micros() ^ u128::from(std::process::id()).rotate_left(16);
    let state = Arc::new(State {
        name: config.name.clone(),
        process: format!("{process:x}"),
        decision_prefix: format!("{}-{:06x}-", config.name, process & 0xff_ffff),
        connected: AtomicBool::new(false),
        driver,
        engines: Engines::new(config.engine_tls.clone()),
        activity: ActivityLog::default(),
        metrics,
        gateway,
        observing,
        journal: Journal::new(access_log, spans),
        prompt_size: PromptSize::default(),
        responses: Responses::default(),
        prefix: config.scheduler.prefix,
        forecaster,
        hedging: Hedging::new(config.scheduler.hedge),
        access: RwLock::new(Arc::new(Access::new(&config.scheduler.tenants))),
        pii,
        public_metrics: config.public_metrics,
        max_body_bytes: config.max_body_bytes,
        body_timeout: config.body_timeout,
        registry,
        started_unix_s: since_unix.as_secs(),
    });
    let channel = control::channel(&config.control, config.control_tls.clone())?;
    let clock = Arc::clone(&state);
    let mut tasks = vec![
        tokio::spawn(async move { clock.driver.keep_time().await }),
        tokio::spawn(control::watch(Arc::clone(&state), channel.clone())),
        tokio::spawn(control::publish(Arc::clone(&state), channel, config.publish_interval)),
    ];
    tasks.extend(exporter.map(|exporter| tokio::spawn(exporter.run(Arc::clone(&state)))));
    let (stop, stopping) = watch::channel(false);
    let grpc_addr = grpc.as_ref().map(|(_, addr)| *addr);
    let grpc = grpc.map(|(listener, _)| {
        let (state, stopping) = (Arc::clone(&state), stopping.clone());
        tokio::spawn(grpc::serve(listener, grpc_tls.clone(), state, stopping))
    });
    let drain_timeout = config.drain_timeout;
    let door = |side, tls| {
        Arc::new(Door {
            state: Arc::clone(&state),
            side,
            http: protocols(config.head_timeout),
            tls,
        })
    };
    for certificates in tls.iter().chain(&grpc_tls) {
        tasks.push(tokio::spawn(Arc::clone(certificates).follow()));
    }
    let admin_addr = admin.as_ref().map(|(_, addr)| *addr);
    if let Some((listener, _)) = admin {
        let (side, drain_timeout) = (door(Side::Admin, None), config.drain_timeout);
        tasks.push(tokio::spawn(async move {
            // Operators look on while answers run out: it ends with the router.
            let (_open, never) = watch::channel(false);
            accept(listener, side, never, drain_timeout).await;
        }));
    }
    let public = door(Side::Public, tls);
    let server = tokio::spawn(accept(listener, public, stopping, config.drain_timeout));
    Ok(RunningRouter {
        addr,
        grpc_addr,
        admin_addr,
        stop,
        server,
        grpc,
        drain_timeout,
        tasks,
        state,
    })
}

async fn accept(listener: TcpListener, door: Arc<Door>, mut stopping: watch::Receiver<bool>, drain_timeout: Duration) {
    let graceful = GracefulShutdown::new();
    loop {
        let (socket, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: give running requests time to end.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = asked_to_stop(&mut stopping) => break,
        };
        tokio::spawn(Arc::clone(&door).serve(socket, graceful.watcher()));
    }
    drop(listener);
    let mut ended = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(drain_timeout, &mut ended).await.is_err() {
        tracing::warn!("answers still ran after {drain_timeout:?} and are cut off");
        if door.side == Side::Public {
            door.state.activity.cut_all();
        }
        // Whoever reads hears why; the others have had their time.
        drop(tokio::time::timeout(LAST_WORDS, ended).await);
    }
}

/// HTTP/1.1, or HTTP/2 where the client begins with its preface (prior knowledge) or has agreed on it in TLS.
pub(crate) fn protocols(head_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES)
        .header_read_timeout(head_timeout);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_H2_STREAMS)
        .max_header_list_size(MOST_HEAD_BYTES as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL);
    http
}

/// Returns when the flag is raised, or when nobody is left to raise it.
pub(crate) async fn asked_to_stop(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

pub(crate) fn models(state: &State, caller: &Caller) -> ClientResponse {
    content("application/json", ModelList::new(cards(state, caller)).to_json())
}

pub(crate) fn model(state: &State, caller: &Caller, id: &str) -> ClientResponse {
    let cards = cards(state, caller);
    match cards.iter().find(|card| card.id == id) {
        Some(card) => match serde_json::to_vec(card) {
            Ok(json) => content("application/json", json),
            Err(problem) => error(&ErrorResponse::internal(problem.to_string())),
        },
        None => error(&ErrorResponse::model_not_found(
            id,
            cards.iter().map(|card| card.id.as_str()),
        )),
    }
}

fn cards(state: &State, caller: &Caller) -> Vec<ModelCard> {
    let served = state.driver.with_scheduler(|scheduler| {
        let fleet = scheduler.fleet();
        let context = |name: &str| {
            let of_model = fleet
                .iter()
                .filter(|instance| instance.present && instance.spec.model.name == name);
            of_model.filter_map(|instance| instance.spec.model.context_tokens).max()
        };
        fleet
            .served_models()
            .filter(|model| caller.may_use(&model.name))
            .map(|model| (model.name.clone(), context(&model.name)))
            .collect::<Vec<_>>()
    });
    let card = |id: &str, context: Option<u32>| ModelCard::new(id, "equipoise", state.started_unix_s, context);
    let mut cards = vec![card(AUTO, served.iter().filter_map(|(_, context)| *context).max())];
    cards.extend(served.iter().map(|(name, context)| card(name, *context)));
    cards
}

/// Why a decision fell as it did.
pub(crate) fn decision(state: &State, name: &str) -> ClientResponse {
    let explained = state.decision_number(name).and_then(|number| {
        state.driver.with_scheduler(|scheduler| {
            let explanation = scheduler.explanation(number)?;
            Some(crate::explain::json(scheduler, name, explanation).to_string())
        })
    });
    match explained {
        Some(json) => content("application/json", json),
        None => {
            let mut problem = ErrorResponse::not_found(DECISIONS);
            problem.body.message = state.unknown_decision(name);
            error(&problem)
        }
    }
}

pub(crate) fn health(state: &State) -> ClientResponse {
    let now = state.driver.now();
    let (known, available) = state.driver.with_scheduler(|scheduler| {
        let fleet = scheduler.fleet();
        let known = fleet.iter().filter(|instance| instance.present).count();
        (
            known,
            fleet.iter().filter(|instance| instance.is_available(now)).count(),
        )
    });
    let status = if available > 0 { "ok" } else { "no instance" };
    let body = format!("{{\"status\":\"{status}\",\"instances\":{known},\"available\":{available}}}");
    let mut response = content("application/json", body);
    if available == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

pub(crate) fn metrics(state: &State) -> ClientResponse {
    let now = state.driver.now();
    state.driver.with_scheduler(|scheduler| {
        state
            .metrics
            .queue_length
            .set(i64::try_from(scheduler.queued()).unwrap_or(i64::MAX));
        let age_s = scheduler.queued_since().map_or(0.0, |since| now.secs_since(since));
        state.metrics.queue_age.set(age_s);
        let fleet = scheduler.fleet();
        for model in fleet.served_models() {
            state
                .metrics
                .set_feedback_shift(&model.name, model.quality.shift(now).log_odds);
        }
        for instance in fleet.iter() {
            let in_flight = fleet.ledger().load(now, instance.id).in_flight;
            if instance.present || in_flight > 0 {
                state.metrics.in_flight(&instance.spec.name).set(i64::from(in_flight));
                let breaker = match instance.health.breaker(now) {
                    Breaker::Closed => 0,
                    Breaker::HalfOpen { .. } => 1,
                    Breaker::Open(_) => 2,
                };
                state.metrics.set_breaker(&instance.spec.name, breaker);
            } else {
                state.metrics.forget_instance(&instance.spec.name);
            }
        }
    });
    match exposition(&state.registry) {
        Ok(text) => content(equipoise_telemetry::EXPOSITION_CONTENT_TYPE, text),
        Err(problem) => error(&ErrorResponse::internal(format!(
            "metrics cannot be written: {problem}"
        ))),
    }
}
