//! A store that is away: what is known stands, and telemetry goes on.

use crate::harness::{Clients, instance, sample, soon, start_on};
use bytes::Bytes;
use equipoise_proto::v1::SetDrainingRequest;
use equipoise_store::{
    Lease, LeaseId, Listing, Precondition, Revision, SharedStore, Store, StoreError, StoreFuture, Versioned, Watch,
    open,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A store behind a switch.
#[derive(Debug)]
struct Switched {
    inner: SharedStore,
    away: AtomicBool,
}

impl Switched {
    fn through<'a, T: 'a>(&'a self, future: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        if !self.away.load(Ordering::SeqCst) {
            return future;
        }
        let (operation, reason) = ("answer".to_owned(), "switched off".to_owned());
        Box::pin(async { Err(StoreError::Unavailable { operation, reason }) })
    }
}

impl Store for Switched {
    fn kind(&self) -> &'static str {
        "switched"
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        self.through(self.inner.get(key))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        self.through(self.inner.list(prefix))
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> StoreFuture<'a, Revision> {
        self.through(self.inner.put(key, value, precondition, lease))
    }

    fn delete<'a>(&'a self, key: &'a str, precondition: Precondition) -> StoreFuture<'a, bool> {
        self.through(self.inner.delete(key, precondition))
    }

    fn grant_lease(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        self.through(self.inner.grant_lease(ttl))
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.through(self.inner.keep_alive(lease))
    }

    fn revoke_lease(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.through(self.inner.revoke_lease(lease))
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        self.through(self.inner.watch(prefix, after))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.inner.close()
    }
}

#[tokio::test]
async fn telemetry_reaches_routers_while_the_store_is_away() {
    let inner = open("embedded").await.expect("opens");
    let store = Arc::new(Switched {
        inner,
        away: AtomicBool::new(false),
    });
    let plane = start_on(store.clone()).await;
    let mut clients = Clients::of(&plane).await;
    let lease = clients
        .register("n1", vec![instance("a", "p")], 2_000)
        .await
        .expect("registers");
    let mut telemetry = clients.telemetry(lease.lease_id).await;
    let mut router = clients.watch("r1").await;
    router.until(|seen| seen.instances.len() == 1).await;

    store.away.store(true, Ordering::SeqCst);
    // Long enough that a renewal is due: it fails, and the stream goes on.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut last = sample("a");
    last.running = 17;
    telemetry.send_samples(vec![last]).await.expect("goes on");
    router
        .until(|seen| {
            seen.instances["a"]
                .sample
                .as_ref()
                .is_some_and(|sample| sample.running == 17)
        })
        .await;
    let wish = || SetDrainingRequest {
        name: "a".to_owned(),
        draining: true,
    };
    let error = clients.admin.set_draining(wish()).await.expect_err("cannot be kept");
    assert_eq!(
        error.code(),
        tonic::Code::Unavailable,
        "a wish that would be lost is refused"
    );

    store.away.store(false, Ordering::SeqCst);
    clients.admin.set_draining(wish()).await.expect("is back");
    router
        .until(|seen| {
            seen.instances
                .get("a")
                .is_some_and(|state| state.admin.expect("set").draining)
        })
        .await;
    soon(plane.shutdown()).await.expect("drains");
}
