//! The event log: what a scheduler was told and what it answered, as JSON lines.
//!
//! The first line says which scheduler it was, `{"equipoise_event_log":1,"scheduler":{…}}`; every other line is one event,
//! `{"at":nanoseconds,"event":{…},"actions":[…]}`. Fleet changes are events like any other, so a log is complete: a fresh
//! scheduler that is fed the same events must answer the same bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use equipoise_scheduler::{Action, Event, SchedulerConfig};
use equipoise_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::TraceError;
use crate::error::{excerpt, json_reason};
use crate::lines::Lines;

/// The version that is written and read.
const VERSION: u32 = 1;

/// The first line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventLogHeader {
    /// The version of the format: 1.
    pub equipoise_event_log: u32,
    /// How the scheduler was set up.
    pub scheduler: SchedulerConfig,
}

/// One event as it was logged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedEvent {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// What the scheduler answered: the JSON of its actions, byte for byte as written.
    pub actions: Box<RawValue>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    event: &'a Event,
    actions: &'a [Action],
}

/// Writes a log through a buffer. Call [`EventLogWriter::flush`] at the end, and now and then while live.
#[derive(Debug)]
pub struct EventLogWriter<W: Write> {
    output: W,
    origin: String,
    line: u64,
}

impl EventLogWriter<BufWriter<File>> {
    /// Creates the file, or empties it, and writes the header.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn create(path: &Path, scheduler: &SchedulerConfig) -> Result<Self, TraceError> {
        let origin = path.display().to_string();
        match File::create(path) {
            Ok(file) => Self::new(BufWriter::with_capacity(1 << 16, file), &origin, scheduler),
            Err(source) => Err(TraceError::Open { origin, source }),
        }
    }
}

impl<W: Write> EventLogWriter<W> {
    /// Writes the header; `output` should buffer, `origin` stands for its path in errors.
    ///
    /// # Errors
    /// When `output` fails.
    pub fn new(output: W, origin: &str, scheduler: &SchedulerConfig) -> Result<Self, TraceError> {
        let mut writer = Self {
            output,
            origin: origin.to_owned(),
            line: 0,
        };
        writer.put(&EventLogHeader {
            equipoise_event_log: VERSION,
            scheduler: scheduler.clone(),
        })?;
        Ok(writer)
    }

    /// Appends one event and what was answered.
    ///
    /// # Errors
    /// When the output fails.
    pub fn write(&mut self, at: Timestamp, event: &Event, actions: &[Action]) -> Result<(), TraceError> {
        self.put(&Line { at, event, actions })
    }

    fn put(&mut self, value: &impl Serialize) -> Result<(), TraceError> {
        self.line += 1;
        let written = serde_json::to_writer(&mut self.output, value).map_err(Into::into);
        written
            .and_then(|()| self.output.write_all(b"\n"))
            .map_err(|source| TraceError::Io {
                origin: self.origin.clone(),
                line: self.line,
                source,
            })
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// When the output fails.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.output.flush().map_err(|source| TraceError::Io {
            origin: self.origin.clone(),
            line: self.line,
            source,
        })
    }
}

/// Reads a log, event by event.
#[derive(Debug)]
pub struct EventLogReader<R> {
    lines: Lines<R>,
    header: EventLogHeader,
    truncated_at: Option<u64>,
    done: bool,
}

impl EventLogReader<BufReader<File>> {
    /// Opens a log and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, or is no event log of this version.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        Self::begin(Lines::open(path)?)
    }
}

impl<R: BufRead> EventLogReader<R> {
    /// The same over anything that can be read; `origin` stands for the path in errors.
    ///
    /// # Errors
    /// As [`EventLogReader::open`].
    pub fn new(input: R, origin: &str) -> Result<Self, TraceError> {
        Self::begin(Lines::new(input, origin.to_owned()))
    }

    fn begin(mut lines: Lines<R>) -> Result<Self, TraceError> {
        const EXPECTED: &str = "the first line of an event log, `{\"equipoise_event_log\":1,\"scheduler\":{…}}`";
        #[derive(Deserialize)]
        struct Version {
            equipoise_event_log: u32,
        }
        if !lines.advance()? {
            return Err(lines.malformed(EXPECTED, "an empty file"));
        }
        // The version first, so that another one is not reported as a missing field.
        let version: Version =
            serde_json::from_str(lines.current()).map_err(|_| lines.malformed(EXPECTED, excerpt(lines.current())))?;
        if version.equipoise_event_log != VERSION {
            let found = format!(
                "version {}: read it with the release that wrote it",
                version.equipoise_event_log
            );
            return Err(lines.malformed(format!("event log version {VERSION}"), found));
        }
        let header = serde_json::from_str(lines.current())
            .map_err(|error| lines.malformed("the scheduler's configuration", json_reason(&error)))?;
        Ok(Self {
            lines,
            header,
            truncated_at: None,
            done: false,
        })
    }

    /// How the scheduler was set up.
    #[must_use]
    pub fn header(&self) -> &EventLogHeader {
        &self.header
    }

    /// The number of the line read last.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// The path, for messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.lines.origin()
    }

    /// The last line's number, if its writer died in the middle of it and it was left out.
    #[must_use]
    pub fn truncated_at(&self) -> Option<u64> {
        self.truncated_at
    }
}

impl<R: BufRead> Iterator for EventLogReader<R> {
    type Item = Result<LoggedEvent, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let advanced = self.lines.advance();
        if matches!(advanced, Ok(false) | Err(_)) {
            self.done = true;
            // A process that is killed may leave half a character behind.
            if advanced.is_err() && !self.lines.complete() {
                self.truncated_at = Some(self.lines.number());
                return None;
            }
            return advanced.err().map(Err);
        }
        match serde_json::from_str(self.lines.current()) {
            Ok(logged) => Some(Ok(logged)),
            Err(_) if !self.lines.complete() => {
                self.done = true;
                self.truncated_at = Some(self.lines.number());
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(self.lines.malformed(
                    "`{\"at\":ns,\"event\":…,\"actions\":[…]}`",
                    json_reason(&error),
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests;
