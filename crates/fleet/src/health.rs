//! Whether an instance may get work: what its agent says, and what happened to requests sent there. A circuit breaker:
//! closed, open after failures, half-open for one request on trial, and a slow return after that.

use std::time::Duration;

use equipoise_types::{RequestId, Timestamp};
use serde::{Deserialize, Serialize};

/// So many failures in a row take an instance out.
const FAILURES_TO_EJECT: u32 = 3;
/// And so does this share of failures, among about [`MEMORY_OUTCOMES`] outcomes: one that fails every other request never
/// fails three in a row for long.
const FAILED_SHARE_TO_EJECT: f64 = 0.5;
const MEMORY_OUTCOMES: f64 = 16.0;
/// The first ejection lasts this long; each further one twice as long, up to the longest.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// A good probe ends an ejection early so many times in a row. One whose probe is well and whose requests fail is believed
/// less and less.
const EARLY_RETURNS: u32 = 2;
/// One that returns gets its full share after this long, and begins with the least.
const RETURN: Duration = Duration::from_secs(5);
const LEAST_SHARE: f64 = 0.1;

/// Where an instance's circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Breaker {
    /// It gets work.
    Closed,
    /// It gets none until then.
    Open(Timestamp),
    /// It gets one request, on trial.
    HalfOpen {
        /// The one that is out, if it is.
        trial: Option<RequestId>,
    },
}

/// Health of one instance, active (probes) and passive (requests). A client's error never counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    probed_healthy: bool,
    /// It has been well before: what comes for the first time has nothing to return from.
    proven: bool,
    breaker: Breaker,
    failures_in_a_row: u32,
    /// Share of failures among the last outcomes, and how many outcomes there were.
    failed_share: f64,
    outcomes: f64,
    ejections_in_a_row: u32,
    failed_at: Timestamp,
    returned_at: Option<Timestamp>,
    /// It is back, its probe is well, and no request has been there since.
    untried: bool,
}

impl Default for Health {
    /// A new instance is trusted until something speaks against it.
    fn default() -> Self {
        Self {
            probed_healthy: true,
            proven: false,
            breaker: Breaker::Closed,
            failures_in_a_row: 0,
            failed_share: 0.0,
            outcomes: 0.0,
            ejections_in_a_row: 0,
            failed_at: Timestamp::ZERO,
            returned_at: None,
            untried: false,
        }
    }
}

impl Health {
    /// Of an instance that was gone and is back at `now`.
    pub(crate) fn returned(now: Timestamp) -> Self {
        Self {
            proven: true,
            returned_at: Some(now),
            untried: true,
            ..Self::default()
        }
    }

    /// True where the next request should show whether it serves again: it is back, says its probe, and nobody has asked
    /// since. One that no policy prefers would stay in doubt for as long as the others suffice.
    #[must_use]
    pub fn awaits_trial(&self, now: Timestamp) -> bool {
        let on_trial = self.breaker == Breaker::HalfOpen { trial: None };
        (self.untried || on_trial) && self.is_available(now)
    }

    /// True where it may get work at `now`.
    #[must_use]
    pub fn is_available(&self, now: Timestamp) -> bool {
        self.probed_healthy && self.admits(now)
    }

    /// What the agent's last probe said; true before the first.
    #[must_use]
    pub fn is_probed_healthy(&self) -> bool {
        self.probed_healthy
    }

    /// True where its breaker lets a request through at `now`.
    #[must_use]
    pub fn admits(&self, now: Timestamp) -> bool {
        match self.breaker(now) {
            Breaker::Closed => true,
            Breaker::Open(_) => false,
            Breaker::HalfOpen { trial } => trial.is_none(),
        }
    }

    /// Its circuit breaker at `now`.
    #[must_use]
    pub fn breaker(&self, now: Timestamp) -> Breaker {
        match self.breaker {
            Breaker::Open(until) if until <= now => Breaker::HalfOpen { trial: None },
            breaker => breaker,
        }
    }

    /// The share of its ordinary work that it may have at `now`, above 0 and at most 1: one that was out comes back slowly.
    #[must_use]
    pub fn share(&self, now: Timestamp) -> f64 {
        let Some(since) = self.returned_at else { return 1.0 };
        let part = now.secs_since(since) / RETURN.as_secs_f64();
        (LEAST_SHARE + (1.0 - LEAST_SHARE) * part).clamp(LEAST_SHARE, 1.0)
    }

    /// What the agent's probe said at `at`; it is told at `now`. A good one after a bad one closes the breaker. A good one
    /// after a failure puts the instance on trial at once: a process that was restarted is not kept waiting.
    pub(crate) fn probed(&mut self, now: Timestamp, at: Timestamp, healthy: bool) {
        if healthy {
            if !self.probed_healthy {
                let proven = self.proven;
                *self = Self::returned(now);
                if !proven {
                    (self.returned_at, self.untried) = (None, false);
                }
            }
            let early = self.ejections_in_a_row <= EARLY_RETURNS && at > self.failed_at;
            if early && matches!(self.breaker, Breaker::Open(_)) {
                self.breaker = Breaker::HalfOpen { trial: None };
            }
            self.proven = true;
        }
        self.probed_healthy = healthy;
    }

    /// A request is sent there.
    pub(crate) fn dispatched(&mut self, now: Timestamp, request: RequestId) {
        self.untried = false;
        if let Breaker::HalfOpen { trial: None } = self.breaker(now) {
            self.breaker = Breaker::HalfOpen { trial: Some(request) };
        }
    }

    /// A request was answered.
    pub(crate) fn succeeded(&mut self, now: Timestamp) {
        self.proven = true;
        self.failures_in_a_row = 0;
        self.note_outcome(0.0);
        // What was sent before it was ejected says little of now.
        if matches!(self.breaker(now), Breaker::HalfOpen { .. }) {
            *self = Self::returned(now);
            self.untried = false;
        }
        if matches!(self.breaker, Breaker::Closed) {
            self.ejections_in_a_row = 0;
        }
    }

    /// A request could not be served there, through no fault of the client.
    pub(crate) fn failed(&mut self, now: Timestamp) {
        self.failed_at = self.failed_at.max(now);
        self.failures_in_a_row += 1;
        self.note_outcome(1.0);
        let eject = match self.breaker(now) {
            Breaker::HalfOpen { .. } => true,
            // Those that were out there when it was ejected say the same once more.
            Breaker::Open(_) => false,
            Breaker::Closed => {
                let often = self.outcomes >= MEMORY_OUTCOMES && self.failed_share > FAILED_SHARE_TO_EJECT;
                often || self.failures_in_a_row >= FAILURES_TO_EJECT
            }
        };
        if eject {
            let span = FIRST_EJECTION * 2_u32.pow(self.ejections_in_a_row.min(5));
            self.breaker = Breaker::Open(now + span.min(LONGEST_EJECTION));
            self.ejections_in_a_row += 1;
            (self.failures_in_a_row, self.failed_share, self.outcomes) = (0, 0.0, 0.0);
        }
    }

    /// A request ended there without a verdict: a trial may begin anew.
    pub(crate) fn withdrawn(&mut self, request: RequestId) {
        if self.breaker == (Breaker::HalfOpen { trial: Some(request) }) {
            self.breaker = Breaker::HalfOpen { trial: None };
        }
    }

    fn note_outcome(&mut self, failed: f64) {
        self.outcomes = (self.outcomes + 1.0).min(MEMORY_OUTCOMES);
        self.failed_share += (failed - self.failed_share) / self.outcomes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_secs_f64(seconds)
    }

    fn ejected(now: Timestamp) -> Health {
        let mut health = Health::default();
        health.probed(now, now, true);
        for _ in 0..3 {
            assert!(health.is_available(now));
            health.failed(now);
        }
        assert!(!health.is_available(now));
        health
    }

    #[test]
    fn three_failures_open_it_and_one_trial_closes_it() {
        let mut health = ejected(at(10.0));
        assert_eq!(health.breaker(at(10.9)), Breaker::Open(at(11.0)));
        assert!(health.admits(at(11.0)), "half-open");
        health.dispatched(at(11.0), RequestId(7));
        assert!(!health.admits(at(11.0)), "one at a time");
        health.withdrawn(RequestId(7));
        assert!(health.admits(at(11.0)), "its client left: the next one is the trial");
        health.dispatched(at(11.0), RequestId(8));
        health.failed(at(11.5));
        assert_eq!(health.breaker(at(12.0)), Breaker::Open(at(13.5)), "twice as long");
        health.dispatched(at(13.5), RequestId(9));
        health.succeeded(at(14.0));
        assert_eq!(health.breaker(at(14.0)), Breaker::Closed);
        // And forgotten is how often it failed before.
        for _ in 0..3 {
            health.failed(at(20.0));
        }
        assert_eq!(health.breaker(at(20.0)), Breaker::Open(at(21.0)));
    }

    #[test]
    fn one_that_returns_gets_its_share_back_slowly() {
        let mut health = ejected(at(0.0));
        health.dispatched(at(1.0), RequestId(1));
        health.succeeded(at(2.0));
        let shares: Vec<f64> = [2.0, 4.5, 7.0, 9.0].map(|time| health.share(at(time))).to_vec();
        assert_eq!(shares, [0.1, 0.55, 1.0, 1.0]);
        assert_eq!(
            Health::default().share(at(0.0)),
            1.0,
            "what is new has nothing to return from"
        );
    }

    #[test]
    fn a_good_probe_after_a_bad_one_closes_it() {
        let mut health = ejected(at(0.0));
        health.probed(at(0.1), at(0.1), false);
        assert!(!health.is_available(Timestamp::MAX));
        health.probed(at(0.2), at(0.2), true);
        assert_eq!(health.breaker(at(0.2)), Breaker::Closed);
        assert!(health.is_available(at(0.2)) && health.share(at(0.2)) < 0.2);
        let mut fresh = Health::default();
        fresh.probed(at(0.0), at(0.0), false);
        fresh.probed(at(1.0), at(1.0), true);
        assert_eq!(fresh.share(at(1.0)), 1.0, "it was not up yet");
        assert!(!fresh.awaits_trial(at(1.0)), "nor is there anything to doubt");
    }

    #[test]
    fn who_is_back_by_its_probe_awaits_one_trial() {
        let mut restarted = Health::default();
        restarted.probed(at(0.0), at(0.0), true);
        restarted.probed(at(1.0), at(1.0), false);
        assert!(!restarted.awaits_trial(at(1.0)));
        restarted.probed(at(2.0), at(2.0), true);
        assert!(restarted.awaits_trial(at(2.0)));
        restarted.dispatched(at(2.1), RequestId(1));
        assert!(!restarted.awaits_trial(at(2.1)), "it has its trial");

        let mut ejected = ejected(at(10.0));
        assert!(
            !ejected.awaits_trial(at(11.0)),
            "only time has passed: that is no sign of life"
        );
        ejected.probed(at(11.0), at(11.0), true);
        assert!(ejected.awaits_trial(at(11.0)));
        ejected.dispatched(at(11.0), RequestId(2));
        assert!(!ejected.awaits_trial(at(11.0)));
        ejected.succeeded(at(11.5));
        assert!(!ejected.awaits_trial(at(11.5)), "it has stood it");
    }

    #[test]
    fn a_good_probe_after_a_failure_is_reason_enough_for_a_trial_but_not_for_ever() {
        let mut health = ejected(at(10.0));
        health.probed(at(10.1), at(9.9), true);
        assert!(!health.admits(at(10.1)), "the probe is from before the failure");
        let mut now = 10.2;
        for round in 0..4 {
            health.probed(at(now), at(now), true);
            assert_eq!(health.admits(at(now)), round < 2, "round {round}");
            health.dispatched(at(now), RequestId(round));
            health.failed(at(now + 0.05));
            now += 0.1;
        }
    }

    #[test]
    fn one_that_fails_most_of_the_time_is_ejected_although_never_thrice_in_a_row() {
        let mut health = Health::default();
        let mut outcomes = 0;
        while health.admits(at(0.0)) {
            match outcomes % 3 {
                0 => health.succeeded(at(0.0)),
                _ => health.failed(at(0.0)),
            }
            outcomes += 1;
            assert!(outcomes < 40, "it should be out by now");
        }
        let mut fair = Health::default();
        for outcome in 0..1000 {
            match outcome % 3 {
                0 => fair.failed(at(0.0)),
                _ => fair.succeeded(at(0.0)),
            }
            assert!(fair.admits(at(0.0)));
        }
    }
}
