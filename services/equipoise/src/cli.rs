//! The command line: what can be asked, in which words.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use equipoise_router::PredictorSource;
use equipoise_trace::WorkloadFormat;

/// Fleet scheduler and load balancer for LLM serving: each request goes to one concrete instance, weighed by predicted
/// quality, queue latency and joules.
#[derive(Debug, Parser)]
#[command(name = "equipoise", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How services log, on standard error. EQUIPOISE_LOG sets the level (info, debug, equipoise_router=trace, ...).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl From<LogFormat> for equipoise_telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Everything in one process: control plane, router, agent, and an emulated fleet or your own engines.
    Up(Up),
    /// The control plane: registry, telemetry, routing state, energy ledger, fleet page.
    ControlPlane(ControlPlane),
    /// A router: OpenAI API in, one decision, an engine out.
    Router(Router),
    /// A node agent: registers the engines of a fleet file and streams their telemetry.
    Agent(Agent),
    /// One emulated engine as a process of its own: vLLM's API without a GPU.
    Emulator(Emulator),
    /// Replay a trace against a described fleet in virtual time, with the router's own decision code.
    Simulate(Simulate),
    /// Run every combination in a scenario file, on all cores, resumable; join what several machines ran.
    Sweep(crate::sweep::Options),
    /// Look at workload traces, convert, scale and generate them.
    Trace(crate::trace::Options),
    /// Run a router's event log through the scheduler again and compare every decision.
    Replay(Replay),
    /// Reports from the control plane's ledger.
    Report(Report),
    /// Look after a fleet.
    Fleet(Fleet),
    /// Predictors of answer quality and length: train, score, show.
    Predictor(crate::predictor::Options),
    /// The engine model beside measurements, others' and your own.
    Calibrate(crate::calibrate::Options),
    /// Why a router decided as it did: every candidate with what was predicted of it.
    Explain(Explain),
    /// Is a configuration file right, and what may be in one.
    Config(Config),
    /// API keys of tenants.
    Key(Key),
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Make a key: it is shown once, with the hash that goes into the fleet file.
    New {
        /// Hash it with a salt. Costs the router one more hash for every request; keys made here need none.
        #[arg(long)]
        salted: bool,
    },
}

/// The help of an option that names policies: `what`, and all there are.
fn policies(what: &str) -> String {
    format!(
        "{what}. There are: {}. A model router in front takes its parameter as in `avengers-pro@0.53+round-robin`; `cascade[@THRESHOLD]+POLICY` is that policy with a better model where the first is unsure",
        equipoise_policy::all_names().join(", ")
    )
}

/// Whom a router's listeners are for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Doors {
    /// Where operators find /metrics, /health/* and /debug/*; `off` for nowhere. It asks for no key: keep it on an interface
    /// that clients do not reach.
    #[arg(long, default_value = "127.0.0.1:8081", env = "EQUIPOISE_ADMIN_LISTEN")]
    pub(crate) admin_listen: String,
    /// Serve /metrics to clients too.
    #[arg(long)]
    pub(crate) public_metrics: bool,
}

/// How a control plane that speaks TLS is spoken to; files in PEM.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ControlTls {
    /// The authority of its certificate.
    #[arg(long, global = true, value_name = "FILE", env = "EQUIPOISE_CONTROL_CA")]
    pub(crate) control_ca: Option<PathBuf>,
    /// A certificate to show to it.
    #[arg(long, global = true, value_name = "FILE", env = "EQUIPOISE_CONTROL_CERT")]
    pub(crate) control_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, global = true, value_name = "FILE", env = "EQUIPOISE_CONTROL_KEY")]
    pub(crate) control_key: Option<PathBuf>,
}

/// How requests are placed; over what the fleet file says.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Scheduling {
    #[arg(long, env = "EQUIPOISE_POLICY", help = policies("Policy; equipoise unless the fleet file says another"))]
    pub(crate) policy: Option<String>,
    /// Write every event and decision to this file, for `equipoise replay`.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Write one line of JSON for each request to this file; `-` for standard output. See docs/observability.md.
    #[arg(long, value_name = "FILE|-", env = "EQUIPOISE_ACCESS_LOG")]
    pub(crate) access_log: Option<String>,
    /// What forecasts quality and length from prompts: `embedded` (mathematics, code, examination questions), `off`, or
    /// an artifact of `equipoise predictor train`. Models that it does not know are as good as the fleet declares.
    /// Default: `embedded`, or what the configuration file says.
    #[arg(long, value_name = "FILE|off|embedded", env = "EQUIPOISE_PREDICTOR")]
    pub(crate) predictor: Option<PredictorSource>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// A fleet file; pools with `endpoints` are real engines, pools with `count` are emulated. Default: a built-in
    /// emulated fleet of six instances. Followed: scheduler, tenants and pools change without a restart.
    #[arg(long, value_name = "FILE", visible_alias = "config", env = "EQUIPOISE_CONFIG")]
    pub(crate) fleet: Option<PathBuf>,
    /// Where clients reach the OpenAI API. Default: 127.0.0.1:8080.
    #[arg(long, env = "EQUIPOISE_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Serve the router's gRPC (route service, external processing, feedback) here.
    #[arg(long, env = "EQUIPOISE_GRPC_LISTEN")]
    pub(crate) grpc_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) doors: Doors,
    /// Where the control plane's gRPC listens.
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub(crate) control_listen: SocketAddr,
    /// Where the fleet page is.
    #[arg(long, default_value = "127.0.0.1:8091")]
    pub(crate) page_listen: SocketAddr,
    /// Cluster state: `embedded` (in memory), `embedded:PATH`, `etcd://HOST:PORT[,HOST:PORT]`.
    #[arg(long, default_value = "embedded")]
    pub(crate) store: String,
    /// GPU telemetry: auto (the default), off, or the path of an NVML library.
    #[arg(long, env = "EQUIPOISE_NVML")]
    pub(crate) nvml: Option<String>,
    #[command(flatten)]
    pub(crate) scheduling: Scheduling,
}

#[derive(Debug, Args)]
pub(crate) struct ControlPlane {
    /// A configuration file, for its [control_plane] section; what is said here or by a variable goes before it.
    #[arg(long, value_name = "FILE", env = "EQUIPOISE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Cluster state: `embedded` (in memory; the default), `embedded:PATH`, `etcd://HOST:PORT[,HOST:PORT]`.
    #[arg(long, env = "EQUIPOISE_STORE")]
    pub(crate) store: Option<String>,
    /// Where gRPC listens. Default: 127.0.0.1:8090.
    #[arg(long, env = "EQUIPOISE_CONTROL_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the fleet page is; `off` for none. Default: 127.0.0.1:8091.
    #[arg(long, env = "EQUIPOISE_PAGE_LISTEN")]
    pub(crate) page_listen: Option<String>,
    /// Its name, unique among the control planes that share a store, and the same after a restart. Default: control-plane.
    #[arg(long, env = "EQUIPOISE_CONTROL_NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Router {
    /// The control plane. Default: http://127.0.0.1:8090.
    #[arg(long, env = "EQUIPOISE_CONTROL")]
    pub(crate) control: Option<String>,
    #[command(flatten)]
    pub(crate) control_tls: ControlTls,
    /// Where clients reach the OpenAI API. Default: 127.0.0.1:8080.
    #[arg(long, env = "EQUIPOISE_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Its name, unique among the routers of a control plane. Default: HOST-PORT.
    #[arg(long, env = "EQUIPOISE_ROUTER_NAME")]
    pub(crate) name: Option<String>,
    /// Serve gRPC (route service, external processing, feedback) here.
    #[arg(long, env = "EQUIPOISE_GRPC_LISTEN")]
    pub(crate) grpc_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) doors: Doors,
    /// A configuration file, for its [router], [scheduler], [tenants], [pii], [tls] and [tracing]; what is said here or by a variable goes
    /// before it. Followed: scheduler and tenants change without a restart.
    #[arg(long, value_name = "FILE", visible_alias = "config", env = "EQUIPOISE_CONFIG")]
    pub(crate) fleet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) scheduling: Scheduling,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The control plane. Default: http://127.0.0.1:8090.
    #[arg(long, env = "EQUIPOISE_CONTROL")]
    pub(crate) control: Option<String>,
    #[command(flatten)]
    pub(crate) control_tls: ControlTls,
    /// The fleet file whose instances this node serves, and its [agent] section. Default: the built-in emulated fleet.
    /// Followed: pools come and go without a restart.
    #[arg(long, value_name = "FILE", visible_alias = "config", env = "EQUIPOISE_CONFIG")]
    pub(crate) fleet: Option<PathBuf>,
    /// This node's name, unique in the cluster. Default: the host's name.
    #[arg(long, env = "EQUIPOISE_NODE")]
    pub(crate) node: Option<String>,
    /// Serve the agent's own metrics and health here.
    #[arg(long, env = "EQUIPOISE_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// GPU telemetry: auto (the default), off, or the path of an NVML library.
    #[arg(long, env = "EQUIPOISE_NVML")]
    pub(crate) nvml: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Emulator {
    /// The fleet file that says what is emulated.
    #[arg(long, value_name = "FILE")]
    pub(crate) fleet: PathBuf,
    /// Which of its instances, POOL-NUMBER.
    #[arg(long)]
    pub(crate) instance: String,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A scenario file: fleet, workload, policies, seeds, faults and more in one, see docs/scenarios.md.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "fleet", "trace", "policy", "seed", "requests", "rate", "prompts", "ttft_slo_ms", "e2e_slo_ms", "feedback",
        "mismatch", "record", "routers", "step_by_step",
    ])]
    pub(crate) scenario: Option<PathBuf>,
    /// Also write a report as a page of its own: frontiers, distributions, timelines, energy by cause.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Also write a line for every request as Parquet.
    #[arg(long = "requests-out", value_name = "FILE.parquet")]
    pub(crate) requests_file: Option<PathBuf>,
    /// The fleet. Default: the built-in fleet of `up`.
    #[arg(long, value_name = "FILE")]
    pub(crate) fleet: Option<PathBuf>,
    /// A trace: Azure or BurstGPT CSV, Mooncake JSONL, a result of `vllm bench serve` or GuideLLM, ServeGen clients, our
    /// own Parquet or JSONL. Default: a generated one.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// The trace's format, where its first bytes do not tell; see `equipoise trace stat --help`.
    #[arg(long, requires = "trace")]
    pub(crate) format: Option<WorkloadFormat>,
    #[arg(long, value_delimiter = ',', default_value = "equipoise", help = policies("Policies to compare, separated by commas"))]
    pub(crate) policy: Vec<String>,
    /// Seed of the generated trace, of what ServeGen clients send, and of every random draw.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Requests of the generated trace.
    #[arg(long, default_value_t = 2000)]
    pub(crate) requests: usize,
    /// Requests per second of the generated trace.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) rate: f64,
    /// Let every request ask a held-out prompt of this graded set, in seeded order: its length, the embedded predictor's
    /// forecast, and as truth each model's own answer. The models' names must be in the set.
    #[arg(long, value_enum, requires = "data")]
    pub(crate) prompts: Option<Prompts>,
    /// The folder that holds `quality/`, for --prompts.
    #[arg(long, value_name = "DIR", env = "EQUIPOISE_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Every request asks for its first token within so many milliseconds of its arrival.
    #[arg(long, value_name = "MS")]
    pub(crate) ttft_slo_ms: Option<f64>,
    /// Every request asks for its whole answer within so many milliseconds of its arrival.
    #[arg(long, value_name = "MS")]
    pub(crate) e2e_slo_ms: Option<f64>,
    /// With which probability, between 0 and 1.
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub(crate) slo_confidence: f64,
    /// The share of answers about which somebody says how good they were, 0 to 1: the truth, as feedback.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub(crate) feedback: f64,
    /// How far the engines are from what the router believes: standard deviation of the logarithm of each instance's speed,
    /// of each step's noise and of the drift in the course of minutes. Default: 0.15 with an SLO, else 0.
    #[arg(long, value_name = "SD")]
    pub(crate) mismatch: Option<f64>,
    /// Also write the results here as JSON; `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the first policy's events and decisions to this file, for `equipoise replay`.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Count malformed trace lines and go on, rather than stop at the first.
    #[arg(long)]
    pub(crate) skip_malformed: bool,
    /// Routers that share the requests, each with its own scheduler and its own part of them.
    #[arg(long, default_value_t = 1)]
    pub(crate) routers: u32,
    /// How old the fleet's state is when several routers are told of it.
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    pub(crate) state_age_ms: f64,
    /// How often several routers are told of the fleet's state.
    #[arg(long, value_name = "MS", default_value_t = 100.0)]
    pub(crate) state_interval_ms: f64,
    /// Make every step of an engine an event of its own: slower, and the same results to the bit.
    #[arg(long)]
    pub(crate) step_by_step: bool,
}

/// Graded prompts that requests can ask.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Prompts {
    /// ZeroEval: mathematics and code reasoning, 21 open models.
    Zeroeval,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// An event log written by `--record`.
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    #[command(subcommand)]
    pub(crate) kind: ReportKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportKind {
    /// Joules: measured, attributed to requests, idle, unattributed; per token and per request.
    Energy(EnergyReport),
}

#[derive(Debug, Args)]
pub(crate) struct EnergyReport {
    /// What the rows are.
    #[arg(long, value_enum, default_value_t = Grouping::Pool)]
    pub(crate) by: Grouping,
    /// The control plane.
    #[arg(long, default_value = "http://127.0.0.1:8090", env = "EQUIPOISE_CONTROL")]
    pub(crate) control: String,
    #[command(flatten)]
    pub(crate) control_tls: ControlTls,
    /// Print the rows as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Grouping {
    Pool,
    Model,
    Gpu,
    Tenant,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Examine a file: prints everything that is wrong with it, with line and column, and exits with 1; or `ok`.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of a configuration file.
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The decision's id, as in the answer's `x-equipoise-decision-id` header.
    pub(crate) decision: String,
    /// The router that decided.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "EQUIPOISE_ROUTER")]
    pub(crate) router: String,
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// The control plane.
    #[arg(
        long,
        global = true,
        default_value = "http://127.0.0.1:8090",
        env = "EQUIPOISE_CONTROL"
    )]
    pub(crate) control: String,
    #[command(flatten)]
    pub(crate) control_tls: ControlTls,
    #[command(subcommand)]
    pub(crate) action: FleetAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FleetAction {
    /// Every instance, with what it is busy with.
    List {
        /// Only this pool.
        #[arg(long, default_value = "")]
        pool: String,
    },
    /// All that is known of one instance.
    Describe {
        /// Its name.
        name: String,
    },
    /// Take new work away from an instance; what runs finishes.
    Drain {
        /// Its name.
        name: String,
        /// Give it work again.
        #[arg(long)]
        undo: bool,
    },
    /// Set an instance's relative share of traffic.
    Weights {
        /// Its name.
        name: String,
        /// 1 is normal, 0 none.
        #[arg(allow_negative_numbers = true)]
        weight: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
