//! Requests that wait at the router: bounded per model group, by priority and then fairly between tenants, each with an
//! end to its patience.
//!
//! A group is what asks for the same: a model, or `auto`. Inside a group and a priority tenants take turns by deficit round
//! robin over tokens ([`Lines`]), and of those whose turn it is in a round the one with the earliest deadline goes first: a
//! deadline moves a request forward within what its tenant may have, never beyond it. Between groups the oldest goes first;
//! they seldom want the same instances.
//!
//! Where a group is full, whoever has most waiting at the lowest priority loses its last request to one that comes with a
//! higher priority, or from a tenant with less: nobody keeps others out by filling the queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use equipoise_policy::{Request, Target};
use equipoise_types::{DecisionId, InstanceId, RequestId, Timestamp};

use crate::{Failure, Gate};
use lines::{Lines, Waiting};

mod lines;
#[cfg(test)]
mod tests;

/// A request on its way to an instance.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) arrived_at: Timestamp,
    /// Instances that failed it.
    pub(crate) tried: Vec<InstanceId>,
    /// How the last of them failed it.
    pub(crate) last_failure: Option<Failure>,
    /// Answered it with a server error, and is not blamed yet.
    pub(crate) suspect: Option<InstanceId>,
    /// The gate that its answer must pass, with the decision and the predicted quality of the model that gives it.
    pub(crate) gated: Option<Gated>,
    /// It has an answer already that was not sure of itself.
    pub(crate) escalated: bool,
    /// It failed, and waits until the retry budget allows another try.
    pub(crate) owes_retry: bool,
}

/// A dispatch with a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated {
    pub(crate) gate: Gate,
    pub(crate) decision: DecisionId,
    pub(crate) quality: f64,
}

/// A request that is to wait.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) pending: Pending,
    /// Of prompt and expected answer: what its turn costs its tenant.
    pub(crate) tokens: u64,
    /// It stands for all behind it that ask for the same: what it has no room for, they have none for.
    pub(crate) plain: bool,
    pub(crate) expires_at: Timestamp,
}

/// Somebody for whom there is no place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowded {
    pub(crate) request: RequestId,
    /// How many wait in its group.
    pub(crate) waiting: usize,
}

/// Higher priority first.
type GroupKey = (Reverse<i32>, Target);

#[derive(Clone, Debug)]
struct Place {
    group: GroupKey,
    expires_at: Timestamp,
}

/// One look through the queue: who was found to have no use for the room there is.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Targets whose plain requests find no room.
    blocked: Vec<Target>,
    misses: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    groups: BTreeMap<GroupKey, Lines>,
    /// How many wait per target, of any priority.
    counts: BTreeMap<Target, usize>,
    places: BTreeMap<RequestId, Place>,
    expiries: BTreeSet<(Timestamp, RequestId)>,
    ages: BTreeSet<(Timestamp, RequestId)>,
    arrivals: u64,
    /// Requests with hard wishes are tried once in a cycle, which takes as many walks as it needs.
    cycle: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn contains(&self, request: RequestId) -> bool {
        self.places.contains_key(&request)
    }

    /// How many wait for a target.
    pub(crate) fn waiting_for(&self, target: &Target) -> usize {
        self.counts.get(target).copied().unwrap_or(0)
    }

    /// When the one that has waited longest arrived.
    pub(crate) fn oldest_arrival(&self) -> Option<Timestamp> {
        self.ages.first().map(|(at, _)| *at)
    }

    /// Sees to it that a request of so many `tokens` has a place in its group, which holds `limit` at most; answers who had to
    /// leave for it. `Err`: it has no place itself.
    pub(crate) fn make_room(
        &mut self,
        request: &Request,
        tokens: u64,
        limit: usize,
    ) -> Result<Option<Crowded>, Crowded> {
        let waiting = self.waiting_for(&request.target);
        if waiting < limit {
            return Ok(None);
        }
        let crowded = |request| Crowded { request, waiting };
        let Some(loser) = self.loses_to(request, tokens) else {
            return Err(crowded(request.id));
        };
        self.remove(loser);
        Ok(Some(crowded(loser)))
    }

    /// Lets a request wait for which there is room; answers how many may go before it.
    pub(crate) fn push(&mut self, newcomer: Newcomer) -> u32 {
        let Request {
            id,
            ref target,
            ref wishes,
            ..
        } = newcomer.pending.request;
        let key = (Reverse(wishes.priority), target.clone());
        *self.counts.entry(key.1.clone()).or_default() += 1;
        self.expiries.insert((newcomer.expires_at, id));
        self.ages.insert((newcomer.pending.arrived_at, id));
        self.places.insert(
            id,
            Place {
                group: key.clone(),
                expires_at: newcomer.expires_at,
            },
        );
        let arrival = self.arrivals;
        self.arrivals += 1;
        let behind = self.groups.entry(key.clone()).or_default().push(arrival, newcomer);
        let not_below = self.groups.iter().take_while(|((priority, _), _)| *priority <= key.0);
        let ahead = not_below.map(|(_, lines)| lines.len()).sum::<usize>() - 1 - behind;
        u32::try_from(ahead).unwrap_or(u32::MAX)
    }

    /// Who must make room for a newcomer to a full group: the last of whoever has most waiting at the lowest priority, if
    /// that is more than the newcomer's tenant has with it.
    fn loses_to(&self, request: &Request, tokens: u64) -> Option<RequestId> {
        let mut of_target = self
            .groups
            .iter()
            .rev()
            .filter(|((_, target), _)| *target == request.target);
        let ((Reverse(lowest), _), lines) = of_target.next()?;
        if *lowest > request.wishes.priority {
            return None;
        }
        let (tenant, most, last) = lines.longest()?;
        if *lowest == request.wishes.priority {
            let own = lines.tokens_of(&request.tenant).saturating_add(tokens);
            if *tenant == request.tenant || most <= own {
                return None;
            }
        }
        Some(last)
    }

    /// True where somebody plain waits who has asked for the same and may not be overtaken.
    pub(crate) fn waits_before(&self, request: &Request) -> bool {
        let last = Reverse(request.wishes.priority);
        let before = self.groups.iter().take_while(|((priority, _), _)| *priority <= last);
        before
            .filter(|((_, target), _)| *target == request.target)
            .any(|(_, lines)| lines.has_plain())
    }

    /// The next one whose turn it is, as far as this walk knows. At most `misses` with hard wishes are looked at in vain.
    /// `may_retry`: whether those that failed may be sent again.
    pub(crate) fn next(&self, walk: &Walk, misses: usize, may_retry: bool) -> Option<&Pending> {
        let mut best: Option<(Reverse<i32>, u64, &Pending)> = None;
        for ((priority, target), lines) in &self.groups {
            // Groups come by priority: one that has somebody hides those below.
            if best.is_some_and(|(found, ..)| found < *priority) {
                break;
            }
            let blocked = walk.blocked.contains(target);
            let tired = walk.misses >= misses;
            if (blocked || !lines.has_plain()) && (tired || !lines.has_wishful()) {
                continue;
            }
            let wanted = |waiting: &Waiting| {
                if waiting.pending.owes_retry && !may_retry {
                    return false;
                }
                if waiting.plain {
                    !blocked
                } else {
                    !tired && waiting.missed_in != Some(self.cycle)
                }
            };
            if let Some((arrival, pending)) = lines.first(wanted)
                && best.is_none_or(|(_, oldest, _)| arrival < oldest)
            {
                best = Some((*priority, arrival, pending));
            }
        }
        best.map(|(_, _, pending)| pending)
    }

    /// There is no room for this one now.
    pub(crate) fn missed(&mut self, walk: &mut Walk, request: RequestId) {
        let Some(place) = self.places.get(&request) else { return };
        let Some(lines) = self.groups.get_mut(&place.group) else {
            return;
        };
        if lines.missed(request, self.cycle) {
            walk.misses += 1;
        } else {
            walk.blocked.push(place.group.1.clone());
        }
    }

    /// The walk is over. Where it has seen everybody, the next one begins anew.
    pub(crate) fn walked(&mut self, walk: &Walk, misses: usize) {
        if walk.misses < misses {
            self.cycle += 1;
        }
    }

    /// Takes out one whose turn it was: its tenant has had so much.
    pub(crate) fn take(&mut self, request: RequestId) -> Option<Pending> {
        self.leave(request, true)
    }

    /// Takes out one that will not be served, or not through this queue.
    pub(crate) fn remove(&mut self, request: RequestId) -> Option<Pending> {
        self.leave(request, false)
    }

    fn leave(&mut self, request: RequestId, served: bool) -> Option<Pending> {
        let Place { group, expires_at } = self.places.remove(&request)?;
        self.expiries.remove(&(expires_at, request));
        let lines = self.groups.get_mut(&group)?;
        let pending = lines.remove(request, served)?;
        self.ages.remove(&(pending.arrived_at, request));
        if lines.len() == 0 {
            self.groups.remove(&group);
        }
        if let Some(count) = self.counts.get_mut(&group.1) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group.1);
            }
        }
        Some(pending)
    }

    /// When the first patience ends.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Takes out one whose patience has ended.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<Pending> {
        let &(at, request) = self.expiries.first()?;
        if at > now {
            return None;
        }
        self.remove(request)
    }
}
