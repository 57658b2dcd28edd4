//! Formats with one request a line.

use std::io::BufRead;

use super::azure::AzureColumns;
use super::burst_gpt::BurstGptColumns;
use super::{RecordSource, json_lines};
use crate::lines::Lines;
use crate::{TraceError, WorkloadFormat, WorkloadRecord};

/// What a line looks like.
enum Layout {
    Azure(AzureColumns),
    BurstGpt(BurstGptColumns),
    Mooncake,
    Equipoise,
}

/// Reads requests from lines.
pub(super) struct TextSource<R> {
    lines: Lines<R>,
    layout: Layout,
    /// The line that was read first is a request itself, not a header.
    pending: bool,
    failed: u64,
}

impl<R: BufRead> TextSource<R> {
    /// Reads the header, where the format has one.
    pub(super) fn new(input: R, origin: String, format: WorkloadFormat) -> Result<Box<Self>, TraceError> {
        let mut lines = Lines::new(input, origin);
        if !lines.advance()? {
            let origin = lines.origin().to_owned();
            return Err(TraceError::Empty { origin });
        }
        let layout = match format {
            WorkloadFormat::AzureCsv => Layout::Azure(AzureColumns::of_header(&lines)?),
            WorkloadFormat::BurstGptCsv => Layout::BurstGpt(BurstGptColumns::of_header(&lines)?),
            WorkloadFormat::MooncakeJsonl => Layout::Mooncake,
            _ => Layout::Equipoise,
        };
        Ok(Box::new(Self {
            pending: matches!(layout, Layout::Mooncake | Layout::Equipoise),
            lines,
            layout,
            failed: 0,
        }))
    }

    /// The current line's request; `None` if it is one that failed.
    fn parse(&self) -> Result<Option<WorkloadRecord>, TraceError> {
        match &self.layout {
            Layout::Azure(columns) => columns.record(&self.lines).map(Some),
            Layout::BurstGpt(columns) => columns.record(&self.lines),
            Layout::Mooncake => json_lines::mooncake(&self.lines).map(Some),
            Layout::Equipoise => json_lines::equipoise(&self.lines).map(Some),
        }
    }
}

impl<R: BufRead> RecordSource for TextSource<R> {
    fn next_record(&mut self) -> Option<Result<WorkloadRecord, TraceError>> {
        loop {
            if !std::mem::take(&mut self.pending) {
                match self.lines.advance() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.parse() {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => self.failed += 1,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn line(&self) -> Option<u64> {
        Some(self.lines.number())
    }

    fn notes(&self) -> Vec<String> {
        let failed = self.failed;
        (failed > 0)
            .then(|| format!("{failed} failed requests (0 response tokens) left out"))
            .into_iter()
            .collect()
    }
}
