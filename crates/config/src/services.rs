//! The services' own sections. A flag or an environment variable of a service goes before what its section says.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::ConfigError;
use crate::TlsSettings;
use crate::error::Source;

/// What the services are told; what is absent keeps their defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    /// `[router]`.
    pub router: RouterSection,
    /// `[control_plane]`.
    pub control_plane: ControlPlaneSection,
    /// `[agent]`.
    pub agent: AgentSection,
    /// `[tracing]`.
    pub tracing: TracingSection,
}

/// `[router]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterSection {
    /// Its name, unique among the routers of a control plane.
    pub name: Option<String>,
    /// Where clients reach the OpenAI API, `ip:port`.
    #[schemars(with = "Option<String>")]
    pub listen: Option<Address>,
    /// Where gRPC listens (route service, external processing, feedback), `ip:port`.
    #[schemars(with = "Option<String>")]
    pub grpc_listen: Option<Address>,
    /// The control plane, `http://host:port`.
    pub control: Option<String>,
    /// What reads the prompts: `embedded`, `off`, or an artifact's path.
    pub predictor: Option<String>,
    /// A file for every event and decision.
    pub record: Option<String>,
    /// A file for one line of JSON a request; `-` for standard output.
    pub access_log: Option<String>,
    /// Longest request body, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub max_body_bytes: Option<u32>,
    /// How often the ledger is published, milliseconds.
    #[schemars(range(min = 10, max = 10_000))]
    pub publish_interval_ms: Option<u32>,
    /// How long answers may go on after a shutdown was asked for, seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub drain_timeout_s: Option<u32>,
}

/// `[control_plane]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ControlPlaneSection {
    /// Its name, unique among the control planes that share a store.
    pub name: Option<String>,
    /// Where gRPC listens, `ip:port`.
    #[schemars(with = "Option<String>")]
    pub listen: Option<Address>,
    /// Where the fleet page is, `ip:port`; `off` for none.
    pub page_listen: Option<String>,
    /// `embedded`, `embedded:PATH` or `etcd://HOST:PORT[,HOST:PORT]`.
    pub store: Option<String>,
    /// Certificates of its gRPC: `cert`, `key`, and `client_ca` where agents, routers and operators must show one.
    pub tls: Option<TlsSettings>,
}

/// `[agent]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSection {
    /// This node's name, unique in the cluster.
    pub node: Option<String>,
    /// The control plane, `http://host:port`.
    pub control: Option<String>,
    /// Where the agent's own metrics are served, `ip:port`.
    #[schemars(with = "Option<String>")]
    pub metrics_listen: Option<Address>,
    /// GPU telemetry: `auto`, `off`, or the path of an NVML library.
    pub nvml: Option<String>,
}

/// `[tracing]`: spans for OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TracingSection {
    /// A collector's base URL for OTLP over HTTP, such as `http://127.0.0.1:4318`. Absent: nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that begin here and are recorded; those of callers follow the caller's flag.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: Option<f64>,
    /// `service.name`.
    pub service_name: Option<String>,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub SocketAddr);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|_| format!("`{text}` is no address to listen on; write ip:port, like 127.0.0.1:8080"))
    }
}

/// Checks what the types do not: figures within their bounds.
pub(crate) fn check(source: &Source<'_>, router: Option<&Spanned<RouterSection>>) -> Result<(), ConfigError> {
    let Some(section) = router else { return Ok(()) };
    let router = section.get_ref();
    let figures = [
        ("max_body_bytes", router.max_body_bytes, 1024, 1 << 30),
        ("publish_interval_ms", router.publish_interval_ms, 10, 10_000),
        ("drain_timeout_s", router.drain_timeout_s, 0, 86_400),
    ];
    for (name, value, least, most) in figures {
        if let Some(value) = value
            && !(least..=most).contains(&value)
        {
            let problem = format!("[router]: {name} is {value}; it must be from {least} to {most}");
            return Err(source.invalid(section.span(), problem));
        }
    }
    Ok(())
}
