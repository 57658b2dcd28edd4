//! Leases of the embedded store: when each ends, and which keys it takes with it.

use crate::LeaseId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Held {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

/// All leases that have not ended.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<LeaseId, Held>,
}

impl Leases {
    pub(super) fn insert(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        self.held.insert(
            lease,
            Held {
                ttl,
                deadline: now + ttl,
                keys: BTreeSet::new(),
            },
        );
    }

    pub(super) fn contains(&self, lease: LeaseId) -> bool {
        self.held.contains_key(&lease)
    }

    /// False if the lease is gone.
    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) -> bool {
        self.held
            .get_mut(&lease)
            .map(|held| held.deadline = now + held.ttl)
            .is_some()
    }

    /// Moves a key from one lease to another; either may be none.
    pub(super) fn move_key(&mut self, key: &str, from: Option<LeaseId>, to: Option<LeaseId>) {
        if let Some(held) = from.and_then(|lease| self.held.get_mut(&lease)) {
            held.keys.remove(key);
        }
        if let Some(held) = to.and_then(|lease| self.held.get_mut(&lease)) {
            held.keys.insert(key.to_owned());
        }
    }

    /// The keys of a lease.
    pub(super) fn keys(&self, lease: LeaseId) -> Vec<String> {
        self.held
            .get(&lease)
            .map(|held| held.keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        self.held.remove(&lease);
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.held.values().map(|held| held.deadline).min()
    }

    /// The leases that have ended by `now`.
    pub(super) fn ended(&self, now: Instant) -> Vec<LeaseId> {
        self.held
            .iter()
            .filter(|(_, held)| held.deadline <= now)
            .map(|(&lease, _)| lease)
            .collect()
    }
}
