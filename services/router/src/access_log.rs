//! The access log: one JSON object a line for every request that ended. Formatted and written by a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::sync::mpsc;

/// Lines that may wait for the writer; further ones are dropped and counted.
const WAITING: usize = 4096;

/// One line. Its fields are documented in docs/observability.md, and stay.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// When the request had ended, nanoseconds since the Unix epoch; written as RFC 3339 in UTC.
    #[serde(serialize_with = "as_time")]
    pub(crate) time: u64,
    pub(crate) request_id: String,
    pub(crate) trace_id: Option<String>,
    pub(crate) door: &'static str,
    pub(crate) path: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) requested_model: String,
    pub(crate) model: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) decision: Option<String>,
    pub(crate) stream: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) prompt_tokens: Option<u32>,
    pub(crate) output_tokens: Option<u32>,
    pub(crate) ttft_ms: Option<f64>,
    pub(crate) e2e_ms: f64,
    pub(crate) queue_ms: Option<f64>,
    pub(crate) joules: Option<f64>,
    pub(crate) retries: u32,
}

fn as_time<S: serde::Serializer>(unix_ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*unix_ns))
}

/// A Unix time as RFC 3339, to the millisecond. Days to a date by Howard Hinnant's `civil_from_days`.
fn rfc3339(unix_ns: u64) -> String {
    let (seconds, ms) = (unix_ns / 1_000_000_000, unix_ns / 1_000_000 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years from March, in eras of 400 of them, since 0000-03-01.
    let since = days + 719_468;
    let (era, of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

impl From<&str> for AccessLogTarget {
    /// `-` or a path.
    fn from(text: &str) -> Self {
        match text {
            "-" => Self::Stdout,
            path => Self::File(path.into()),
        }
    }
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog(mpsc::Sender<Line>);

impl AccessLog {
    /// Opens it and starts its thread, which ends with the last clone of this.
    pub(crate) fn open(target: &AccessLogTarget) -> std::io::Result<Self> {
        let writer: Box<dyn Write + Send> = match target {
            AccessLogTarget::Stdout => Box::new(std::io::stdout()),
            AccessLogTarget::File(path) => Box::new(append(path)?),
        };
        let (sender, lines) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(BufWriter::new(writer), lines))?;
        Ok(Self(sender))
    }

    /// Hands a line over; false where the writer cannot keep up.
    pub(crate) fn put(&self, line: Line) -> bool {
        self.0.try_send(line).is_ok()
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes what comes, and hands it to the operating system whenever nothing more waits.
fn write(mut writer: impl Write, mut lines: mpsc::Receiver<Line>) {
    let mut complained = false;
    while let Some(line) = lines.blocking_recv() {
        let written = serde_json::to_writer(&mut writer, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| writer.write_all(b"\n"))
            .and_then(|()| if lines.is_empty() { writer.flush() } else { Ok(()) });
        // A full disk is no reason to stop, nor to say so with every request.
        if let Err(error) = &written
            && !std::mem::replace(&mut complained, true)
        {
            tracing::error!("the access log cannot be written: {error}");
        }
        complained &= written.is_err();
    }
    drop(writer.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_read_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_399, "2000-02-28T23:59:59.250Z"),
            (951_868_800, "2000-03-01T00:00:00.250Z"),
            (1_709_164_800, "2024-02-29T00:00:00.250Z"),
            (4_102_444_799, "2099-12-31T23:59:59.250Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000 + 250_000_000), text);
        }
    }
}
