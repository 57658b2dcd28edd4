//! A stream of changes with a bound.

use crate::{Entry, Revision, StoreError};
use tokio::sync::mpsc;

/// One change. Keys that one lease takes with it may share a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was set.
    Put(Entry),
    /// A key was deleted, or its lease ended.
    Delete {
        /// The key.
        key: String,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.versioned.version,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// Changes in order. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    events: mpsc::Receiver<Result<Event, StoreError>>,
}

impl Watch {
    pub(crate) fn new(prefix: &str, events: mpsc::Receiver<Result<Event, StoreError>>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            events,
        }
    }

    /// Waits for the next change. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`StoreError::WatchLost`] when the watch cannot go on: it fell behind, what it wants was compacted, or the
    /// store went away. It never goes on after that: list again.
    pub async fn next(&mut self) -> Result<Event, StoreError> {
        match self.events.recv().await {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                self.events.close();
                Err(error)
            }
            None => Err(StoreError::WatchLost {
                prefix: self.prefix.clone(),
                reason: "it fell too far behind, or the store closed".to_owned(),
            }),
        }
    }
}
