//! A validated scenario: everything that decides what a simulation does.

use std::path::PathBuf;

use equipoise_policy::PolicySettings;

use crate::FleetConfig;

/// A whole scenario file, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenarioConfig {
    /// What it is called in reports.
    pub name: String,
    /// The fleet and, unless an arm says otherwise, its scheduler.
    pub fleet: FleetConfig,
    /// What is asked of it.
    pub workload: WorkloadConfig,
    /// Policies with settings, to be compared. At least one.
    pub arms: Vec<ArmConfig>,
    /// Seeds; each arm runs once with each. At least one.
    pub seeds: Vec<u64>,
    /// What a sweep adds.
    pub sweep: SweepConfig,
    /// What every request asks for.
    pub slo: Option<SloConfig>,
    /// How far the engines are from what the scheduler believes.
    pub mismatch: MismatchConfig,
    /// How the router, the engines and the control plane are joined.
    pub network: NetworkConfig,
    /// What goes wrong, and when.
    pub faults: Vec<FaultConfig>,
    /// Pools that grow and shrink.
    pub autoscaling: Vec<AutoscalingConfig>,
    /// Instances that share a power cap.
    pub racks: Vec<RackConfig>,
    /// From GPUs to the facility's meter and the grid.
    pub facility: FacilityConfig,
}

/// One policy with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmConfig {
    /// Unique in the scenario.
    pub label: String,
    /// The policy's name.
    pub policy: String,
    /// What it is told.
    pub settings: PolicySettings,
}

/// The axes that only a sweep runs along.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepConfig {
    /// Mean requests per second, in place of the workload's; empty: the workload's alone.
    pub rates_per_s: Vec<f64>,
    /// More arms: presets and other weights of `equipoise`.
    pub arms: Vec<ArmConfig>,
    /// More seeds.
    pub seeds: Vec<u64>,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadConfig {
    /// The arrivals.
    pub source: WorkloadSource,
    /// So many requests at most.
    pub requests: Option<usize>,
    /// Let every request ask a prompt of this graded set.
    pub prompts: Option<PromptsConfig>,
}

/// A trace or a generator.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkloadSource {
    /// A recorded trace.
    Trace(TraceConfig),
    /// Drawn from a seed.
    Generated(GeneratorConfig),
}

/// A recorded trace, or a segment of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// Where it is.
    pub path: DataPath,
    /// The name of its format; `None`: as its first bytes tell.
    pub format: Option<String>,
    /// Nothing before this, seconds from its start.
    pub from_s: f64,
    /// Nothing from this on.
    pub to_s: Option<f64>,
    /// Mean requests per second that it is brought to; `None`: as recorded.
    pub rate_per_s: Option<f64>,
    /// How.
    pub scaling: TraceScaling,
}

/// How a trace is brought to another rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceScaling {
    /// All times are multiplied.
    #[default]
    Time,
    /// Requests are left out, or come several times; bursts stay as long as they are.
    Rate,
}

/// A file: relative to the scenario file, or to the data folder that the user names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// Resolved already.
    File(PathBuf),
    /// Written `data:PATH`.
    Data(PathBuf),
}

/// A generator of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneratorConfig {
    /// How they come.
    pub arrivals: ArrivalsConfig,
    /// Mean requests per second.
    pub rate_per_s: f64,
    /// None later than this, seconds.
    pub duration_s: Option<f64>,
    /// Prompt lengths; `None`: Azure's conversations of 2023.
    pub prompt_tokens: Option<LengthsConfig>,
    /// Answer lengths; the same.
    pub output_tokens: Option<LengthsConfig>,
    /// Gaps are stretched so that the last of N requests comes at exactly N / rate.
    pub exact_rate: bool,
    /// The same arrivals under every seed of the scenario: this one's.
    pub seed: Option<u64>,
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ArrivalsConfig {
    /// Independent of one another.
    Poisson,
    /// Gaps of a Gamma distribution with this coefficient of variation.
    Gamma {
        /// Standard deviation over mean.
        cv: f64,
    },
    /// High and low in turns.
    Square {
        /// Share of the mean by which the rate goes up and down.
        swing: f64,
        /// Seconds from one rise to the next.
        period_s: f64,
    },
    /// A sine.
    Diurnal {
        /// Share of the mean by which the rate goes up and down.
        swing: f64,
        /// Seconds from one lowest point to the next.
        period_s: f64,
    },
}

/// Log-normal lengths, tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LengthsConfig {
    /// Mean before the cut.
    pub mean: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
    /// Longer ones are cut to this.
    pub most: u32,
}

/// A graded set of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptsConfig {
    /// ZeroEval, from the data folder.
    ZeroEval,
}

/// An SLO that every request carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SloConfig {
    /// Time to first token, seconds.
    pub ttft_s: Option<f64>,
    /// Time to last token, seconds.
    pub e2e_s: Option<f64>,
    /// With which probability, in (0, 1).
    pub confidence: f64,
    /// False: only counted, the scheduler is not told.
    pub enforced: bool,
}

/// Standard deviations of logarithms of step times, and stalls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MismatchConfig {
    /// Each instance's own level: mis-calibration.
    pub speed_sd: f64,
    /// Each step.
    pub noise_sd: f64,
    /// Swings in the course of minutes.
    pub drift_sd: f64,
    /// Share of steps that stall.
    pub stall_share: f64,
}

/// How the parts are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Way from a router to an instance, seconds.
    pub hop_s: f64,
    /// Time between two samples of an instance, seconds.
    pub telemetry_interval_s: f64,
    /// Routers that share the requests.
    pub routers: u32,
    /// Time between two reports of the fleet to several routers, seconds.
    pub state_interval_s: f64,
    /// How old they are on arrival, seconds.
    pub state_age_s: f64,
    /// Share of answers with feedback, [0, 1].
    pub feedback_share: f64,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultConfig {
    /// From when on, seconds from the start.
    pub at_s: f64,
    /// Until when; `None`: to the end.
    pub until_s: Option<f64>,
    /// What.
    pub kind: FaultKind,
}

/// What goes wrong. Instances are indices into [`FleetConfig::instances`].
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// The process is gone with everything in it; connections are refused.
    Crash {
        /// Which.
        instances: Vec<usize>,
    },
    /// Every step takes so many times as long.
    Slow {
        /// Which.
        instances: Vec<usize>,
        /// Above zero.
        factor: f64,
    },
    /// A router's process is gone, and its clients' connections with it.
    RouterAway {
        /// Which, from 0.
        router: u32,
    },
    /// Nobody tells routers anything: their state is frozen.
    ControlPlaneAway,
    /// Samples come later, and say so.
    TelemetryLate {
        /// Which.
        instances: Vec<usize>,
        /// By so much, seconds.
        delay_s: f64,
    },
    /// Samples do not come.
    TelemetryLost {
        /// Which.
        instances: Vec<usize>,
        /// Each with this probability.
        share: f64,
    },
}

/// A pool that grows and shrinks with its load. Its instances in the fleet file are the most there can be.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalingConfig {
    /// The pool's name.
    pub pool: String,
    /// Its instances.
    pub instances: Vec<usize>,
    /// At least so many serve.
    pub min: usize,
    /// At most.
    pub max: usize,
    /// What it holds.
    pub target: AutoscalingTarget,
    /// From the decision to the first request, seconds: load the weights, warm up. `None`: by the model's size.
    pub start_up_s: Option<f64>,
    /// None is taken away before so long after the last change, seconds.
    pub cool_down_s: f64,
    /// Time between two decisions, seconds.
    pub interval_s: f64,
}

/// What an autoscaler holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutoscalingTarget {
    /// Requests in flight per instance that serves.
    InFlight(f64),
    /// Requests that wait, at the routers and in the pool's engines, per instance that serves.
    Queue(f64),
}

/// Instances under one power cap.
#[derive(Clone, Debug, PartialEq)]
pub struct RackConfig {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub instances: Vec<usize>,
    /// Most that its GPUs may draw together.
    pub cap_watts: f64,
    /// Time between two allotments of the cap, seconds.
    pub interval_s: f64,
}

/// From the GPUs to the facility's meter and the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct FacilityConfig {
    /// Power usage effectiveness, 1 at least.
    pub pue: f64,
    /// Grams of CO2 equivalent per kWh: empty (not known), one for all times, or one for each hour of the day that begins
    /// with the workload.
    pub carbon_g_per_kwh: Vec<f64>,
}
