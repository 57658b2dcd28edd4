//! One contract, held by every store: the same checks over the embedded store and a real etcd.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, its plain functions too"
)]

use bytes::Bytes;
use equipoise_store::{Event, LeaseId, Precondition, SharedStore, StoreError, Watch, open};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn next(watch: &mut Watch) -> Result<Event, StoreError> {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("an event in time")
}

async fn put(store: &SharedStore, key: &str, value: &str) -> u64 {
    store
        .put(key, bytes(value), Precondition::None, None)
        .await
        .expect("puts")
}

async fn keys(store: &SharedStore, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .await
        .expect("lists")
        .entries
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

async fn preconditions(store: &SharedStore) {
    assert_eq!(store.get("cas/a").await.expect("reads"), None);
    let error = store
        .put("cas/a", bytes("0"), Precondition::MatchesVersion(1), None)
        .await
        .expect_err("is absent");
    assert!(
        matches!(error, StoreError::PreconditionFailed { found: None, .. }),
        "{error}"
    );
    let first = store
        .put("cas/a", bytes("1"), Precondition::DoesNotExist, None)
        .await
        .expect("was absent");
    let error = store
        .put("cas/a", bytes("2"), Precondition::DoesNotExist, None)
        .await
        .expect_err("exists");
    assert!(
        matches!(&error, StoreError::PreconditionFailed { key, found, .. } if key == "cas/a" && *found == Some(first))
    );
    assert!(!error.retryable());
    let second = store
        .put("cas/a", bytes("2"), Precondition::MatchesVersion(first), None)
        .await
        .expect("matches");
    assert!(second > first);
    store
        .put("cas/a", bytes("3"), Precondition::MatchesVersion(first), None)
        .await
        .expect_err("is stale");
    let found = store.get("cas/a").await.expect("reads").expect("exists");
    assert_eq!((found.value, found.version, found.lease), (bytes("2"), second, None));
    store
        .delete("cas/a", Precondition::MatchesVersion(first))
        .await
        .expect_err("is stale");
    assert!(
        store
            .delete("cas/a", Precondition::MatchesVersion(second))
            .await
            .expect("matches")
    );
    assert!(
        !store
            .delete("cas/a", Precondition::None)
            .await
            .expect("nothing to delete")
    );
    assert_eq!(store.get("cas/a").await.expect("reads"), None);
}

async fn limits(store: &SharedStore) {
    let long = Bytes::from(vec![0; equipoise_store::LIMIT_VALUE_BYTES + 1]);
    assert!(matches!(
        store.put("limits/a", long.clone(), Precondition::None, None).await,
        Err(StoreError::ValueTooLarge { .. })
    ));
    let longest = long.slice(1..);
    store
        .put("limits/a", longest.clone(), Precondition::None, None)
        .await
        .expect("the longest value");
    assert_eq!(
        store.get("limits/a").await.expect("reads").expect("exists").value,
        longest
    );
    for key in ["", "a\0b"] {
        assert!(matches!(store.get(key).await, Err(StoreError::InvalidKey { .. })));
        assert!(matches!(
            store.put(key, bytes("x"), Precondition::None, None).await,
            Err(StoreError::InvalidKey { .. })
        ));
    }
}

async fn listing(store: &SharedStore) {
    for key in ["list/b", "list/a", "list/a/1", "lisu", "lis"] {
        put(store, key, key).await;
    }
    let listing = store.list("list/").await.expect("lists");
    let listed: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), &*entry.versioned.value))
        .collect();
    assert_eq!(
        listed,
        [
            ("list/a", &b"list/a"[..]),
            ("list/a/1", b"list/a/1"),
            ("list/b", b"list/b")
        ]
    );
    assert!(
        listing
            .entries
            .iter()
            .all(|entry| entry.versioned.version <= listing.revision)
    );
    assert!(keys(store, "nothing/").await.is_empty());
}

async fn watching(store: &SharedStore) {
    let start = put(store, "watch/a", "1").await;
    let second = put(store, "watch/a", "2").await;
    put(store, "other/a", "x").await;
    store.delete("watch/a", Precondition::None).await.expect("deletes");
    // From the past, then on.
    let mut watch = store.watch("watch/", start).await.expect("watches");
    match next(&mut watch).await.expect("the second put") {
        Event::Put(entry) => {
            assert_eq!(
                (entry.key.as_str(), &*entry.versioned.value, entry.versioned.version),
                ("watch/a", &b"2"[..], second)
            );
        }
        other @ Event::Delete { .. } => panic!("{other:?}"),
    }
    match next(&mut watch).await.expect("the deletion") {
        Event::Delete { key, revision } => assert!(key == "watch/a" && revision > second),
        other @ Event::Put(_) => panic!("{other:?}"),
    }
    let third = put(store, "watch/b", "3").await;
    assert_eq!(next(&mut watch).await.expect("the live put").revision(), third);
    // From a listing, nothing of what it holds comes again.
    let listing = store.list("watch/").await.expect("lists");
    let mut watch = store.watch("watch/", listing.revision).await.expect("watches");
    let fourth = put(store, "watch/b", "4").await;
    assert_eq!(next(&mut watch).await.expect("the next put").revision(), fourth);
}

async fn leases(store: &SharedStore) {
    let short = store.grant_lease(Duration::from_millis(1500)).await.expect("grants");
    let kept = store.grant_lease(Duration::from_secs(2)).await.expect("grants");
    assert!(short.ttl >= Duration::from_millis(1500) && short.id != kept.id);
    for (key, lease) in [
        ("lease/ends", short.id),
        ("lease/stays", kept.id),
        ("lease/freed", short.id),
    ] {
        store
            .put(key, bytes("x"), Precondition::None, Some(lease))
            .await
            .expect("puts");
    }
    assert_eq!(
        store.get("lease/ends").await.expect("reads").expect("exists").lease,
        Some(short.id)
    );
    // A put without the lease frees the key from it.
    put(store, "lease/freed", "y").await;
    let revision = store.list("lease/").await.expect("lists").revision;
    let mut watch = store.watch("lease/", revision).await.expect("watches");
    let renew = async {
        loop {
            store.keep_alive(kept.id).await.expect("is alive");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let event = tokio::select! {
        () = renew => unreachable!(),
        event = next(&mut watch) => event.expect("the deletion"),
    };
    assert!(
        matches!(&event, Event::Delete { key, .. } if key == "lease/ends"),
        "{event:?}"
    );
    assert_eq!(keys(store, "lease/").await, ["lease/freed", "lease/stays"]);
    assert!(matches!(store.keep_alive(short.id).await, Err(StoreError::LeaseGone { lease }) if lease == short.id));
    let gone = store
        .put("lease/late", bytes("x"), Precondition::None, Some(short.id))
        .await;
    assert!(matches!(gone, Err(StoreError::LeaseGone { .. })), "{gone:?}");
    store.keep_alive(kept.id).await.expect("is still alive");
    store.revoke_lease(kept.id).await.expect("revokes");
    assert_eq!(keys(store, "lease/").await, ["lease/freed"]);
    store.revoke_lease(kept.id).await.expect("revoking twice is no error");
    let never = store.keep_alive(LeaseId(123_456_789)).await;
    assert!(matches!(never, Err(StoreError::LeaseGone { .. })), "{never:?}");
}

async fn closing(store: &SharedStore) {
    let mut watch = store
        .watch("close/", store.list("").await.expect("lists").revision)
        .await
        .expect("watches");
    store.close().await.expect("closes");
    let error = next(&mut watch).await.expect_err("ended");
    assert!(error.to_string().contains("list again"), "{error}");
    assert!(matches!(store.get("close/a").await, Err(StoreError::Closed)));
    store.close().await.expect("closing twice is no error");
}

async fn whole_contract(store: SharedStore) {
    preconditions(&store).await;
    limits(&store).await;
    listing(&store).await;
    watching(&store).await;
    leases(&store).await;
    closing(&store).await;
}

#[tokio::test]
async fn embedded_in_memory() {
    whole_contract(open("embedded").await.expect("opens")).await;
}

#[tokio::test]
async fn embedded_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("new/folder/store.redb").display());
    whole_contract(open(&url).await.expect("opens")).await;
}

#[tokio::test]
async fn embedded_keeps_data_and_leases_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("store.redb").display());
    let store = open(&url).await.expect("opens");
    let lease = store.grant_lease(Duration::from_millis(1200)).await.expect("grants");
    let version = store
        .put("a", bytes("1"), Precondition::None, Some(lease.id))
        .await
        .expect("puts");
    put(&store, "b", "2").await;
    // The lease ends in its time if nobody renews it, and the restart gives it its whole life again.
    store.close().await.expect("closes");
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let store = open(&url).await.expect("opens again");
    let found = store.get("a").await.expect("reads").expect("is still there");
    assert_eq!((found.version, found.lease), (version, Some(lease.id)));
    store.keep_alive(lease.id).await.expect("the lease is alive");
    let listing = store.list("").await.expect("lists");
    assert_eq!(listing.entries.len(), 2);
    let lost = store
        .watch("", version)
        .await
        .expect_err("the past is not kept over a restart");
    assert!(matches!(lost, StoreError::WatchLost { .. }), "{lost}");
    let mut watch = store.watch("", listing.revision).await.expect("watches");
    let event = next(&mut watch).await.expect("the lease ends");
    assert!(matches!(&event, Event::Delete { key, .. } if key == "a"), "{event:?}");
    let fresh = store.grant_lease(Duration::from_secs(5)).await.expect("grants");
    assert_ne!(fresh.id, lease.id, "lease ids are not used again");
}

#[tokio::test]
async fn a_second_owner_is_told_which_file_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("store.redb").display());
    let first = open(&url).await.expect("opens");
    let error = open(&url).await.expect_err("is taken");
    assert!(
        matches!(error, StoreError::AlreadyOpen { .. }) && error.to_string().contains("store.redb"),
        "{error}"
    );
    first.close().await.expect("closes");
    open(&url).await.expect("is free again");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "not a database").expect("writes");
    let error = open(&format!("embedded:{}", file.display()))
        .await
        .expect_err("is no store");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(std::fs::read(&file).expect("reads"), b"not a database");
}

// === etcd ===

struct Etcd {
    process: Child,
    client_port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .expect("binds")
        .local_addr()
        .expect("has an address")
        .port()
}

fn spawn_etcd(folder: tempfile::TempDir, client_port: u16) -> Option<Etcd> {
    let client = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{}", free_port());
    let spawned = Command::new("etcd")
        .args(["--name", "test", "--log-level", "error", "--unsafe-no-fsync=true"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match spawned {
        Ok(process) => Some(Etcd {
            process,
            client_port,
            folder,
        }),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "CI must have etcd: {error}");
            eprintln!("SKIPPED: no etcd on the PATH ({error}); the etcd store was NOT tested");
            None
        }
    }
}

async fn connect(etcd: &Etcd, prefix: &str) -> SharedStore {
    let url = format!("etcd://127.0.0.1:{}/{prefix}", etcd.client_port);
    let mut last = None;
    for _ in 0..40 {
        match open(&url).await {
            Ok(store) => return store,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("etcd did not start: {last:?}");
}

#[tokio::test]
async fn etcd_keeps_the_contract_and_its_prefix() {
    let Some(etcd) = spawn_etcd(tempfile::tempdir().expect("a folder"), free_port()) else {
        return;
    };
    let bystander = connect(&etcd, "other").await;
    put(&bystander, "cas/a", "not yours").await;
    whole_contract(connect(&etcd, "").await).await;
    assert_eq!(keys(&bystander, "").await, ["cas/a"]);
}

#[tokio::test]
async fn etcd_going_away_is_an_error_and_coming_back_heals() {
    let Some(mut etcd) = spawn_etcd(tempfile::tempdir().expect("a folder"), free_port()) else {
        return;
    };
    let store = connect(&etcd, "").await;
    let version = put(&store, "a", "1").await;
    let mut watch = store.watch("", version).await.expect("watches");
    drop(etcd.process.kill());
    drop(etcd.process.wait());
    let lost = next(&mut watch).await.expect_err("the watch ends");
    assert!(matches!(lost, StoreError::WatchLost { .. }), "{lost}");
    let error = tokio::time::timeout(PATIENCE, store.get("a"))
        .await
        .expect("bounded")
        .expect_err("is away");
    assert!(error.retryable(), "{error}");

    let port = etcd.client_port;
    let folder = std::mem::replace(&mut etcd.folder, tempfile::tempdir().expect("a folder"));
    let _etcd = spawn_etcd(folder, port).expect("was there before");
    for _ in 0..60 {
        match store.get("a").await {
            Ok(found) => {
                assert_eq!(found.expect("kept").version, version);
                return;
            }
            Err(error) => assert!(error.retryable(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the client did not reconnect");
}

#[tokio::test]
async fn an_etcd_that_does_not_answer_is_named() {
    let url = format!("etcd://127.0.0.1:{}", free_port());
    let error = open(&url).await.expect_err("nobody is there");
    assert!(error.retryable() && error.to_string().contains("127.0.0.1"), "{error}");
}
