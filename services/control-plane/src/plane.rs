//! What all services of one control plane share.

use crate::ControlPlaneConfig;
use crate::accounting::Accounting;
use crate::registrar::NodeLease;
use crate::routing::Routing;
use dashmap::DashMap;
use equipoise_store::{LeaseId, SharedStore, StoreError};
use equipoise_telemetry::{ControlMetrics, Registry};
use parking_lot::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Shared state. Locks are held for moments and never across an await.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) config: ControlPlaneConfig,
    pub(crate) store: SharedStore,
    pub(crate) routing: Mutex<Routing>,
    pub(crate) accounting: Mutex<Accounting>,
    /// Leases of nodes that stream to this control plane.
    pub(crate) leases: DashMap<LeaseId, NodeLease>,
    /// Something changed that routers should hear of soon.
    pub(crate) changed: Notify,
    pub(crate) metrics: ControlMetrics,
    pub(crate) registry: Registry,
    pub(crate) shutdown: CancellationToken,
}

/// Nanoseconds since the Unix epoch, by this machine's clock.
pub(crate) fn unix_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// A failed operation of the store in gRPC's words.
pub(crate) fn status_of(error: &StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::PreconditionFailed { .. } => Status::aborted(message),
        StoreError::LeaseGone { .. } => Status::not_found(message),
        StoreError::InvalidKey { .. } | StoreError::ValueTooLarge { .. } => Status::invalid_argument(message),
        StoreError::Unavailable { .. } | StoreError::Closed | StoreError::WatchLost { .. } => {
            Status::unavailable(message)
        }
        StoreError::InvalidUrl { .. }
        | StoreError::AlreadyOpen { .. }
        | StoreError::CannotOpen { .. }
        | StoreError::Database { .. }
        | StoreError::Refused { .. } => Status::internal(message),
    }
}
