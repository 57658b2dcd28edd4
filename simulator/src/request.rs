//! What a run remembers of each request from its arrival to its end, and of none after that.

use std::collections::VecDeque;

use equipoise_estimate::Bounds;
use equipoise_trace::WorkloadRecord;
use equipoise_types::{DecisionId, MilliJoules, RequestId, Timestamp};

/// Answer tokens after which progress is reported to the scheduler...
pub(crate) const REPORT_TOKENS: u32 = 16;
/// ...or time after which it is, nanoseconds. The live router follows the same rule.
pub(crate) const REPORT_NANOS: u64 = 100_000_000;

/// One request on its way.
#[derive(Clone, Debug)]
pub(crate) struct RequestState {
    pub(crate) id: RequestId,
    pub(crate) record: WorkloadRecord,
    /// The router that it came to.
    pub(crate) home: u32,
    /// Where it was sent last.
    pub(crate) instance: Option<u32>,
    /// Whether it ever waited at the router.
    pub(crate) queued: bool,
    /// Prompt tokens that its engine had computed before, for others.
    pub(crate) cached_tokens: u32,
    /// Its answer was cut at the end of the model's context.
    pub(crate) truncated: bool,
    pub(crate) first_token_at: Option<Timestamp>,
    /// Energy of its part of the steps of the engine that it is in, picojoules.
    pub(crate) picojoules: u128,
    /// The same in whole millijoules, once that engine has done with it.
    pub(crate) energy: MilliJoules,
    pub(crate) generated: u32,
    /// Its answer is held back until it is judged.
    pub(crate) held: bool,
    /// The decision that sent it where it is.
    pub(crate) decision: Option<DecisionId>,
    /// A first answer that was not good enough to show: where it came from, what it took, its tokens.
    pub(crate) replaced: Option<(u32, MilliJoules, u32)>,
    /// What was promised when it was sent: when that was, and the bounds.
    pub(crate) promise: Option<(Timestamp, Bounds)>,
    pub(crate) reported: u32,
    pub(crate) reported_at: Timestamp,
}

impl RequestState {
    fn new(id: RequestId, record: WorkloadRecord) -> Self {
        Self {
            id,
            record,
            home: 0,
            instance: None,
            queued: false,
            cached_tokens: 0,
            truncated: false,
            first_token_at: None,
            picojoules: 0,
            energy: MilliJoules::ZERO,
            generated: 0,
            held: false,
            decision: None,
            replaced: None,
            promise: None,
            reported: 0,
            reported_at: Timestamp::ZERO,
        }
    }

    /// It goes to an instance; the second time because the first answer was not good enough.
    pub(crate) fn sent(&mut self, instance: u32, decision: DecisionId, held: bool) {
        if let Some(first) = self.instance.replace(instance) {
            self.replaced = Some((first, self.energy, self.generated));
            self.energy = MilliJoules::ZERO;
            self.generated = 0;
        }
        (self.decision, self.held) = (Some(decision), held);
    }

    /// Its instance is gone, and it is to be sent again. What it took there is that instance's, for nothing.
    pub(crate) fn start_again(&mut self) {
        self.instance = None;
        self.energy = MilliJoules::ZERO;
        (self.picojoules, self.generated, self.reported, self.held) = (0, 0, 0, false);
    }

    /// Notes the first token.
    pub(crate) fn first_token(&mut self, now: Timestamp) {
        self.generated = 1;
        self.reported = 1;
        self.reported_at = now;
    }

    /// Notes one more token; how many to report now, if it is time.
    pub(crate) fn token(&mut self, now: Timestamp) -> Option<u32> {
        self.generated += 1;
        let count = self.generated - self.reported;
        if count < REPORT_TOKENS && now.0 - self.reported_at.0 < REPORT_NANOS {
            return None;
        }
        self.reported = self.generated;
        self.reported_at = now;
        Some(count)
    }
}

/// The place of a request while it is open; another's afterwards. Engines know requests by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u32);

impl Place {
    const NOWHERE: Self = Self(u32::MAX);

    /// As an engine calls the request.
    pub(crate) fn engine_id(self) -> RequestId {
        RequestId(u64::from(self.0))
    }

    /// Of the request that an engine calls so.
    pub(crate) fn of_engine_id(id: RequestId) -> Self {
        Self(u32::try_from(id.0).unwrap_or(u32::MAX))
    }
}

/// All open requests. Ids count requests in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    states: Vec<RequestState>,
    vacant: Vec<Place>,
    /// Places by id, from `first` on: four bytes for each request that is younger than the oldest open one.
    places: VecDeque<Place>,
    first: u64,
    open: usize,
}

impl Requests {
    /// One more arrives; it gets the next id.
    pub(crate) fn arrive(&mut self, record: WorkloadRecord) -> Place {
        let id = RequestId(self.arrived());
        let state = RequestState::new(id, record);
        let place = if let Some(place) = self.vacant.pop() {
            self.states[place.0 as usize] = state;
            place
        } else {
            self.states.push(state);
            Place(u32::try_from(self.states.len() - 1).unwrap_or(u32::MAX))
        };
        self.places.push_back(place);
        self.open += 1;
        place
    }

    /// Requests that have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Requests that have not ended.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Where an open request is; `None` of one that has ended or is to come.
    pub(crate) fn place(&self, id: RequestId) -> Option<Place> {
        let index = usize::try_from(id.0.checked_sub(self.first)?).ok()?;
        self.places.get(index).copied().filter(|place| *place != Place::NOWHERE)
    }

    pub(crate) fn at(&self, place: Place) -> &RequestState {
        &self.states[place.0 as usize]
    }

    pub(crate) fn at_mut(&mut self, place: Place) -> &mut RequestState {
        &mut self.states[place.0 as usize]
    }

    /// One has ended; hands out what was known of it.
    pub(crate) fn end(&mut self, place: Place) -> RequestState {
        let nobody = RequestState::new(RequestId(0), WorkloadRecord::default());
        let state = std::mem::replace(self.at_mut(place), nobody);
        let index = usize::try_from(state.id.0 - self.first).unwrap_or(usize::MAX);
        if let Some(entry) = self.places.get_mut(index) {
            *entry = Place::NOWHERE;
            self.vacant.push(place);
            self.open -= 1;
        }
        while self.places.front() == Some(&Place::NOWHERE) {
            self.places.pop_front();
            self.first += 1;
        }
        state
    }

    /// The places of all that are open, by id.
    pub(crate) fn open_places(&self) -> Vec<Place> {
        let open = self.places.iter().copied();
        open.filter(|place| *place != Place::NOWHERE).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_ids_are_not() {
        let mut requests = Requests::default();
        let places: Vec<Place> = (0..3).map(|_| requests.arrive(WorkloadRecord::default())).collect();
        assert_eq!(requests.end(places[1]).id, RequestId(1));
        assert_eq!(
            (requests.place(RequestId(1)), requests.place(RequestId(3))),
            (None, None)
        );
        assert_eq!((requests.open(), requests.arrived()), (2, 3));
        let next = requests.arrive(WorkloadRecord::default());
        assert_eq!(next, places[1]);
        assert_eq!(requests.at(next).id, RequestId(3));
        assert_eq!(requests.end(places[0]).id, RequestId(0));
        assert_eq!(requests.places.len(), 2, "the oldest are forgotten");
        assert_eq!(requests.place(RequestId(3)), Some(next));
        assert_eq!(requests.open_places(), [places[2], next]);
    }
}
