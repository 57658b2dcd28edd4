//! The contract.

use crate::{StoreError, Watch};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Counts the changes of the whole store; a key's version is the revision of its last change.
pub type Revision = u64;

/// The largest value a store takes, bytes. etcd's default limit of a request is 1.5 MiB.
pub const LIMIT_VALUE_BYTES: usize = 1024 * 1024;

/// What services hold.
pub type SharedStore = Arc<dyn Store>;

/// What the operations of a [`Store`] return.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A lease: keys put under it vanish when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A lease as granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id, never used again.
    pub id: LeaseId,
    /// How long it lives without renewal; may exceed what was asked for.
    pub ttl: Duration,
}

/// A value with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// The revision of the key's last change.
    pub version: Revision,
    /// The lease it stands under, if any.
    pub lease: Option<LeaseId>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub versioned: Versioned,
}

/// All keys of a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In order of their keys.
    pub entries: Vec<Entry>,
    /// The store's revision they were read at: watch from here to miss nothing.
    pub revision: Revision,
}

/// What must hold for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key does not exist.
    DoesNotExist,
    /// The key exists and was last changed at this revision.
    MatchesVersion(Revision),
}

/// Versioned keys, leases and watches.
///
/// An operation whose future is dropped may still have been carried out: read again where it matters. Keys are not
/// empty and hold no NUL; values have at most [`LIMIT_VALUE_BYTES`].
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// `embedded` or `etcd`.
    fn kind(&self) -> &'static str;

    /// The value of a key, if it exists.
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>>;

    /// All keys that start with `prefix` (empty: all keys), at one revision.
    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing>;

    /// Sets a key and returns its new version. A put without a lease takes the key out of the lease it had.
    ///
    /// Fails with [`StoreError::PreconditionFailed`] or [`StoreError::LeaseGone`]; then nothing changed.
    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> StoreFuture<'a, Revision>;

    /// Removes a key; true if it existed. Fails with [`StoreError::PreconditionFailed`]; then nothing changed.
    fn delete<'a>(&'a self, key: &'a str, precondition: Precondition) -> StoreFuture<'a, bool>;

    /// A new lease. At least a second; the store may grant more than it was asked for.
    fn grant_lease(&self, ttl: Duration) -> StoreFuture<'_, Lease>;

    /// Gives a lease its full life again. [`StoreError::LeaseGone`] if it has ended: its keys are gone with it.
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()>;

    /// Ends a lease at once: its keys vanish. A lease that has ended is no error.
    fn revoke_lease(&self, lease: LeaseId) -> StoreFuture<'_, ()>;

    /// Every change after `after` to keys that start with `prefix`, in order.
    ///
    /// A watch that cannot go on ends with [`StoreError::WatchLost`]: list again and watch from that listing.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch>;

    /// Finishes what has begun and lets go of files and connections; operations after it fail with
    /// [`StoreError::Closed`]. Closing twice is no error.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// Refuses keys and values outside the contract, the same way for every store.
pub(crate) fn check_entry(key: &str, value: &[u8]) -> Result<(), StoreError> {
    check_key(key)?;
    if value.len() > LIMIT_VALUE_BYTES {
        return Err(StoreError::ValueTooLarge {
            key: key.to_owned(),
            bytes: value.len(),
        });
    }
    Ok(())
}

/// Refuses keys outside the contract.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.contains('\0') {
        return Err(StoreError::InvalidKey { key: key.to_owned() });
    }
    Ok(())
}

/// Holds `precondition` against the version a key was found at.
pub(crate) fn check_precondition(
    key: &str,
    precondition: Precondition,
    found: Option<Revision>,
) -> Result<(), StoreError> {
    let holds = match precondition {
        Precondition::None => true,
        Precondition::DoesNotExist => found.is_none(),
        Precondition::MatchesVersion(version) => found == Some(version),
    };
    if holds {
        Ok(())
    } else {
        Err(StoreError::PreconditionFailed {
            key: key.to_owned(),
            precondition,
            found,
        })
    }
}
