//! What other routers have on one instance: their last report, and what has probably become of it since.
//!
//! A report is old when it comes, and grows older until the next. Requests that it counts leave, others take their places,
//! so it is drawn towards the mean of the reports: for an age `a` and a mean stay `h`,
//!
//! `now ≈ mean + (reported − mean) · e^(−a/h)`
//!
//! which is the report itself where requests stay for long, and the mean where they come and go between two reports (an
//! Ornstein and Uhlenbeck process, the fluctuation of an infinite-server queue about its mean). Without it, routers that
//! act on what is over chase one another: all avoid an instance that was full, and all fill it again when it was empty.

use equipoise_types::Timestamp;

use crate::PeerLoad;
use crate::instance::Observed;

/// Reports of other routers older than this are no longer believed.
const STALE_S: f64 = 3.0;
/// Over how long reports are averaged, and this router's own dispatches.
const MEMORY_S: f64 = 2.0;
/// Weight of one more answered request in the mean stay.
const STAY_WEIGHT: f64 = 0.05;
/// Weight of one more sample in what nobody has claimed.
const UNCLAIMED_WEIGHT: f64 = 0.1;

/// Others' work on one instance, in fractions of requests and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) in_flight: f64,
    pub(crate) prefilling: f64,
    pub(crate) prefill_tokens: f64,
    pub(crate) decode_tokens: f64,
    pub(crate) overdue_s: f64,
}

impl Work {
    fn of(load: &PeerLoad) -> Self {
        Self {
            in_flight: f64::from(load.in_flight),
            prefilling: f64::from(load.prefilling),
            prefill_tokens: load.pending_prefill_tokens as f64,
            decode_tokens: load.pending_decode_tokens as f64,
            overdue_s: load.overdue_s,
        }
    }

    /// Moved towards `to`: by the share `answered` of the way what ends with the first token, by `ended` the rest.
    fn toward(self, to: Self, answered: f64, ended: f64) -> Self {
        let between = |from: f64, to: f64, share: f64| from + share * (to - from);
        Self {
            in_flight: between(self.in_flight, to.in_flight, ended),
            prefilling: between(self.prefilling, to.prefilling, answered),
            prefill_tokens: between(self.prefill_tokens, to.prefill_tokens, answered),
            decode_tokens: between(self.decode_tokens, to.decode_tokens, ended),
            overdue_s: between(self.overdue_s, to.overdue_s, answered),
        }
    }
}

/// What is known of others' work on one instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peers {
    last: Option<Observed<PeerLoad>>,
    mean: Work,
    /// Requests that telemetry shows and nobody claims, averaged with their sign, so that noise comes to nothing.
    unclaimed: f64,
    /// Mean time from dispatch to first token and to the end of this router's own requests, seconds.
    stay: Option<(f64, f64)>,
    /// This router's own dispatches there, faded over `MEMORY_S`, and when that was worked out.
    dispatches: (f64, Timestamp),
}

impl Peers {
    /// Takes a report in.
    pub(crate) fn report(&mut self, at: Timestamp, load: PeerLoad) {
        let new = Work::of(&load);
        match self.last {
            Some(last) if at.secs_since(last.at) <= STALE_S => {
                let weight = 1.0 - (-at.secs_since(last.at) / MEMORY_S).exp();
                self.mean = self.mean.toward(new, weight, weight);
            }
            _ => {
                self.mean = new;
                self.unclaimed = 0.0;
            }
        }
        self.last = Some(Observed { value: load, at });
    }

    /// Whether anybody ever reported.
    pub(crate) fn is_told(&self) -> bool {
        self.last.is_some()
    }

    /// The last report and its age, if it is believed.
    pub(crate) fn fresh(&self, now: Timestamp) -> Option<(PeerLoad, f64)> {
        let last = self.last?;
        let age_s = now.secs_since(last.at);
        (age_s <= STALE_S).then_some((last.value, age_s))
    }

    /// Telemetry shows `unexplained` requests that are not this router's own.
    pub(crate) fn sampled(&mut self, now: Timestamp, unexplained: f64) {
        if let Some((load, _)) = self.fresh(now) {
            self.unclaimed += UNCLAIMED_WEIGHT * (unexplained - f64::from(load.in_flight) - self.unclaimed);
        }
    }

    /// One of this router's own requests was sent there.
    pub(crate) fn dispatched(&mut self, now: Timestamp) {
        self.dispatches = (self.faded_dispatches(now) + 1.0, now);
    }

    /// One of this router's own requests was answered.
    pub(crate) fn answered(&mut self, first_s: f64, end_s: f64) {
        let (first, end) = self.stay.unwrap_or((first_s, end_s));
        let toward = |mean: f64, new: f64| mean + STAY_WEIGHT * (new - mean);
        self.stay = Some((toward(first, first_s), toward(end, end_s)));
    }

    fn faded_dispatches(&self, now: Timestamp) -> f64 {
        let (count, at) = self.dispatches;
        count * (-now.secs_since(at) / MEMORY_S).exp()
    }

    /// What others have there now, as well as it can be told; `None` without a report that is believed.
    pub(crate) fn now(&self, now: Timestamp) -> Option<Work> {
        let (load, age_s) = self.fresh(now)?;
        let gone = |stay_s: f64| 1.0 - (-age_s / stay_s.max(1e-3)).exp();
        let (answered, ended) = self
            .stay
            .map_or((0.0, 0.0), |(first_s, end_s)| (gone(first_s), gone(end_s)));
        let mut expected = Work::of(&load).toward(self.mean, answered, ended);
        expected.in_flight += self.unclaimed.max(0.0);
        Some(expected)
    }

    /// Of the requests in the last report, how many have probably not ended since.
    pub(crate) fn staying(&self, now: Timestamp) -> u32 {
        let Some((load, age_s)) = self.fresh(now) else { return 0 };
        let kept = self.stay.map_or(1.0, |(_, end_s)| (-age_s / end_s.max(1e-3)).exp());
        (f64::from(load.in_flight) * kept).round() as u32
    }

    /// Requests that `routers` others have probably sent there since their last report and that are still there, if they
    /// send as this one does.
    pub(crate) fn newcomers(&self, now: Timestamp, routers: u32) -> f64 {
        let Some((_, age_s)) = self.fresh(now) else { return 0.0 };
        let span_s = self.stay.map_or(age_s, |(_, end_s)| age_s.min(end_s));
        f64::from(routers) * self.faded_dispatches(now) / MEMORY_S * span_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_secs_f64(seconds)
    }

    fn in_flight(count: u32) -> PeerLoad {
        PeerLoad {
            in_flight: count,
            routers: 1,
            ..PeerLoad::default()
        }
    }

    /// Reports that alternate between none and eight, ten a second.
    fn alternating(stay_s: f64) -> Peers {
        let mut peers = Peers::default();
        peers.answered(stay_s / 10.0, stay_s);
        for tick in 0..200_u32 {
            peers.report(at(f64::from(tick) / 10.0), in_flight(8 * (tick % 2)));
        }
        peers
    }

    #[test]
    fn a_report_holds_where_requests_stay_and_the_mean_where_they_come_and_go() {
        let expected = |stay_s: f64| alternating(stay_s).now(at(20.0)).expect("fresh").in_flight;
        assert!(expected(60.0) > 7.9, "{}", expected(60.0));
        let mean = expected(0.01);
        assert!((3.5..4.5).contains(&mean), "{mean}");
        assert_eq!(alternating(60.0).staying(at(20.0)), 8);
        assert_eq!(alternating(0.01).staying(at(20.0)), 0);
    }

    #[test]
    fn old_reports_are_not_believed_and_their_mean_is_forgotten() {
        let mut peers = alternating(0.01);
        assert!(peers.now(at(19.9 + STALE_S + 0.1)).is_none());
        peers.report(at(30.0), in_flight(1));
        assert!((peers.now(at(30.1)).expect("fresh").in_flight - 1.0).abs() < 1e-9);
    }

    #[test]
    fn others_are_taken_to_send_as_this_router_does() {
        let mut peers = Peers::default();
        peers.answered(0.1, 5.0);
        for tick in 0..400_u32 {
            peers.dispatched(at(f64::from(tick) / 40.0));
        }
        assert!(peers.newcomers(at(10.0), 7) < f64::EPSILON, "no report, no age");
        peers.report(at(9.8), in_flight(3));
        // 40 a second, seven others, 0.2 s.
        let newcomers = peers.newcomers(at(10.0), 7);
        assert!((newcomers - 56.0).abs() < 3.0, "{newcomers}");
        // Those of them that have ended do not count.
        peers.stay = Some((0.01, 0.05));
        assert!((peers.newcomers(at(10.0), 7) - newcomers / 4.0).abs() < 1e-9);
    }

    #[test]
    fn what_nobody_claims_counts_once_it_stays() {
        let mut peers = Peers::default();
        peers.report(at(1.0), in_flight(5));
        for noise in [2.0, 8.0, 3.0, 7.0] {
            peers.sampled(at(1.0), noise);
        }
        assert!(peers.now(at(1.0)).expect("fresh").in_flight < 5.5);
        for _ in 0..100 {
            peers.sampled(at(1.0), 9.0);
        }
        assert!((peers.now(at(1.0)).expect("fresh").in_flight - 9.0).abs() < 0.1);
    }
}
