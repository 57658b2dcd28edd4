//! Configuration files and scenario files: a TOML file becomes a validated, typed description of a fleet, of its scheduler and
//! of what the services are told, or of everything that a simulation does.
//!
//! Whatever is wrong is said with file, line, column and the mend, before anything starts; [`check`] says all of it at once, and
//! [`schema`] gives the file's JSON Schema. State: none; the caller owns what it gets. Does not belong here: command-line
//! options, watching files, anything that talks to an instance.

mod check;
mod edge;
mod error;
mod fleet_file;
mod instance;
mod scenario;
mod scenario_file;
mod schema;
mod services;

pub use check::{Checked, check};
pub use edge::{CustomPattern, EngineTlsSettings, PiiAction, PiiSettings, TlsSettings};
pub use error::ConfigError;
pub use fleet_file::{ConfigFile, FleetFile};
pub use instance::{DeclaredInstance, FleetConfig, UnknownPhysics};
pub use scenario::{
    ArmConfig, ArrivalsConfig, AutoscalingConfig, AutoscalingTarget, DataPath, FacilityConfig, FaultConfig, FaultKind,
    GeneratorConfig, LengthsConfig, MismatchConfig, NetworkConfig, PromptsConfig, RackConfig, ScenarioConfig,
    SloConfig, SweepConfig, TraceConfig, TraceScaling, WorkloadConfig, WorkloadSource,
};
pub use scenario_file::ScenarioFile;
pub use schema::schema;
pub use services::{Address, AgentSection, ControlPlaneSection, RouterSection, Services, TracingSection};
