//! What a router can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use equipoise_backend::EngineTls;
use equipoise_config::{PiiSettings, TlsSettings};
use equipoise_scheduler::SchedulerConfig;
use equipoise_telemetry::OtlpSettings;
use tonic::transport::ClientTlsConfig;

use crate::access_log::AccessLogTarget;
use crate::forecast::PredictorSource;

/// Settings of one router process.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Its name, unique among the routers of a control plane.
    pub name: String,
    /// Where clients reach it.
    pub listen: SocketAddr,
    /// Where its gRPC (feedback) listens, if anywhere.
    pub grpc_listen: Option<SocketAddr>,
    /// The control plane, `http://host:port`.
    pub control: String,
    /// The scheduler's settings.
    pub scheduler: SchedulerConfig,
    /// What reads the prompts.
    pub predictor: PredictorSource,
    /// Where to write the event log, if anywhere.
    pub record: Option<PathBuf>,
    /// Where one line for each request goes, if anywhere.
    pub access_log: Option<AccessLogTarget>,
    /// Where spans go, if anywhere.
    pub tracing: Option<OtlpSettings>,
    /// Where operators find `/metrics`, `/health/*` and `/debug/*`, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// Whether clients see `/metrics` too.
    pub public_metrics: bool,
    /// What is done with personal data in requests, if anything.
    pub pii: Option<PiiSettings>,
    /// Certificates of the public listener; without them it speaks plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Certificates of the gRPC listener; without them it speaks plain HTTP/2.
    pub grpc_tls: Option<TlsSettings>,
    /// How engines are spoken to over TLS; absent: with the system's authorities.
    pub engine_tls: Option<EngineTls>,
    /// How the control plane is, where its address begins with `https://`.
    pub control_tls: Option<ClientTlsConfig>,
    /// A client that sends its headers slower than this is let go.
    pub head_timeout: Duration,
    /// Longest wait for a request's body.
    pub body_timeout: Duration,
    /// Longest request body, bytes.
    pub max_body_bytes: usize,
    /// How often the ledger is published.
    pub publish_interval: Duration,
    /// How long streams may go on after a shutdown was asked for.
    pub drain_timeout: Duration,
}

impl RouterConfig {
    /// Defaults for a router called `name` on `listen` under `control`.
    #[must_use]
    pub fn new(name: impl Into<String>, listen: SocketAddr, control: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen,
            grpc_listen: None,
            control: control.into(),
            scheduler: SchedulerConfig::default(),
            predictor: PredictorSource::default(),
            record: None,
            access_log: None,
            tracing: None,
            admin_listen: None,
            public_metrics: false,
            pii: None,
            tls: None,
            grpc_tls: None,
            engine_tls: None,
            control_tls: None,
            head_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(60),
            max_body_bytes: 32 << 20,
            publish_interval: Duration::from_millis(200),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
