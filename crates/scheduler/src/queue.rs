//! Requests that wait at the router: bounded, by priority and then in order of arrival, each with an end to its patience.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use equipoise_policy::Request;
use equipoise_types::{DecisionId, InstanceId, RequestId, Timestamp};

use crate::{Failure, Gate};

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
}

/// A dispatch with a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated {
    pub(crate) gate: Gate,
    pub(crate) decision: DecisionId,
    pub(crate) quality: f64,
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
    pub(crate) fn push(&mut self, pending: Pending, expires_at: Timestamp) -> u32 {
        let place = (Reverse(pending.request.wishes.priority), self.arrivals);
        self.arrivals += 1;
        self.places.insert(pending.request.id, (place, expires_at));
        self.expiries.insert((expires_at, place));
        self.waiting.insert(place, pending);
        self.ahead_of(place)
    }

    /// True where somebody with plain wishes waits who has asked for the same and may not be overtaken.
    pub(crate) fn waits_before(&self, request: &Request) -> bool {
        let last = (Reverse(request.wishes.priority), u64::MAX);
        self.waiting
            .range(..=last)
            .any(|(_, before)| before.request.target == request.target && before.request.wishes.are_plain())
    }

    pub(crate) fn remove(&mut self, request: RequestId) -> Option<Pending> {
        let (place, expires_at) = self.places.remove(&request)?;
        self.expiries.remove(&(expires_at, place));
        self.waiting.remove(&place)
    }

    /// How many wait before a place.
    pub(crate) fn ahead_of(&self, place: Place) -> u32 {
        u32::try_from(self.waiting.range(..place).count()).unwrap_or(u32::MAX)
    }

    /// The next one after `after` (from the front with `None`) that `wanted` says yes to.
    pub(crate) fn next(
        &self,
        after: Option<Place>,
        wanted: impl Fn(Place, &Pending) -> bool,
    ) -> Option<(Place, &Pending)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.waiting.range((from, Unbounded));
        rest.find(|(place, pending)| wanted(**place, pending))
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
