//! What routers see: snapshots, deltas and one another's load.
//!
//! One state behind one lock, never held across an await. Each watcher has a bounded channel; one that falls behind
//! gets a fresh snapshot once it has room again, so nothing is buffered without bound and nothing is lost for good.

use crate::fleet::{Changes, Fleet};
use equipoise_proto::v1::routing_update::Update;
use equipoise_proto::v1::{Delta, Heartbeat, InFlight, LedgerReport, PeerLoad, RoutingUpdate, Snapshot};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Updates that a watcher may lag behind.
const WATCH_QUEUE: usize = 16;
/// Silence after which a heartbeat is sent.
const HEARTBEAT_AFTER: Duration = Duration::from_secs(1);
/// A ledger older than this says nothing about the present.
const LEDGER_LIFE: Duration = Duration::from_secs(3);

/// A router's latest ledger.
#[derive(Debug)]
struct Ledger {
    received: Instant,
    unix_ns: u64,
    in_flight: Vec<InFlight>,
}

#[derive(Debug)]
struct Watcher {
    router: String,
    /// The id of the router's process; empty where it is not known.
    process: String,
    updates: mpsc::Sender<RoutingUpdate>,
    /// It missed something: the next thing it gets is a snapshot.
    needs_snapshot: bool,
    /// The peers' load as last sent.
    peers: BTreeMap<String, PeerLoad>,
    last_sent: Instant,
}

/// What one tick did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticked {
    /// Watchers that fell behind in this tick.
    pub(crate) overflowed: u64,
    pub(crate) watchers: usize,
    pub(crate) routers: usize,
}

/// The fleet, the routers' ledgers and the open watches.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) fleet: Fleet,
    ledgers: BTreeMap<String, Ledger>,
    watchers: Vec<Watcher>,
    revision: u64,
    epoch: u64,
}

impl Routing {
    /// `epoch` must differ from that of the process before.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            fleet: Fleet::default(),
            ledgers: BTreeMap::new(),
            watchers: Vec::new(),
            revision: 0,
            epoch,
        }
    }

    /// The revision of the last update.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Opens a watch; its first update, a snapshot, comes with the next tick. `None` while another process watches under
    /// that name.
    pub(crate) fn watch(
        &mut self,
        router: String,
        process: String,
        now: Instant,
    ) -> Option<mpsc::Receiver<RoutingUpdate>> {
        let another = |watcher: &Watcher| {
            let known = !watcher.process.is_empty() && !process.is_empty();
            watcher.router == router && known && watcher.process != process && !watcher.updates.is_closed()
        };
        if self.watchers.iter().any(another) {
            return None;
        }
        let (updates, receiver) = mpsc::channel(WATCH_QUEUE);
        let peers = BTreeMap::new();
        self.watchers.push(Watcher {
            router,
            process,
            updates,
            needs_snapshot: true,
            peers,
            last_sent: now,
        });
        Some(receiver)
    }

    /// Ends all watches.
    pub(crate) fn end_watches(&mut self) {
        self.watchers.clear();
    }

    /// Takes a router's whole ledger.
    pub(crate) fn take_ledger(&mut self, report: LedgerReport, now: Instant) {
        let LedgerReport {
            router,
            unix_ns,
            in_flight,
            ..
        } = report;
        self.ledgers.insert(
            router,
            Ledger {
                received: now,
                unix_ns,
                in_flight,
            },
        );
    }

    /// Routers whose ledger is fresh.
    pub(crate) fn routers(&self, now: Instant) -> Vec<String> {
        self.fresh_ledgers(now).map(|(router, _)| router.clone()).collect()
    }

    /// What all routers together have in flight on each instance.
    pub(crate) fn in_flight(&self, now: Instant) -> BTreeMap<String, PeerLoad> {
        self.load_of_others(None, now)
    }

    fn fresh_ledgers(&self, now: Instant) -> impl Iterator<Item = (&String, &Ledger)> {
        self.ledgers
            .iter()
            .filter(move |(_, ledger)| now.duration_since(ledger.received) <= LEDGER_LIFE)
    }

    fn load_of_others(&self, router: Option<&str>, now: Instant) -> BTreeMap<String, PeerLoad> {
        let others = || {
            self.fresh_ledgers(now)
                .filter(|(name, _)| Some(name.as_str()) != router)
        };
        let routers = u32::try_from(others().count()).unwrap_or(u32::MAX);
        if routers == 0 {
            return BTreeMap::new();
        }
        // A ledger that does not name an instance says that nothing is in flight there: all of them are in every sum.
        let oldest_unix_ns = others().map(|(_, ledger)| ledger.unix_ns).min().unwrap_or(0);
        let nothing = |instance: &String| PeerLoad {
            instance: instance.clone(),
            oldest_unix_ns,
            routers,
            ..PeerLoad::default()
        };
        let mut sums: BTreeMap<String, PeerLoad> = BTreeMap::new();
        for (_, ledger) in others() {
            for part in &ledger.in_flight {
                let sum = sums
                    .entry(part.instance.clone())
                    .or_insert_with(|| nothing(&part.instance));
                sum.in_flight = sum.in_flight.saturating_add(part.requests);
                sum.pending_prefill_tokens = sum.pending_prefill_tokens.saturating_add(part.pending_prefill_tokens);
                sum.pending_decode_tokens = sum.pending_decode_tokens.saturating_add(part.pending_decode_tokens);
                sum.prefilling = sum.prefilling.saturating_add(part.prefilling);
                sum.overdue_s = sum.overdue_s.max(part.overdue_s);
            }
        }
        // A price matters also where nobody has anything in flight: that may be its doing.
        for (instance, price) in self.fleet.prices() {
            sums.entry(instance.clone()).or_insert_with(|| nothing(instance)).price = price;
        }
        sums
    }

    /// Sends each watcher what changed since the last tick, or a heartbeat after a second of silence.
    pub(crate) fn tick(&mut self, now: Instant) -> Ticked {
        self.ledgers
            .retain(|_, ledger| now.duration_since(ledger.received) <= LEDGER_LIFE);
        let changes = self.fleet.drain_changes().unwrap_or_default();
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.retain(|watcher| !watcher.updates.is_closed());
        self.revision += 1;
        let mut overflowed = 0;
        for watcher in &mut watchers {
            if !self.serve(watcher, &changes, now) {
                overflowed += 1;
            }
        }
        self.watchers = watchers;
        Ticked {
            overflowed,
            watchers: self.watchers.len(),
            routers: self.ledgers.len(),
        }
    }

    /// False if the watcher fell behind just now.
    fn serve(&self, watcher: &mut Watcher, changes: &Changes, now: Instant) -> bool {
        // This state is the channel's only sender: room that is there stays there.
        if watcher.updates.capacity() == 0 {
            return std::mem::replace(&mut watcher.needs_snapshot, true);
        }
        let update = if watcher.needs_snapshot {
            watcher.needs_snapshot = false;
            watcher.peers.clear();
            Update::Snapshot(Snapshot {
                instances: self.fleet.states(),
            })
        } else {
            let peers = self.peer_changes(watcher, now);
            if *changes != Changes::default() || !peers.is_empty() {
                let Changes {
                    upserted,
                    removed,
                    samples,
                } = changes;
                let (upserted, removed, samples) = (upserted.clone(), removed.clone(), samples.clone());
                Update::Delta(Delta {
                    upserted,
                    removed,
                    samples,
                    peers,
                })
            } else if now.duration_since(watcher.last_sent) >= HEARTBEAT_AFTER {
                Update::Heartbeat(Heartbeat {})
            } else {
                return true;
            }
        };
        watcher.last_sent = now;
        drop(watcher.updates.try_send(RoutingUpdate {
            revision: self.revision,
            epoch: self.epoch,
            update: Some(update),
        }));
        true
    }

    /// The oldest fresh ledger but a router's own; 0 without any.
    fn oldest_of_others(&self, router: &str, now: Instant) -> u64 {
        let others = self.fresh_ledgers(now).filter(|(name, _)| *name != router);
        others.map(|(_, ledger)| ledger.unix_ns).min().unwrap_or(0)
    }

    /// The peers' load where it differs from what the watcher knows; nothing in flight is said once.
    fn peer_changes(&self, watcher: &mut Watcher, now: Instant) -> Vec<PeerLoad> {
        let current = self.load_of_others(Some(&watcher.router), now);
        let mut changes: Vec<_> = current
            .values()
            .filter(|load| watcher.peers.get(&load.instance) != Some(load))
            .cloned()
            .collect();
        let oldest_unix_ns = self.oldest_of_others(&watcher.router, now);
        for instance in watcher.peers.keys().filter(|&instance| !current.contains_key(instance)) {
            changes.push(PeerLoad {
                instance: instance.clone(),
                oldest_unix_ns,
                ..PeerLoad::default()
            });
        }
        watcher.peers = current;
        changes
    }
}

#[cfg(test)]
mod tests;
