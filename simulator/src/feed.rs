//! The one place where a scheduler is called, simulated and replayed alike.

use std::io::Write;

use equipoise_scheduler::{Action, Event, Scheduler};
use equipoise_trace::{EventLogWriter, TraceError};
use equipoise_types::Timestamp;

/// Sees every event with what was answered.
pub(crate) trait Sink {
    /// Whether it wants to: else events are not copied.
    const RECORDS: bool;

    /// Takes one event in.
    fn record(&mut self, at: Timestamp, event: &Event, actions: &[Action]);
}

/// Sees nothing.
#[derive(Debug)]
pub(crate) struct NoSink;

impl Sink for NoSink {
    const RECORDS: bool = false;

    fn record(&mut self, _at: Timestamp, _event: &Event, _actions: &[Action]) {}
}

/// Writes an event log; keeps the first error for the end.
#[derive(Debug)]
pub(crate) struct LogSink<W: Write> {
    writer: EventLogWriter<W>,
    failed: Option<TraceError>,
}

impl<W: Write> LogSink<W> {
    pub(crate) fn new(writer: EventLogWriter<W>) -> Self {
        Self { writer, failed: None }
    }

    pub(crate) fn finish(mut self) -> Result<(), TraceError> {
        self.failed.take().map_or_else(|| self.writer.flush(), Err)
    }
}

impl<W: Write> Sink for LogSink<W> {
    const RECORDS: bool = true;

    fn record(&mut self, at: Timestamp, event: &Event, actions: &[Action]) {
        if self.failed.is_none() {
            self.failed = self.writer.write(at, event, actions).err();
        }
    }
}

/// A scheduler and its reused buffer of actions.
#[derive(Debug)]
pub(crate) struct Feed<S> {
    pub(crate) scheduler: Scheduler,
    pub(crate) sink: S,
}

impl<S: Sink> Feed<S> {
    /// Gives one event and appends what is answered to `actions`, which must be empty.
    pub(crate) fn give(&mut self, at: Timestamp, event: Event, actions: &mut Vec<Action>) {
        let copy = S::RECORDS.then(|| event.clone());
        self.scheduler.on_event(at, event, actions);
        if let Some(event) = copy {
            self.sink.record(at, &event, actions);
        }
    }
}
