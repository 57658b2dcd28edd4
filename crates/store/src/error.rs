//! What can go wrong, and whether trying again helps.

use crate::{LIMIT_VALUE_BYTES, LeaseId, Precondition, Revision};
use std::path::PathBuf;

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed the key, or it exists already.
    #[error(
        "key {key:?} is at version {found:?}, which does not satisfy {precondition:?}: read it again and decide anew"
    )]
    PreconditionFailed {
        /// The key.
        key: String,
        /// What was asked for.
        precondition: Precondition,
        /// The version it was found at; `None` if it does not exist or is not known.
        found: Option<Revision>,
    },
    /// The lease has ended or was never granted.
    #[error("lease {lease} is gone and its keys with it: ask for a new lease and put them again")]
    LeaseGone {
        /// The lease.
        lease: LeaseId,
    },
    /// A watch cannot go on.
    #[error("the watch of {prefix:?} ended ({reason}): list again and watch from there")]
    WatchLost {
        /// What was watched.
        prefix: String,
        /// Why it ended.
        reason: String,
    },
    /// The key is empty or holds a NUL.
    #[error("{key:?} is not a key: keys are not empty and hold no NUL")]
    InvalidKey {
        /// What was given.
        key: String,
    },
    /// The value is too large.
    #[error(
        "the value for {key:?} has {bytes} bytes, more than the limit of {LIMIT_VALUE_BYTES}: split it over several keys"
    )]
    ValueTooLarge {
        /// The key.
        key: String,
        /// The value's size.
        bytes: usize,
    },
    /// The URL does not name a store.
    #[error(
        "{url:?} does not name a store ({reason}): use `embedded` (in memory), `embedded:PATH` (a file that one process owns) or `etcd://HOST:PORT[,HOST:PORT][/PREFIX]`"
    )]
    InvalidUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the file open.
    #[error("{} is open in another process: an embedded store has one owner; stop the other one, or share state through etcd", path.display())]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error("cannot open the embedded store {} ({reason}): check that the folder can be written and that the file is an Equipoise store", path.display())]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// What the database says.
        reason: String,
    },
    /// The database failed while it was open.
    #[error("the embedded store failed to {operation} ({reason}): check disk space and the file's permissions")]
    Database {
        /// What was tried.
        operation: String,
        /// What the database says.
        reason: String,
    },
    /// The store did not answer, or not in time.
    #[error("the store did not {operation} ({reason}): it may come back, try again")]
    Unavailable {
        /// What was tried, with its key.
        operation: String,
        /// What the client says.
        reason: String,
    },
    /// The store refused the operation.
    #[error("the store refused to {operation}: {reason}")]
    Refused {
        /// What was tried, with its key.
        operation: String,
        /// What the store says.
        reason: String,
    },
    /// The store was closed by this process.
    #[error("the store is closed: this process is shutting down")]
    Closed,
}

impl StoreError {
    /// Whether the same operation may succeed later without any change by the caller.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
