//! `equipoise replay`.

use std::process::ExitCode;

use equipoise_simulator::replay;
use equipoise_trace::EventLogReader;

use crate::cli;
use crate::terminal::say;

/// Exit code when a decision differs: the log was read, and the answer is no.
const DIFFERS: u8 = 3;

pub(crate) fn run(options: &cli::Replay) -> anyhow::Result<ExitCode> {
    let report = replay(&mut EventLogReader::open(&options.file)?)?;
    say(report.to_string().trim_end());
    Ok(if report.is_identical() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DIFFERS)
    })
}
