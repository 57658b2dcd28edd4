//! The store over etcd's v3 API.
//!
//! Keys live under a prefix, a version is etcd's `mod_revision`. The channel balances over the endpoints and
//! reconnects by itself; every operation has a timeout, and a watch that breaks ends with "list again".

mod failure;

use self::failure::{is_lease_gone, store_error};
use crate::store::{check_entry, check_key};
use crate::{
    Entry, Event, Lease, LeaseId, Listing, Precondition, Revision, Store, StoreError, StoreFuture, Versioned, Watch,
};
use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchStream,
};
use std::future::Future;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The longest an operation may take.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2 pings, so that a watch notices a peer that vanished without a word.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Events that wait for a slow consumer; beyond them flow control holds etcd back.
const WATCH_QUEUE: usize = 256;
/// The largest answer to a listing, bytes.
const LIMIT_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// A client of one etcd cluster.
pub(crate) struct EtcdStore {
    client: Client,
    prefix: String,
    closed: watch::Sender<bool>,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects and makes sure that the cluster answers.
    pub(crate) async fn connect(endpoints: &[String], prefix: &str) -> Result<Self, StoreError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let operation = format!("answer at {}", endpoints.join(", "));
        let client = bounded(&operation, Client::connect(endpoints, Some(options))).await?;
        let store = Self {
            client,
            prefix: prefix.to_owned(),
            closed: watch::Sender::new(false),
        };
        let mut kv = store.client.kv_client();
        bounded(&operation, kv.get(prefix, Some(GetOptions::new().with_count_only()))).await?;
        Ok(store)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn client(&self) -> Result<Client, StoreError> {
        if *self.closed.borrow() {
            Err(StoreError::Closed)
        } else {
            Ok(self.client.clone())
        }
    }

    /// Carries `change` out if the precondition holds. Returns the revision of the change and what it answered.
    async fn guarded(
        &self,
        operation: &str,
        key: &str,
        precondition: Precondition,
        change: TxnOp,
    ) -> Result<(Revision, Option<TxnOpResponse>), StoreError> {
        let full = self.full(key);
        let compare = match precondition {
            Precondition::None => Vec::new(),
            Precondition::DoesNotExist => vec![Compare::version(full.clone(), CompareOp::Equal, 0)],
            Precondition::MatchesVersion(version) => {
                vec![Compare::mod_revision(full.clone(), CompareOp::Equal, signed(version))]
            }
        };
        let transaction = Txn::new()
            .when(compare)
            .and_then(vec![change])
            .or_else(vec![TxnOp::get(full, None)]);
        let mut client = self.client()?;
        let answer = bounded(&format!("{operation} {key:?}"), client.txn(transaction)).await?;
        let first = answer.op_responses().into_iter().next();
        if answer.succeeded() {
            return Ok((revision_of(answer.header()), first));
        }
        let found = match first {
            Some(TxnOpResponse::Get(get)) => get.kvs().first().map(|kv| unsigned(kv.mod_revision())),
            _ => None,
        };
        Err(StoreError::PreconditionFailed {
            key: key.to_owned(),
            precondition,
            found,
        })
    }
}

/// Bounds an operation in time and translates its errors.
async fn bounded<T>(
    operation: &str,
    future: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(OPERATION_TIMEOUT, future).await {
        Ok(outcome) => outcome.map_err(|error| store_error(operation, &error)),
        Err(_) => Err(StoreError::Unavailable {
            operation: operation.to_owned(),
            reason: format!("no answer within {} s", OPERATION_TIMEOUT.as_secs()),
        }),
    }
}

/// etcd's numbers are signed on the wire and never negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    header.map_or(0, |header| unsigned(header.revision()))
}

fn versioned(kv: &KeyValue) -> Versioned {
    Versioned {
        value: Bytes::copy_from_slice(kv.value()),
        version: unsigned(kv.mod_revision()),
        lease: (kv.lease() != 0).then(|| LeaseId(unsigned(kv.lease()))),
    }
}

/// The key without the prefix; `None` for keys that Equipoise cannot have written.
fn short_key(kv: &KeyValue, prefix: &str) -> Option<String> {
    std::str::from_utf8(kv.key())
        .ok()?
        .strip_prefix(prefix)
        .map(str::to_owned)
}

fn event(raw: &etcd_client::Event, prefix: &str) -> Option<Event> {
    let kv = raw.kv()?;
    let key = short_key(kv, prefix)?;
    Some(match raw.event_type() {
        EventType::Put => Event::Put(Entry {
            key,
            versioned: versioned(kv),
        }),
        EventType::Delete => Event::Delete {
            key,
            revision: unsigned(kv.mod_revision()),
        },
    })
}

/// Passes events on until the stream breaks, the store closes or nobody listens.
async fn forward(
    mut stream: WatchStream,
    prefix: String,
    watched: String,
    events: mpsc::Sender<Result<Event, StoreError>>,
    mut closed: watch::Receiver<bool>,
) {
    let lost = |reason: String| StoreError::WatchLost {
        prefix: watched.clone(),
        reason,
    };
    let end = loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = events.closed() => return,
            _ = closed.changed() => break lost("the store was closed".to_owned()),
        };
        match message {
            Ok(Some(message)) if message.compact_revision() > 0 => {
                let oldest = message.compact_revision();
                break lost(format!("changes before revision {oldest} were compacted"));
            }
            Ok(Some(message)) if message.canceled() => {
                break lost(message.cancel_reason().to_owned());
            }
            Ok(Some(message)) => {
                for event in message.events().iter().filter_map(|raw| event(raw, &prefix)) {
                    if events.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) => break lost("etcd ended the stream".to_owned()),
            Err(error) => break lost(error.to_string()),
        }
    };
    drop(events.send(Err(end)).await);
}

impl Store for EtcdStore {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(async move {
            check_key(key)?;
            let mut client = self.client()?;
            let answer = bounded(&format!("read {key:?}"), client.get(self.full(key), None)).await?;
            Ok(answer.kvs().first().map(versioned))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        Box::pin(async move {
            let mut kv = self.client()?.kv_client().max_decoding_message_size(LIMIT_ANSWER_BYTES);
            let options = GetOptions::new().with_prefix();
            let answer = bounded(&format!("list {prefix:?}"), kv.get(self.full(prefix), Some(options))).await?;
            let entry = |kv: &KeyValue| {
                Some(Entry {
                    key: short_key(kv, &self.prefix)?,
                    versioned: versioned(kv),
                })
            };
            Ok(Listing {
                entries: answer.kvs().iter().filter_map(entry).collect(),
                revision: revision_of(answer.header()),
            })
        })
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> StoreFuture<'a, Revision> {
        Box::pin(async move {
            check_entry(key, &value)?;
            let options = PutOptions::new().with_lease(lease.map_or(0, |lease| signed(lease.0)));
            let change = TxnOp::put(self.full(key), value, Some(options));
            let outcome = self.guarded("put", key, precondition, change).await;
            match (outcome, lease) {
                (Ok((revision, _)), _) => Ok(revision),
                (Err(StoreError::Refused { reason, .. }), Some(lease)) if is_lease_gone(&reason) => {
                    Err(StoreError::LeaseGone { lease })
                }
                (Err(error), _) => Err(error),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str, precondition: Precondition) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            check_key(key)?;
            let change = TxnOp::delete(self.full(key), None);
            let (_, answer) = self.guarded("delete", key, precondition, change).await?;
            Ok(matches!(answer, Some(TxnOpResponse::Delete(delete)) if delete.deleted() > 0))
        })
    }

    fn grant_lease(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        Box::pin(async move {
            // etcd counts whole seconds: round up, so that no lease is shorter than asked for.
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let mut client = self.client()?;
            let answer = bounded("grant a lease", client.lease_grant(signed(seconds.max(1)), None)).await?;
            Ok(Lease {
                id: LeaseId(unsigned(answer.id())),
                ttl: Duration::from_secs(unsigned(answer.ttl())),
            })
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut client = self.client()?;
            match bounded("renew a lease", client.lease_keep_alive(signed(lease.0))).await {
                Ok(_) => Ok(()),
                Err(StoreError::Refused { reason, .. }) if is_lease_gone(&reason) => {
                    Err(StoreError::LeaseGone { lease })
                }
                Err(error) => Err(error),
            }
        })
    }

    fn revoke_lease(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut client = self.client()?;
            match bounded("revoke a lease", client.lease_revoke(signed(lease.0))).await {
                Ok(_) => Ok(()),
                Err(StoreError::Refused { reason, .. }) if is_lease_gone(&reason) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        Box::pin(async move {
            let options = WatchOptions::new()
                .with_prefix()
                .with_start_revision(signed(after.saturating_add(1)));
            let mut client = self.client()?;
            let operation = format!("watch {prefix:?}");
            let stream = bounded(&operation, client.watch(self.full(prefix), Some(options))).await?;
            let (events, receiver) = mpsc::channel(WATCH_QUEUE);
            let closed = self.closed.subscribe();
            tokio::spawn(forward(stream, self.prefix.clone(), prefix.to_owned(), events, closed));
            Ok(Watch::new(prefix, receiver))
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.closed.send_replace(true);
            Ok(())
        })
    }
}
