//! Writing workloads: request by request, in one of our own two formats.

use std::fmt;
use std::io::{self, Write};

use equipoise_types::Timestamp;

use crate::parquet::ParquetSink;
use crate::reader::json_lines::EquipoiseLine;
use crate::{TraceError, WorkloadFormat, WorkloadRecord};

/// Readers take no arrival from here on: 31.7 years.
pub(crate) const MOST_ARRIVAL: Timestamp = Timestamp(1_000_000_000_000_000_000);

/// Writes requests one after the other, holding no more than a row group of them (65,536 in Parquet).
///
/// Parquet columns: `arrival_ns`, `prompt_tokens`, `output_tokens`, and where known `tenant`, `prefix_blocks` (a list) and
/// `prompt_id`. JSON lines: `arrival_s`, exact to the nanosecond for the first 104 days, and the same names.
pub struct WorkloadWriter<W: Write + Send> {
    sink: Sink<W>,
    origin: String,
    written: u64,
}

enum Sink<W: Write + Send> {
    Lines(W),
    Parquet(Box<ParquetSink<W>>),
}

impl<W: Write + Send> WorkloadWriter<W> {
    /// Writes to `output`; `origin` stands for its path in errors.
    ///
    /// # Errors
    /// `format` is not one of ours, or `output` fails.
    pub fn new(output: W, origin: &str, format: WorkloadFormat) -> Result<Self, TraceError> {
        let origin = origin.to_owned();
        let sink = match format {
            WorkloadFormat::EquipoiseJsonl => Sink::Lines(output),
            WorkloadFormat::Parquet => match ParquetSink::new(output) {
                Ok(sink) => Sink::Parquet(Box::new(sink)),
                Err(error) => return Err(unwritten(&origin, 0, error)),
            },
            format => return Err(TraceError::ReadOnly { format }),
        };
        Ok(Self {
            sink,
            origin,
            written: 0,
        })
    }

    /// Writes the next request. A reader expects them by arrival.
    ///
    /// # Errors
    /// The output fails, or the arrival is more than thirty years away.
    pub fn write(&mut self, record: WorkloadRecord) -> Result<(), TraceError> {
        if record.arrival >= MOST_ARRIVAL {
            return Err(TraceError::TooLate {
                origin: self.origin.clone(),
                request: self.written + 1,
            });
        }
        let result = match &mut self.sink {
            Sink::Lines(output) => write_line(output, &record),
            Sink::Parquet(sink) => sink.push(record).map_err(io::Error::other),
        };
        result.map_err(|error| unwritten(&self.origin, self.written, error))?;
        self.written += 1;
        Ok(())
    }

    /// How many were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes what is still held, and a footer where the format has one: without it the file is not whole.
    ///
    /// # Errors
    /// The output fails.
    pub fn finish(self) -> Result<W, TraceError> {
        let flushed = |mut output: W| output.flush().map(|()| output);
        let finished = match self.sink {
            Sink::Lines(output) => flushed(output),
            Sink::Parquet(sink) => sink.finish().map_err(io::Error::other).and_then(flushed),
        };
        finished.map_err(|error| unwritten(&self.origin, self.written, error))
    }
}

impl<W: Write + Send> fmt::Debug for WorkloadWriter<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkloadWriter")
            .field("origin", &self.origin)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

fn unwritten(origin: &str, line: u64, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TraceError {
    TraceError::Io {
        origin: origin.to_owned(),
        line,
        source: io::Error::other(error),
    }
}

/// Writes requests as our JSON lines.
///
/// # Errors
/// When `output` does.
pub fn write_workload(mut output: impl Write, records: &[WorkloadRecord]) -> io::Result<()> {
    for record in records {
        write_line(&mut output, record)?;
    }
    output.flush()
}

fn write_line(mut output: impl Write, record: &WorkloadRecord) -> io::Result<()> {
    serde_json::to_writer(&mut output, &EquipoiseLine::from(record))?;
    output.write_all(b"\n")
}
