//! Fleet files and scenario files: a TOML file becomes a validated, typed description of a fleet and of its scheduler, or
//! of everything that a simulation does.
//!
//! Whatever is wrong is said with file, line, column and the mend, before anything starts. State: none; the caller owns
//! what it gets. Does not belong here: command-line options, watching files, anything that talks to an instance.

mod error;
mod fleet_file;
mod instance;
mod scenario;
mod scenario_file;

pub use error::ConfigError;
pub use fleet_file::FleetFile;
pub use instance::{DeclaredInstance, FleetConfig, UnknownPhysics};
pub use scenario::{
    ArmConfig, ArrivalsConfig, AutoscalingConfig, AutoscalingTarget, DataPath, FacilityConfig, FaultConfig, FaultKind,
    GeneratorConfig, LengthsConfig, MismatchConfig, NetworkConfig, PromptsConfig, RackConfig, ScenarioConfig,
    SloConfig, SweepConfig, TraceConfig, TraceScaling, WorkloadConfig, WorkloadSource,
};
pub use scenario_file::ScenarioFile;
