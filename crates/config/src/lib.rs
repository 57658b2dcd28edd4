//! Fleet files: one TOML file becomes a validated, typed description of a fleet and of its scheduler.
//!
//! Whatever is wrong is said with file, line, column and the mend, before anything starts. State: none; the caller owns
//! what it gets. Does not belong here: command-line options, watching files, anything that talks to an instance.

mod edge;
mod error;
mod fleet_file;
mod instance;

pub use edge::{CustomPattern, PiiAction, PiiSettings, TlsSettings};
pub use error::ConfigError;
pub use fleet_file::FleetFile;
pub use instance::{DeclaredInstance, FleetConfig, UnknownPhysics};
