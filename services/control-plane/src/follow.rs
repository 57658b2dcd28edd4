//! Keeps the fleet's copy of the store current: list, watch, and list again when a watch is lost.

use crate::plane::Plane;
use equipoise_store::{Event, Revision, StoreError};
use std::sync::Arc;
use std::time::Duration;

/// Pause before listing again after a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes a whole listing in and returns its revision.
pub(crate) async fn load(plane: &Plane, prefix: &str) -> Result<Revision, StoreError> {
    let listing = plane.store.list(prefix).await?;
    plane.routing.lock().fleet.apply_listing(prefix, &listing);
    plane.changed.notify_one();
    Ok(listing.revision)
}

/// Follows `prefix` from `revision` on, until shutdown. While the store is away the last known state stands.
pub(crate) async fn follow(plane: Arc<Plane>, prefix: &'static str, mut revision: Revision) {
    loop {
        let error = tokio::select! {
            () = plane.shutdown.cancelled() => return,
            error = watch(&plane, prefix, revision) => error,
        };
        if matches!(error, StoreError::WatchLost { .. }) {
            tracing::info!(%error, "listing again");
        } else {
            plane.metrics.store_errors.inc();
            tracing::warn!(%error, "the store is away; serving on what is known");
        }
        revision = tokio::select! {
            () = plane.shutdown.cancelled() => return,
            revision = list_until_it_answers(&plane, prefix) => revision,
        };
    }
}

async fn list_until_it_answers(plane: &Plane, prefix: &str) -> Revision {
    loop {
        tokio::time::sleep(PAUSE).await;
        match load(plane, prefix).await {
            Ok(revision) => return revision,
            Err(error) => {
                plane.metrics.store_errors.inc();
                tracing::warn!(%error, "cannot list; trying again");
            }
        }
    }
}

/// Applies events until the watch is lost.
async fn watch(plane: &Plane, prefix: &str, after: Revision) -> StoreError {
    let mut watch = match plane.store.watch(prefix, after).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        match watch.next().await {
            Ok(event) => {
                let fleet = &mut plane.routing.lock().fleet;
                match &event {
                    Event::Put(entry) => fleet.apply_put(entry),
                    Event::Delete { key, revision } => fleet.apply_delete(key, *revision),
                }
            }
            Err(error) => return error,
        }
        plane.changed.notify_one();
    }
}
