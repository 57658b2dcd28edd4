//! The lines of a group, one per tenant, served by deficit round robin over tokens (Shreedhar and Varghese, "Efficient fair
//! queueing using deficit round robin", SIGCOMM 1995).
//!
//! In every round each line is credited a quantum and may spend its credit on the requests at its front; what is left is
//! kept for the next round, unless the line empties. Rounds are numbered and jumped over instead of played: a line knows
//! from its credit in which round its front can be paid for. So a quantum may be small, and nothing loops over it.

use std::collections::BTreeMap;

use equipoise_types::{RequestId, Timestamp};

use super::{Newcomer, Pending};

/// What a line is credited a round, tokens: about an ordinary request with its answer. In a backlog two tenants differ by
/// this and one request at most.
pub(crate) const QUANTUM_TOKENS: u64 = 1024;

/// Deadline, then arrival: the order inside a line.
type Rank = (Timestamp, u64);

/// One that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) pending: Pending,
    tokens: u64,
    pub(crate) plain: bool,
    /// The cycle of walks in which it was last looked at in vain.
    pub(crate) missed_in: Option<u64>,
}

/// When a line has its turn: round, the deadline of its front, and who came to the ring first.
type Turn = (u64, Timestamp, u64);

#[derive(Clone, Debug)]
struct Line {
    waiting: BTreeMap<Rank, Waiting>,
    /// Sum over those that wait.
    tokens: u64,
    /// Tokens that may be spent in `round`.
    credit: u64,
    round: u64,
    /// Its place in the ring.
    ring: u64,
}

impl Line {
    /// In how many rounds from its own the front can be paid for.
    fn rounds_until(&self, tokens: u64) -> u64 {
        tokens.saturating_sub(self.credit).div_ceil(QUANTUM_TOKENS)
    }

    fn turn(&self) -> Option<Turn> {
        let ((deadline, _), front) = self.waiting.first_key_value()?;
        Some((self.round + self.rounds_until(front.tokens), *deadline, self.ring))
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    by_tenant: BTreeMap<Option<String>, Line>,
    turns: BTreeMap<Turn, Option<String>>,
    ranks: BTreeMap<RequestId, (Option<String>, Rank)>,
    /// Of those, how many have no hard wishes.
    plain: usize,
    round: u64,
    rings: u64,
}

impl Lines {
    pub(crate) fn len(&self) -> usize {
        self.ranks.len()
    }

    pub(crate) fn has_plain(&self) -> bool {
        self.plain > 0
    }

    /// Whether somebody with hard wishes waits.
    pub(crate) fn has_wishful(&self) -> bool {
        self.plain < self.ranks.len()
    }

    /// What waits of a tenant, tokens.
    pub(crate) fn tokens_of(&self, tenant: &Option<String>) -> u64 {
        self.by_tenant.get(tenant).map_or(0, |line| line.tokens)
    }

    /// Who has most waiting, how much, and its last.
    pub(crate) fn longest(&self) -> Option<(&Option<String>, u64, RequestId)> {
        let (tenant, line) = self.by_tenant.iter().max_by_key(|(_, line)| line.tokens)?;
        let (_, last) = line.waiting.last_key_value()?;
        Some((tenant, line.tokens, last.pending.request.id))
    }

    /// Lets one wait; answers how many of its own line go after it.
    pub(super) fn push(&mut self, arrival: u64, newcomer: Newcomer) -> usize {
        let Newcomer {
            pending, tokens, plain, ..
        } = newcomer;
        let (id, tenant) = (pending.request.id, pending.request.tenant.clone());
        let rank = (pending.request.wishes.deadline.unwrap_or(Timestamp::MAX), arrival);
        let line = match self.by_tenant.get_mut(&tenant) {
            Some(line) => line,
            None => {
                self.rings += 1;
                self.by_tenant.entry(tenant.clone()).or_insert(Line {
                    waiting: BTreeMap::new(),
                    tokens: 0,
                    credit: QUANTUM_TOKENS,
                    round: self.round,
                    ring: self.rings,
                })
            }
        };
        let before = line.turn();
        line.waiting.insert(
            rank,
            Waiting {
                pending,
                tokens,
                plain,
                missed_in: None,
            },
        );
        line.tokens = line.tokens.saturating_add(tokens);
        let (after, behind) = (line.turn(), line.waiting.range(rank..).count() - 1);
        self.ranks.insert(id, (tenant.clone(), rank));
        self.plain += usize::from(plain);
        self.turn_changes(before, after, tenant);
        behind
    }

    fn turn_changes(&mut self, before: Option<Turn>, after: Option<Turn>, tenant: Option<String>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.turns.remove(&before);
        }
        if let Some(after) = after {
            self.turns.insert(after, tenant);
        }
    }

    /// The first in turn that `wanted` says yes to, with the number of its arrival. One that is passed over has its turn
    /// taken by the next of its line.
    pub(crate) fn first(&self, wanted: impl Fn(&Waiting) -> bool) -> Option<(u64, &Pending)> {
        self.turns.values().find_map(|tenant| {
            let mut line = self.by_tenant.get(tenant)?.waiting.iter();
            let ((_, arrival), found) = line.find(|(_, waiting)| wanted(waiting))?;
            Some((*arrival, &found.pending))
        })
    }

    /// Notes that there is no room for a request; `false` for a plain one, which stands for all.
    pub(crate) fn missed(&mut self, request: RequestId, cycle: u64) -> bool {
        let Some((tenant, rank)) = self.ranks.get(&request) else {
            return true;
        };
        let line = self.by_tenant.get_mut(tenant);
        let Some(waiting) = line.and_then(|line| line.waiting.get_mut(rank)) else {
            return true;
        };
        waiting.missed_in = Some(cycle);
        !waiting.plain
    }

    /// Takes one out; `served`: its line pays for it.
    pub(crate) fn remove(&mut self, request: RequestId, served: bool) -> Option<Pending> {
        let (tenant, rank) = self.ranks.remove(&request)?;
        let line = self.by_tenant.get_mut(&tenant)?;
        let before = line.turn();
        let gone = line.waiting.remove(&rank)?;
        line.tokens = line.tokens.saturating_sub(gone.tokens);
        self.plain -= usize::from(gone.plain);
        if served {
            let rounds = line.rounds_until(gone.tokens);
            line.credit = (line.credit + rounds * QUANTUM_TOKENS).saturating_sub(gone.tokens);
            // Who had no use for the room while others were served has lost those rounds: credit is no savings.
            line.round = (line.round + rounds).max(self.round);
            self.round = line.round;
        }
        let after = line.turn();
        if after.is_none() {
            self.by_tenant.remove(&tenant);
        }
        self.turn_changes(before, after, tenant);
        Some(gone.pending)
    }
}
