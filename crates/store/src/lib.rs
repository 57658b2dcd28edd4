//! Cluster state behind one trait: versioned keys, preconditions, leases and watches.
//!
//! Two implementations keep one contract, and one test suite holds both to it:
//!
//! - `embedded`: a redb database in memory, or in a file that one process owns;
//! - `etcd`: an etcd cluster that many control planes share.
//!
//! [`open`] picks one by its URL. The state belongs to the store; callers hold a [`SharedStore`] and keep only copies,
//! which a [`Watch`] keeps current. Does not belong here: what the keys mean, and any encoding of values.

mod embedded;
mod error;
mod etcd;
mod store;
mod url;
mod watch;

pub use error::StoreError;
pub use store::{
    Entry, LIMIT_VALUE_BYTES, Lease, LeaseId, Listing, Precondition, Revision, SharedStore, Store, StoreFuture,
    Versioned,
};
pub use url::open;
pub use watch::{Event, Watch};
