//! Requests that wait at the router: bounded, by priority and then in order of arrival, each with an end to its patience.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use equipoise_policy::{Request, Target};
use equipoise_types::{InstanceId, RequestId, Timestamp};

/// A request on its way to an instance.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) arrived_at: Timestamp,
    /// Instances that failed it.
    pub(crate) tried: Vec<InstanceId>,
    /// The last of them had no room; else it was at fault.
    pub(crate) overloaded: bool,
}

/// Higher priority first, then who came first.
pub(crate) type Place = (Reverse<i32>, u64);

#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<Place, Pending>,
    places: BTreeMap<RequestId, (Place, Timestamp)>,
    expiries: BTreeSet<(Timestamp, Place)>,
    arrivals: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn contains(&self, request: RequestId) -> bool {
        self.places.contains_key(&request)
    }

    /// Lets a request wait until `expires_at`; answers how many wait before it.
    pub(crate) fn push(&mut self, pending: Pending, expires_at: Timestamp) -> usize {
        let place = (Reverse(pending.request.wishes.priority), self.arrivals);
        self.arrivals += 1;
        self.places.insert(pending.request.id, (place, expires_at));
        self.expiries.insert((expires_at, place));
        self.waiting.insert(place, pending);
        self.waiting.range(..place).count()
    }

    /// True where somebody waits who has asked for the same and may not be overtaken.
    pub(crate) fn waits_before(&self, request: &Request) -> bool {
        let last = (Reverse(request.wishes.priority), u64::MAX);
        self.waiting
            .range(..=last)
            .any(|(_, before)| before.request.target == request.target)
    }

    pub(crate) fn remove(&mut self, request: RequestId) -> Option<Pending> {
        let (place, expires_at) = self.places.remove(&request)?;
        self.expiries.remove(&(expires_at, place));
        self.waiting.remove(&place)
    }

    /// The next one after `after` (from the front with `None`) that asks for none of `blocked`.
    pub(crate) fn next(&self, after: Option<Place>, blocked: &[Target]) -> Option<(Place, &Pending)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.waiting.range((from, Unbounded));
        rest.find(|(_, pending)| !blocked.contains(&pending.request.target))
            .map(|(place, pending)| (*place, pending))
    }

    /// When the first patience ends.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Takes out one whose patience has ended.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<Pending> {
        let &(at, place) = self.expiries.first()?;
        if at > now {
            return None;
        }
        self.expiries.pop_first();
        let pending = self.waiting.remove(&place)?;
        self.places.remove(&pending.request.id);
        Some(pending)
    }
}
