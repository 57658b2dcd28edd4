//! The embedded store without threads: the database, leases, history and watchers. Time is an argument.
//!
//! What is in memory changes only after the transaction on disk has been committed.

use super::leases::Leases;
use crate::store::check_precondition;
use crate::{Entry, Event, Lease, LeaseId, Listing, Precondition, Revision, StoreError, Versioned, Watch};
use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Key to (version, lease or 0, value).
const KEYS: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("keys");
/// Lease to its life in milliseconds.
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
/// The counters `revision` and `lease`.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

/// Events kept for watches that start in the past.
const HISTORY: usize = 4096;
/// Events that a watch may lag behind, beyond the past it asked for.
const WATCH_QUEUE: usize = 1024;
/// The shortest lease.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Watcher {
    prefix: String,
    events: mpsc::Sender<Result<Event, StoreError>>,
}

#[derive(Debug)]
pub(super) struct State {
    database: Database,
    revision: Revision,
    last_lease: u64,
    leases: Leases,
    history: VecDeque<Event>,
    /// A watch can start at this revision or later.
    oldest_start: Revision,
    watchers: Vec<Watcher>,
}

fn failed(operation: &str, key: &str) -> impl Fn(redb::Error) -> StoreError {
    let operation = if key.is_empty() {
        operation.to_owned()
    } else {
        format!("{operation} {key:?}")
    };
    move |error| StoreError::Database {
        operation: operation.clone(),
        reason: error.to_string(),
    }
}

fn lease_of(raw: u64) -> Option<LeaseId> {
    (raw != 0).then_some(LeaseId(raw))
}

impl State {
    pub(super) fn open(path: Option<&Path>, now: Instant) -> Result<Self, StoreError> {
        let shown = path.map_or_else(|| "in memory".into(), Path::to_path_buf);
        let cannot_open = |reason: String| StoreError::CannotOpen {
            path: shown.clone(),
            reason,
        };
        let database = match path {
            None => Database::builder().create_with_backend(InMemoryBackend::new()),
            Some(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(|error| cannot_open(error.to_string()))?;
                }
                Database::create(path)
            }
        };
        let database = database.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::AlreadyOpen { path: shown.clone() },
            other => cannot_open(other.to_string()),
        })?;
        let mut state = Self {
            database,
            revision: 0,
            last_lease: 0,
            leases: Leases::default(),
            history: VecDeque::new(),
            oldest_start: 0,
            watchers: Vec::new(),
        };
        state.load(now).map_err(|error| cannot_open(error.to_string()))?;
        Ok(state)
    }

    /// Reads counters and leases. Nobody knows how long the store was away, so every lease starts anew.
    fn load(&mut self, now: Instant) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let keys = transaction.open_table(KEYS)?;
            let leases = transaction.open_table(LEASES)?;
            let counters = transaction.open_table(COUNTERS)?;
            self.revision = counters.get("revision")?.map_or(0, |counter| counter.value());
            self.last_lease = counters.get("lease")?.map_or(0, |counter| counter.value());
            self.oldest_start = self.revision;
            for row in leases.iter()? {
                let (lease, ttl_ms) = row?;
                self.leases
                    .insert(LeaseId(lease.value()), Duration::from_millis(ttl_ms.value()), now);
            }
            for row in keys.iter()? {
                let (key, value) = row?;
                self.leases.move_key(key.value(), None, lease_of(value.value().1));
            }
        }
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let keys = self.database.begin_read()?.open_table(KEYS)?;
            let found = keys.get(key)?;
            Ok(found.map(|row| {
                let (version, lease, value) = row.value();
                Versioned {
                    value: Bytes::copy_from_slice(value),
                    version,
                    lease: lease_of(lease),
                }
            }))
        };
        read().map_err(failed("read", key))
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let read = || -> Result<_, redb::Error> {
            let keys = self.database.begin_read()?.open_table(KEYS)?;
            let mut entries = Vec::new();
            for row in keys.range(prefix..)? {
                let (key, row) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                let (version, lease, value) = row.value();
                let value = Bytes::copy_from_slice(value);
                let versioned = Versioned {
                    value,
                    version,
                    lease: lease_of(lease),
                };
                entries.push(Entry {
                    key: key.value().to_owned(),
                    versioned,
                });
            }
            Ok(entries)
        };
        Ok(Listing {
            entries: read().map_err(failed("list", prefix))?,
            revision: self.revision,
        })
    }

    pub(super) fn put(
        &mut self,
        key: &str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        if let Some(lease) = lease.filter(|&lease| !self.leases.contains(lease)) {
            return Err(StoreError::LeaseGone { lease });
        }
        let before = self.get(key)?;
        check_precondition(key, precondition, before.as_ref().map(|before| before.version))?;
        let revision = self.revision + 1;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            let row = (revision, lease.map_or(0, |lease| lease.0), &*value);
            transaction.open_table(KEYS)?.insert(key, row)?;
            transaction.open_table(COUNTERS)?.insert("revision", revision)?;
            Ok(transaction.commit()?)
        };
        write().map_err(failed("put", key))?;
        self.revision = revision;
        self.leases.move_key(key, before.and_then(|before| before.lease), lease);
        let versioned = Versioned {
            value,
            version: revision,
            lease,
        };
        self.publish(Event::Put(Entry {
            key: key.to_owned(),
            versioned,
        }));
        Ok(revision)
    }

    pub(super) fn delete(&mut self, key: &str, precondition: Precondition) -> Result<bool, StoreError> {
        let before = self.get(key)?;
        check_precondition(key, precondition, before.as_ref().map(|before| before.version))?;
        let Some(before) = before else {
            return Ok(false);
        };
        let revision = self.revision + 1;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(KEYS)?.remove(key)?;
            transaction.open_table(COUNTERS)?.insert("revision", revision)?;
            Ok(transaction.commit()?)
        };
        write().map_err(failed("delete", key))?;
        self.revision = revision;
        self.leases.move_key(key, before.lease, None);
        self.publish(Event::Delete {
            key: key.to_owned(),
            revision,
        });
        Ok(true)
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> Result<Lease, StoreError> {
        let ttl_ms = u64::try_from(ttl.max(SHORTEST_LEASE).as_millis()).unwrap_or(u64::MAX);
        let ttl = Duration::from_millis(ttl_ms);
        let id = self.last_lease + 1;
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(LEASES)?.insert(id, ttl_ms)?;
            transaction.open_table(COUNTERS)?.insert("lease", id)?;
            Ok(transaction.commit()?)
        };
        write().map_err(failed("grant a lease", ""))?;
        self.last_lease = id;
        self.leases.insert(LeaseId(id), ttl, now);
        Ok(Lease { id: LeaseId(id), ttl })
    }

    /// Writes nothing: deadlines live in memory, and a restart gives every lease its full life.
    pub(super) fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        if self.leases.renew(lease, now) {
            Ok(())
        } else {
            Err(StoreError::LeaseGone { lease })
        }
    }

    /// Ends a lease and deletes its keys in one transaction.
    pub(super) fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if !self.leases.contains(lease) {
            return Ok(());
        }
        let keys = self.leases.keys(lease);
        let revision = self.revision + u64::from(!keys.is_empty());
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(KEYS)?;
                for key in &keys {
                    table.remove(key.as_str())?;
                }
            }
            transaction.open_table(LEASES)?.remove(lease.0)?;
            transaction.open_table(COUNTERS)?.insert("revision", revision)?;
            Ok(transaction.commit()?)
        };
        write().map_err(failed("end a lease", ""))?;
        self.revision = revision;
        self.leases.remove(lease);
        for key in keys {
            self.publish(Event::Delete { key, revision });
        }
        Ok(())
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leases.next_deadline()
    }

    /// Ends the leases whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), StoreError> {
        self.leases
            .ended(now)
            .into_iter()
            .try_for_each(|lease| self.revoke(lease))
    }

    pub(super) fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        if after < self.oldest_start {
            return Err(StoreError::WatchLost {
                prefix: prefix.to_owned(),
                reason: format!("changes since revision {after} are no longer kept"),
            });
        }
        self.watchers.retain(|watcher| !watcher.events.is_closed());
        let past = self
            .history
            .iter()
            .filter(|event| event.revision() > after && event.key().starts_with(prefix));
        let past: Vec<_> = past.cloned().collect();
        let (events, receiver) = mpsc::channel(past.len() + WATCH_QUEUE);
        for event in past {
            // The channel was made large enough for all of them.
            drop(events.try_send(Ok(event)));
        }
        self.watchers.push(Watcher {
            prefix: prefix.to_owned(),
            events,
        });
        Ok(Watch::new(prefix, receiver))
    }

    /// Tells watchers and remembers. A watcher that is full is cut off: it must list again.
    fn publish(&mut self, event: Event) {
        self.watchers.retain(|watcher| {
            !event.key().starts_with(&watcher.prefix) || watcher.events.try_send(Ok(event.clone())).is_ok()
        });
        self.history.push_back(event);
        if self.history.len() > HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.oldest_start = forgotten.revision();
        }
    }
}

#[cfg(test)]
mod tests;
