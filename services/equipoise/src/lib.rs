//! The `equipoise` binary as a library: subcommands over the services and the simulator.

use std::process::ExitCode;

/// Runs the command line of this process and says how it ended.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
