//! A workload in memory.

use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

use equipoise_types::Timestamp;

use crate::reader::{ReadOptions, Unordered, sorted_note};
use crate::{TraceError, WorkloadRecord};

/// A workload in memory, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The requests, by arrival; those that arrive together keep the order of the file.
    pub records: Vec<WorkloadRecord>,
    /// What was mended on the way in and should be said to the user.
    pub notes: Vec<String>,
}

impl Workload {
    /// Reads a file, or a folder of ServeGen clients. Arrivals of a format with an epoch of its own start at zero; a
    /// file that is not in order is sorted, however far it is from it, and a note says so.
    ///
    /// # Errors
    /// The file cannot be read, its format is unknown, a line is malformed (unless skipped), or it has no request.
    pub fn load(path: &Path, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::collect(Unordered::open(path, options)?)
    }

    /// The same from anything that can be read; `origin` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Workload::load`].
    pub fn read(input: impl BufRead, origin: &str, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::collect(Unordered::new(input, origin, options)?)
    }

    fn collect(mut requests: Unordered<'_>) -> Result<Self, TraceError> {
        let mut records = requests.by_ref().collect::<Result<Vec<_>, _>>()?;
        let mut notes = requests.notes();
        let late = records
            .windows(2)
            .filter(|pair| pair[1].arrival < pair[0].arrival)
            .count();
        if late > 0 {
            records.sort_by_key(|record| record.arrival);
            notes.push(sorted_note(late as u64));
        }
        let Some(first) = records.first().map(|record| record.arrival) else {
            return Err(TraceError::Empty {
                origin: requests.origin,
            });
        };
        if requests.format.has_own_epoch() {
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

#[cfg(test)]
mod tests;
