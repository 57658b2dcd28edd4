//! Workloads: requests with arrival times and sizes, from published traces or our own files.

mod azure;
mod json;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use equipoise_types::Timestamp;

use crate::TraceError;
use crate::error::excerpt;
use crate::lines::Lines;
use azure::AzureColumns;

/// Prompt tokens that one of Mooncake's `hash_ids` stands for.
pub const MOONCAKE_BLOCK_TOKENS: u32 = 512;

/// One request of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRecord {
    /// When it arrives, from the start of the workload.
    pub arrival: Timestamp,
    /// Prompt length, tokens; at least 1.
    pub prompt_tokens: u32,
    /// Answer length, tokens; at least 1. True of the trace, unknown to a scheduler.
    pub output_tokens: u32,
    /// Ids of the prompt's leading blocks, where known: equal ids are equal text with an equal text before it.
    pub prefix_blocks: Option<Vec<u64>>,
    /// Who asks, where known.
    pub tenant: Option<String>,
}

/// A format of workload files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadFormat {
    /// CSV of Azure's public traces of 2023 and 2024: `TIMESTAMP,ContextTokens,GeneratedTokens`.
    AzureCsv,
    /// JSON lines of Mooncake: `{"timestamp": ms, "input_length", "output_length", "hash_ids"}`.
    MooncakeJsonl,
    /// Our JSON lines: `{"arrival_s", "prompt_tokens", "output_tokens", "prefix_blocks"?, "tenant"?}`.
    EquipoiseJsonl,
}

/// What to do with a line that is not what its format asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Malformed {
    /// Stop with an error that names it.
    #[default]
    Fail,
    /// Leave it out and count it.
    Skip,
}

/// How to read a workload.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The format; `None`: as the first line tells.
    pub format: Option<WorkloadFormat>,
    /// What to do with malformed lines.
    pub malformed: Malformed,
    /// Only so many requests from the start of the file.
    pub limit: Option<usize>,
}

/// A workload in memory, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The requests, by arrival; those that arrive together keep the order of the file.
    pub records: Vec<WorkloadRecord>,
    /// What was mended on the way in and should be said to the user.
    pub notes: Vec<String>,
}

impl Workload {
    /// Reads a file. Arrivals of a format with dates start at zero; a file that is not in order is sorted, and a note
    /// says so.
    ///
    /// # Errors
    /// The file cannot be read, its format is unknown, a line is malformed (unless skipped), or it has no request.
    pub fn load(path: &Path, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::collect(WorkloadReader::open(path, options)?, options.limit)
    }

    /// The same from anything that can be read; `origin` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Workload::load`].
    pub fn read(input: impl BufRead, origin: &str, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::collect(WorkloadReader::new(input, origin, options)?, options.limit)
    }

    fn collect<R: BufRead>(mut reader: WorkloadReader<R>, limit: Option<usize>) -> Result<Self, TraceError> {
        let mut records = Vec::new();
        for record in reader.by_ref().take(limit.unwrap_or(usize::MAX)) {
            records.push(record?);
        }
        if records.is_empty() {
            return Err(TraceError::Empty {
                origin: reader.lines.origin().to_owned(),
            });
        }
        let mut notes = reader.notes();
        let late = records
            .windows(2)
            .filter(|pair| pair[1].arrival < pair[0].arrival)
            .count();
        if late > 0 {
            records.sort_by_key(|record| record.arrival);
            notes.push(format!(
                "{late} requests arrived before the line above them: sorted by arrival"
            ));
        }
        if reader.format == WorkloadFormat::AzureCsv {
            let first = records[0].arrival;
            for record in &mut records {
                record.arrival = Timestamp::ZERO + record.arrival.since(first);
            }
        }
        Ok(Self { records, notes })
    }

    /// From the start to the last arrival.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.records
            .last()
            .map_or(Duration::ZERO, |last| last.arrival.since(Timestamp::ZERO))
    }

    /// Mean arrivals per second between the first and the last; `None` if they have no distance.
    #[must_use]
    pub fn rate_per_s(&self) -> Option<f64> {
        let (first, last) = (self.records.first()?, self.records.last()?);
        let span_s = last.arrival.secs_since(first.arrival);
        (span_s > 0.0).then(|| (self.records.len() - 1) as f64 / span_s)
    }

    /// Squeezes or stretches the gaps so that the mean rate becomes `rate_per_s`, keeping their pattern. Nothing happens
    /// where there is no rate, or the wanted one is not positive.
    pub fn scale_to_rate(&mut self, rate_per_s: f64) {
        let Some(rate) = self.rate_per_s() else { return };
        if !(rate_per_s.is_finite() && rate_per_s > 0.0) {
            return;
        }
        let factor = rate / rate_per_s;
        for record in &mut self.records {
            record.arrival = Timestamp::from_secs_f64(record.arrival.as_secs_f64() * factor);
        }
    }
}

/// Reads a workload line by line, in the order of the file, with bounded memory.
///
/// Arrivals are as in the file: since 1970 where it has dates. After an error about a line the reader can go on.
#[derive(Debug)]
pub struct WorkloadReader<R> {
    lines: Lines<R>,
    format: WorkloadFormat,
    columns: Option<AzureColumns>,
    malformed: Malformed,
    /// The line that told the format is a request itself.
    pending: bool,
    done: bool,
    skipped: u64,
    first_skipped: Option<String>,
    raised: u64,
}

impl WorkloadReader<BufReader<File>> {
    /// Opens a file and finds out its format.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or its format is unknown.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::begin(Lines::open(path)?, options)
    }
}

impl<R: BufRead> WorkloadReader<R> {
    /// The same over anything that can be read; `origin` stands for the path in errors.
    ///
    /// # Errors
    /// As [`WorkloadReader::open`].
    pub fn new(input: R, origin: &str, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::begin(Lines::new(input, origin.to_owned()), options)
    }

    fn begin(mut lines: Lines<R>, options: &ReadOptions) -> Result<Self, TraceError> {
        if !lines.advance()? {
            return Err(TraceError::Empty {
                origin: lines.origin().to_owned(),
            });
        }
        let Some(format) = options.format.or_else(|| detect(lines.current())) else {
            return Err(TraceError::UnknownFormat {
                origin: lines.origin().to_owned(),
                line: lines.number(),
                found: excerpt(lines.current()),
            });
        };
        let columns = match format {
            WorkloadFormat::AzureCsv => Some(AzureColumns::of_header(&lines)?),
            WorkloadFormat::MooncakeJsonl | WorkloadFormat::EquipoiseJsonl => None,
        };
        Ok(Self {
            lines,
            format,
            pending: columns.is_none(),
            columns,
            malformed: options.malformed,
            done: false,
            skipped: 0,
            first_skipped: None,
            raised: 0,
        })
    }

    /// The format it reads.
    #[must_use]
    pub fn format(&self) -> WorkloadFormat {
        self.format
    }

    /// Malformed lines left out so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// What was mended so far, in words.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = &self.first_skipped {
            notes.push(format!("{} malformed lines skipped, the first: {first}", self.skipped));
        }
        if self.raised > 0 {
            notes.push(format!(
                "{} requests with 0 prompt or output tokens: counted as 1",
                self.raised
            ));
        }
        notes
    }

    fn parse(&mut self) -> Result<WorkloadRecord, TraceError> {
        let mut record = match (self.format, &self.columns) {
            (WorkloadFormat::MooncakeJsonl, _) => json::mooncake(&self.lines)?,
            (WorkloadFormat::AzureCsv, Some(columns)) => columns.record(&self.lines)?,
            (WorkloadFormat::EquipoiseJsonl | WorkloadFormat::AzureCsv, _) => json::equipoise(&self.lines)?,
        };
        if record.prompt_tokens == 0 || record.output_tokens == 0 {
            self.raised += 1;
            record.prompt_tokens = record.prompt_tokens.max(1);
            record.output_tokens = record.output_tokens.max(1);
        }
        Ok(record)
    }

    /// Reads the next line; `None` at the end of the file.
    fn step(&mut self) -> Option<Result<WorkloadRecord, TraceError>> {
        if !std::mem::take(&mut self.pending) {
            match self.lines.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    // A device that failed would fail for ever.
                    self.done = matches!(error, TraceError::Io { .. });
                    return Some(Err(error));
                }
            }
        }
        Some(self.parse())
    }
}

impl<R: BufRead> Iterator for WorkloadReader<R> {
    type Item = Result<WorkloadRecord, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.step() {
                Some(Err(error @ TraceError::Malformed { .. })) if self.malformed == Malformed::Skip => {
                    self.skipped += 1;
                    self.first_skipped.get_or_insert_with(|| error.to_string());
                }
                Some(item) => return Some(item),
                None => self.done = true,
            }
        }
        None
    }
}

/// The format by a file's first line.
fn detect(line: &str) -> Option<WorkloadFormat> {
    if line.starts_with('{') {
        return if line.contains("\"input_length\"") {
            Some(WorkloadFormat::MooncakeJsonl)
        } else {
            line.contains("\"prompt_tokens\"")
                .then_some(WorkloadFormat::EquipoiseJsonl)
        };
    }
    line.to_ascii_lowercase()
        .contains("contexttokens")
        .then_some(WorkloadFormat::AzureCsv)
}

/// Writes requests as our JSON lines.
///
/// # Errors
/// When `output` does.
pub fn write_workload(mut output: impl Write, records: &[WorkloadRecord]) -> io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut output, &json::EquipoiseLine::from(record))?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests;
