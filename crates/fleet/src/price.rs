//! Congestion prices: how much dearer an instance is than its prediction says, because requests are seen to queue there.
//!
//! One price for each instance, kept where all samples come together (the control plane; the simulator's stand-in for it)
//! and sent to every router with the fleet's state. It is the multiplier of the constraint "nobody waits inside an
//! engine", found by projected dual ascent (Arrow, Hurwicz and Uzawa 1958):
//!
//! `λ ← min(λ_max, max(0, λ + η · Δt · (waiting / running − target)))`
//!
//! A prediction of one router corrects itself with what that router sees; the price is what independent routers have in
//! common. Without queueing it falls to zero, and then the score is as if there were none.

use equipoise_types::Timestamp;

/// Rise per second for each unit of queueing, η.
const ASCENT_PER_S: f64 = 0.5;
/// Waiting requests per running one that are no congestion: who has just arrived waits for the step to end.
const TARGET: f64 = 0.1;
/// A longer gap between two samples counts as this, seconds: nothing is known of what was in it.
const LONGEST_STEP_S: f64 = 1.0;
/// More requests waiting for each running one than this count as this.
const MOST_QUEUEING: f64 = 4.0;

/// The price of one instance. Dimensionless: 0.5 makes a predicted time count half as much again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CongestionPrice {
    value: f64,
    at: Option<Timestamp>,
}

impl CongestionPrice {
    /// No instance is dearer than this: it would be avoided in any case.
    pub const MOST: f64 = 4.0;

    /// The price: from 0 to 4.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.value
    }

    /// Takes in what an engine said at `at`: requests in its batch, and requests waiting in it. A sample that is not newer
    /// than the last changes nothing.
    pub fn observe(&mut self, at: Timestamp, running: u32, waiting: u32) {
        if self.at.is_some_and(|last| last >= at) {
            return;
        }
        let step_s = self.at.map_or(0.0, |last| at.secs_since(last)).min(LONGEST_STEP_S);
        self.at = Some(at);
        let queueing = (f64::from(waiting) / f64::from(running.max(1))).min(MOST_QUEUEING);
        self.value = (self.value + ASCENT_PER_S * step_s * (queueing - TARGET)).clamp(0.0, Self::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(at: f64) -> Timestamp {
        Timestamp::from_secs_f64(at)
    }

    #[test]
    fn it_rises_with_the_queue_and_by_no_more_than_a_second_at_once() {
        let mut price = CongestionPrice::default();
        price.observe(seconds(10.0), 8, 8);
        assert!(price.get() < f64::EPSILON, "one sample is no time");
        price.observe(seconds(10.5), 8, 8);
        assert!((price.get() - 0.5 * 0.5 * 0.9).abs() < 1e-12, "{price:?}");
        let before = price.get();
        price.observe(seconds(10.2), 8, 80);
        assert!(
            (price.get() - before).abs() < f64::EPSILON,
            "an old sample says nothing"
        );
        price.observe(seconds(1000.0), 8, 8);
        assert!((price.get() - before - 0.5 * 0.9).abs() < 1e-12, "{price:?}");
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_falls_to_nothing_without_queueing(
            samples in proptest::collection::vec((0.0..5.0_f64, 0_u32..300, 0_u32..3000), 0..200)
        ) {
            let (mut price, mut at) = (CongestionPrice::default(), 0.0);
            for (gap_s, running, waiting) in samples {
                at += gap_s;
                price.observe(seconds(at), running, waiting);
                prop_assert!((0.0..=CongestionPrice::MOST).contains(&price.get()), "{:?}", price);
            }
            // 4 at 0.05 a second.
            for _ in 0..81 {
                at += 1.0;
                price.observe(seconds(at), 8, 0);
            }
            prop_assert!(price.get() < f64::EPSILON, "{:?}", price);
        }
    }
}
