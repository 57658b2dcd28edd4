//! Picks that are out. Each leaves once: by a report, or because nobody reported on it in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use equipoise_types::DecisionId;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use crate::pick::Pick;
use crate::server::State;

/// Each is about a kilobyte. A client that never reports reaches this instead of the end of the memory.
const MOST_OPEN: usize = 100_000;
/// How late an expiry may come.
const SWEEP: Duration = Duration::from_millis(50);

/// Empty once the pick has left.
type Cell = Arc<Mutex<Option<Pick>>>;

struct Open {
    pick: Cell,
    report_within: Duration,
    expires_at: Instant,
}

#[derive(Default)]
struct Book {
    picks: BTreeMap<DecisionId, Open>,
    expiries: BTreeSet<(Instant, DecisionId)>,
}

impl Book {
    fn remove(&mut self, decision: DecisionId) -> Option<Open> {
        let open = self.picks.remove(&decision)?;
        self.expiries.remove(&(open.expires_at, decision));
        Some(open)
    }

    fn insert(&mut self, decision: DecisionId, open: Open) {
        self.expiries.insert((open.expires_at, decision));
        self.picks.insert(decision, open);
    }
}

/// All of a router. What is said of a pick takes the scheduler's lock, and is said under the pick's own lock, never under the
/// book's.
#[derive(Default)]
pub(crate) struct OpenPicks(Mutex<Book>);

impl OpenPicks {
    /// Whether one more may be out.
    pub(crate) fn has_room(&self) -> Result<(), Status> {
        if self.len() < MOST_OPEN {
            return Ok(());
        }
        let message = format!("{MOST_OPEN} picks are open; report what became of them");
        Err(Status::resource_exhausted(message))
    }

    fn len(&self) -> usize {
        self.0.lock().picks.len()
    }

    pub(crate) fn insert(&self, pick: Pick, report_within: Duration) {
        let decision = pick.decision();
        let open = Open {
            pick: Arc::new(Mutex::new(Some(pick))),
            report_within,
            expires_at: Instant::now() + report_within,
        };
        self.0.lock().insert(decision, open);
    }

    /// Takes one out, if it is there.
    pub(crate) fn take(&self, decision: DecisionId) -> Option<Pick> {
        self.take_with_deadline(decision).map(|(pick, _)| pick)
    }

    /// The same, with how long it may go without a report.
    pub(crate) fn take_with_deadline(&self, decision: DecisionId) -> Option<(Pick, Duration)> {
        let open = self.0.lock().remove(decision)?;
        let pick = open.pick.lock().take()?;
        Some((pick, open.report_within))
    }

    /// Says something of one that is out, which puts its expiry off. False if it is not.
    pub(crate) fn update(&self, decision: DecisionId, act: impl FnOnce(&mut Pick)) -> bool {
        let Some(cell) = self.renew(decision) else {
            return false;
        };
        let mut pick = cell.lock();
        // Taken out between the two locks: who took it has the last word.
        pick.as_mut().map(act).is_some()
    }

    fn renew(&self, decision: DecisionId) -> Option<Cell> {
        let mut book = self.0.lock();
        let Book { picks, expiries } = &mut *book;
        let open = picks.get_mut(&decision)?;
        let before = std::mem::replace(&mut open.expires_at, Instant::now() + open.report_within);
        expiries.remove(&(before, decision));
        expiries.insert((open.expires_at, decision));
        Some(Arc::clone(&open.pick))
    }

    fn take_expired(&self, now: Instant) -> Vec<Cell> {
        let mut book = self.0.lock();
        let mut expired = Vec::new();
        while let Some(&(at, decision)) = book.expiries.first()
            && at <= now
        {
            expired.extend(book.remove(decision).map(|open| open.pick));
        }
        expired
    }

    /// Lets go of what nobody reports on; runs until dropped.
    pub(crate) async fn keep_time(self: Arc<Self>, state: Arc<State>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            for cell in self.take_expired(now) {
                let pick = cell.lock().take();
                if let Some(pick) = pick {
                    state.gateway.expired_picks.inc();
                    tracing::debug!(decision = pick.decision_name(), "a pick expired");
                }
            }
            state
                .gateway
                .open_picks
                .set(i64::try_from(self.len()).unwrap_or(i64::MAX));
        }
    }
}
