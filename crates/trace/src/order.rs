//! Requests in order of arrival, out of a stream that is nearly so.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use equipoise_types::Timestamp;

use crate::WorkloadRecord;

/// A request that waits for its turn; the earliest is the greatest, and of two at once the one read first.
#[derive(Debug)]
struct Waiting {
    sequence: u64,
    record: WorkloadRecord,
}

impl Waiting {
    fn key(&self) -> (Timestamp, u64) {
        (self.record.arrival, self.sequence)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// Holds a window of requests and lets the earliest go.
#[derive(Debug, Default)]
pub(crate) struct Window {
    waiting: BinaryHeap<Waiting>,
    read: u64,
    latest_read: Timestamp,
    latest_gone: Timestamp,
    late: u64,
}

impl Window {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many arrived before the one read just before them.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// It should have gone before one that has gone: by how many seconds.
    pub(crate) fn push(&mut self, record: WorkloadRecord) -> Result<(), f64> {
        if record.arrival < self.latest_gone {
            return Err(self.latest_gone.secs_since(record.arrival));
        }
        self.late += u64::from(record.arrival < self.latest_read);
        self.latest_read = record.arrival;
        let sequence = self.read;
        self.read += 1;
        self.waiting.push(Waiting { sequence, record });
        Ok(())
    }

    /// The arrival of the earliest.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.waiting.peek().map(|waiting| waiting.record.arrival)
    }

    /// Lets the earliest go.
    pub(crate) fn pop(&mut self) -> Option<WorkloadRecord> {
        let record = self.waiting.pop()?.record;
        self.latest_gone = record.arrival;
        Some(record)
    }
}
