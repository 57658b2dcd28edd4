//! Configuration files: one TOML file becomes a validated, typed description of a fleet, of its scheduler, and of what the
//! services are told.
//!
//! Whatever is wrong is said with file, line, column and the mend, before anything starts; [`check`] says all of it at once, and
//! [`schema`] gives the file's JSON Schema. State: none; the caller owns what it gets. Does not belong here: command-line
//! options, watching files, anything that talks to an instance.

mod check;
mod error;
mod fleet_file;
mod instance;
mod schema;
mod services;

pub use check::{Checked, check};
pub use error::ConfigError;
pub use fleet_file::{ConfigFile, FleetFile};
pub use instance::{DeclaredInstance, FleetConfig, UnknownPhysics};
pub use schema::schema;
pub use services::{Address, AgentSection, ControlPlaneSection, RouterSection, Services, TracingSection};
