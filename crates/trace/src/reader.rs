//! Reading workloads: request by request, in order of arrival, with bounded memory.

mod azure;
mod benchmark;
mod burst_gpt;
mod csv;
pub(crate) mod json_lines;
mod text;

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use equipoise_types::Timestamp;

use crate::error::excerpt;
use crate::input::{Peeked, open_file, peek, peek_file};
use crate::order::Window;
use crate::parquet::ParquetSource;
use crate::{ServeGenClients, ServeGenOptions, ServeGenRequests, TraceError, WorkloadFormat, WorkloadRecord};
use text::TextSource;

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
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The format; `None`: as the file's first bytes tell.
    pub format: Option<WorkloadFormat>,
    /// What to do with malformed lines.
    pub malformed: Malformed,
    /// Only so many requests from the start of the file.
    pub limit: Option<usize>,
    /// So many requests at most are held by a [`WorkloadReader`] to put those right that are out of order.
    pub window: usize,
    /// What to generate where the file is a set of ServeGen clients.
    pub serve_gen: ServeGenOptions,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            malformed: Malformed::Fail,
            limit: None,
            window: 65_536,
            serve_gen: ServeGenOptions::default(),
        }
    }
}

/// One format's requests, as its file has them.
pub(crate) trait RecordSource {
    /// The next one; `None` at the end. After an error about one request the next may be asked for.
    fn next_record(&mut self) -> Option<Result<WorkloadRecord, TraceError>>;

    /// The line of the last one, counted from 1, where the format has lines.
    fn line(&self) -> Option<u64> {
        None
    }

    /// What was mended or left out so far, in words.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A file's requests in its own order, with what every format shares: a limit, malformed lines, lengths of zero.
pub(crate) struct Unordered<'a> {
    source: Box<dyn RecordSource + 'a>,
    pub(crate) format: WorkloadFormat,
    pub(crate) origin: String,
    malformed: Malformed,
    left: usize,
    skipped: u64,
    first_skipped: Option<String>,
    raised: u64,
}

impl<'a> Unordered<'a> {
    pub(crate) fn open(path: &Path, options: &ReadOptions) -> Result<Self, TraceError> {
        let origin = path.display().to_string();
        let other_format = |format| options.format.is_some_and(|asked| asked != format);
        if path.is_dir() && !other_format(WorkloadFormat::ServeGen) {
            let clients = ServeGenClients::open_folder(path)?;
            let source = Box::new(ServeGenSource::new(clients, &origin, options)?);
            return Ok(Self::over(source, WorkloadFormat::ServeGen, origin, options));
        }
        if is_parquet(path)? && !other_format(WorkloadFormat::Parquet) {
            let source = Box::new(ParquetSource::new(open_file(path)?, origin.clone())?);
            return Ok(Self::over(source, WorkloadFormat::Parquet, origin, options));
        }
        Self::begin(peek_file(path)?, origin, options)
    }

    pub(crate) fn new(input: impl BufRead + 'a, origin: &str, options: &ReadOptions) -> Result<Self, TraceError> {
        let peeked = peek(input).map_err(|source| failed(origin, source))?;
        Self::begin(peeked, origin.to_owned(), options)
    }

    fn begin(peeked: Peeked<Box<dyn BufRead + 'a>>, origin: String, options: &ReadOptions) -> Result<Self, TraceError> {
        let head = peeked.head();
        if head.trim_ascii().is_empty() {
            return Err(TraceError::Empty { origin });
        }
        let Some(format) = options.format.or_else(|| WorkloadFormat::detect(head)) else {
            let found = excerpt(String::from_utf8_lossy(head).trim().lines().next().unwrap_or_default());
            return Err(TraceError::UnknownFormat { origin, found });
        };
        let source: Box<dyn RecordSource + 'a> = match format {
            WorkloadFormat::AzureCsv
            | WorkloadFormat::BurstGptCsv
            | WorkloadFormat::MooncakeJsonl
            | WorkloadFormat::EquipoiseJsonl => TextSource::new(peeked.into_stream(), origin.clone(), format)?,
            WorkloadFormat::VllmJson => Box::new(benchmark::vllm(peeked.into_stream(), &origin)?),
            WorkloadFormat::GuidellmJson => Box::new(benchmark::guidellm(peeked.into_stream(), &origin)?),
            WorkloadFormat::Parquet => {
                // Its table of contents is at the end: what is no file has to be in memory.
                let mut bytes = Vec::new();
                let mut stream = peeked.into_stream();
                stream
                    .read_to_end(&mut bytes)
                    .map_err(|source| failed(&origin, source))?;
                Box::new(ParquetSource::new(Bytes::from(bytes), origin.clone())?)
            }
            WorkloadFormat::ServeGen => {
                let clients = ServeGenClients::read_tar(peeked.into_stream(), &origin)?;
                Box::new(ServeGenSource::new(clients, &origin, options)?)
            }
        };
        Ok(Self::over(source, format, origin, options))
    }

    fn over(source: Box<dyn RecordSource + 'a>, format: WorkloadFormat, origin: String, options: &ReadOptions) -> Self {
        Self {
            source,
            format,
            origin,
            malformed: options.malformed,
            left: options.limit.unwrap_or(usize::MAX),
            skipped: 0,
            first_skipped: None,
            raised: 0,
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.source.notes();
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
}

impl Iterator for Unordered<'_> {
    type Item = Result<WorkloadRecord, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            match self.source.next_record() {
                Some(Err(error @ TraceError::Malformed { .. })) if self.malformed == Malformed::Skip => {
                    self.skipped += 1;
                    self.first_skipped.get_or_insert_with(|| error.to_string());
                }
                Some(Err(error)) => {
                    // A device that failed would fail for ever; after a bad line there may be good ones.
                    if !matches!(error, TraceError::Malformed { .. }) {
                        self.left = 0;
                    }
                    return Some(Err(error));
                }
                Some(Ok(mut record)) => {
                    self.left -= 1;
                    if record.prompt_tokens == 0 || record.output_tokens == 0 {
                        self.raised += 1;
                        record.prompt_tokens = record.prompt_tokens.max(1);
                        record.output_tokens = record.output_tokens.max(1);
                    }
                    return Some(Ok(record));
                }
                None => self.left = 0,
            }
        }
        None
    }
}

/// Requests generated from a set of clients.
struct ServeGenSource(ServeGenRequests);

impl ServeGenSource {
    fn new(clients: ServeGenClients, origin: &str, options: &ReadOptions) -> Result<Self, TraceError> {
        let requests = ServeGenRequests::new(Arc::new(clients), &options.serve_gen);
        requests.map(Self).map_err(|source| TraceError::Generator {
            origin: origin.to_owned(),
            source,
        })
    }
}

impl RecordSource for ServeGenSource {
    fn next_record(&mut self) -> Option<Result<WorkloadRecord, TraceError>> {
        self.0.next().map(Ok)
    }
}

/// Whether the file itself is Parquet, not what it decompresses to.
fn is_parquet(path: &Path) -> Result<bool, TraceError> {
    let mut magic = Vec::new();
    let read = open_file(path)?.take(4).read_to_end(&mut magic);
    read.map_err(|source| failed(&path.display().to_string(), source))?;
    Ok(magic == *b"PAR1")
}

fn failed(origin: &str, source: io::Error) -> TraceError {
    let origin = origin.to_owned();
    TraceError::Io {
        origin,
        line: 0,
        source,
    }
}

/// Reads a workload request by request, by arrival, and holds no more of it than [`ReadOptions::window`] requests.
///
/// The first request of a format with an epoch of its own (a date, a process's start) arrives at zero. After an error
/// about a line the reader can go on; after any other it has ended.
pub struct WorkloadReader<'a> {
    requests: Unordered<'a>,
    window: Window,
    most: usize,
    /// Requests read so far.
    read: u64,
    start: Option<Timestamp>,
    exhausted: bool,
}

impl WorkloadReader<'static> {
    /// Opens a file (compressed or not) or a folder of ServeGen clients and finds out its format.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or its format is unknown.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, TraceError> {
        Ok(Self::over(Unordered::open(path, options)?, options))
    }
}

impl<'a> WorkloadReader<'a> {
    /// The same over anything that can be read; `origin` stands for the path in errors.
    ///
    /// # Errors
    /// As [`WorkloadReader::open`].
    pub fn new(input: impl BufRead + 'a, origin: &str, options: &ReadOptions) -> Result<Self, TraceError> {
        Ok(Self::over(Unordered::new(input, origin, options)?, options))
    }

    fn over(requests: Unordered<'a>, options: &ReadOptions) -> Self {
        Self {
            requests,
            window: Window::default(),
            most: options.window,
            read: 0,
            start: None,
            exhausted: false,
        }
    }

    /// The format it reads.
    #[must_use]
    pub fn format(&self) -> WorkloadFormat {
        self.requests.format
    }

    /// What was mended or left out so far, in words.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.requests.notes();
        if self.window.late() > 0 {
            notes.push(sorted_note(self.window.late()));
        }
        notes
    }

    /// The request whose turn it is, counted from the start of the workload.
    fn release(&mut self) -> Option<WorkloadRecord> {
        let mut record = self.window.pop()?;
        if self.requests.format.has_own_epoch() {
            let start = *self.start.get_or_insert(record.arrival);
            record.arrival = Timestamp::ZERO + record.arrival.since(start);
        }
        Some(record)
    }
}

pub(crate) fn sorted_note(late: u64) -> String {
    format!("{late} requests arrived before the one above them: sorted by arrival")
}

impl Iterator for WorkloadReader<'_> {
    type Item = Result<WorkloadRecord, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.exhausted && self.window.len() <= self.most {
            match self.requests.next() {
                Some(Ok(record)) => {
                    self.read += 1;
                    if let Err(late_s) = self.window.push(record) {
                        self.exhausted = true;
                        self.window = Window::default();
                        return Some(Err(TraceError::OutOfOrder {
                            origin: self.requests.origin.clone(),
                            line: self.requests.source.line(),
                            request: self.read,
                            late_s,
                            window: self.most,
                        }));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => self.exhausted = true,
            }
        }
        self.release().map(Ok)
    }
}

impl fmt::Debug for WorkloadReader<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkloadReader")
            .field("origin", &self.requests.origin)
            .field("format", &self.requests.format)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
