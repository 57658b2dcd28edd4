//! The `equipoise` binary as a library: subcommands over the services and the simulator.
//!
//! Every subcommand is a file. Here is only wiring: what a service does is in its own crate.

mod agent;
mod calibrate;
mod cli;
mod config;
mod control_plane;
mod doors;
mod emulation;
mod emulator;
mod explain;
mod fleet;
mod host;
mod instance;
mod key;
mod predictor;
mod reload;
mod replay;
mod report;
mod requests;
mod router;
mod scheduling;
mod secured;
mod signal;
mod simulate;
mod sweep;
mod terminal;
mod trace;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// Every request takes and gives back buffers of several KiB, which glibc's allocator takes apart and joins again each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a run that failed; clap exits with 2 for bad usage.
const FAILED: u8 = 1;

/// Runs the command line of this process and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            terminal::complain(&format!("error: {}", causes(&error)));
            ExitCode::from(FAILED)
        }
    }
}

/// An error and its causes on one line each, without repeating what the one above has said.
fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str("\n  because: ");
            text.push_str(&cause);
        }
    }
    text
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(options) => serve(cli.log_format, up::run(options)),
        Command::ControlPlane(options) => serve(cli.log_format, control_plane::run(options)),
        Command::Router(options) => serve(cli.log_format, router::run(options)),
        Command::Agent(options) => serve(cli.log_format, agent::run(options)),
        Command::Emulator(options) => serve(cli.log_format, emulator::run(options)),
        Command::Simulate(options) => simulate::run(&options),
        Command::Sweep(options) => sweep::run(&options),
        Command::Trace(options) => trace::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Report(options) => ask(report::run(options)),
        Command::Fleet(options) => ask(fleet::run(options)),
        Command::Predictor(options) => predictor::run(&options),
        Command::Calibrate(options) => calibrate::run(&options),
        Command::Explain(options) => ask(explain::run(options)),
        Command::Config(options) => config::run(&options),
        Command::Key(options) => key::run(&options).map(|()| ExitCode::SUCCESS),
    }
}

/// Runs a service: logs, and all cores.
fn serve(format: cli::LogFormat, service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    equipoise_telemetry::init_logging(format.into())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(service)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a short question to a control plane: no logs, one thread.
fn ask(question: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(question)?;
    Ok(ExitCode::SUCCESS)
}
