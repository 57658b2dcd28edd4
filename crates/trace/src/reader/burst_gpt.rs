//! BurstGPT's traces of ChatGPT and GPT-4 use on Azure (HPMLL/BurstGPT, CC-BY-4.0): one CSV line per request.

use std::io::BufRead;

use super::csv::Column;
use super::json_lines::arrival;
use crate::error::excerpt;
use crate::lines::Lines;
use crate::{TraceError, WorkloadRecord};

const HEADER: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type";

/// Which column holds what. Release 2 has more columns, in other places.
#[derive(Clone, Copy, Debug)]
pub(super) struct BurstGptColumns {
    time: Column,
    prompt: Column,
    output: Column,
}

impl BurstGptColumns {
    pub(super) fn of_header<R: BufRead>(lines: &Lines<R>) -> Result<Self, TraceError> {
        Ok(Self {
            time: Column::find(lines, "Timestamp", HEADER)?,
            prompt: Column::find(lines, "Request tokens", HEADER)?,
            output: Column::find(lines, "Response tokens", HEADER)?,
        })
    }

    /// Parses the current line; `None` for a request that failed, which has no response tokens.
    pub(super) fn record<R: BufRead>(&self, lines: &Lines<R>) -> Result<Option<WorkloadRecord>, TraceError> {
        let time = self.time.text(lines)?;
        let seconds = time
            .parse::<f64>()
            .map_err(|_| lines.malformed("seconds since the first day's midnight in Timestamp", excerpt(time)))?;
        let record = WorkloadRecord {
            arrival: arrival(lines, seconds, 1.0, "Timestamp")?,
            prompt_tokens: self.prompt.tokens(lines)?,
            output_tokens: self.output.tokens(lines)?,
            ..WorkloadRecord::default()
        };
        Ok((record.output_tokens > 0).then_some(record))
    }
}
