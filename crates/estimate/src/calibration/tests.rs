use equipoise_types::{Joules, RandomStream};
use proptest::prelude::*;

use super::*;
use crate::QualityEstimate;

fn prediction(regime: Regime, said_s: f64, bounds: Bounds) -> Prediction {
    let estimate = Estimate {
        quality: 0.5,
        quality_sd: 0.1,
        output_tokens: 100.0,
        queue_s: 0.0,
        ttft_s: said_s,
        tpot_s: 0.01,
        e2e_s: said_s,
        energy: Joules(1.0),
        idle_energy: Joules(0.0),
        others_s: 0.0,
        cost_usd: 0.0,
        bounds,
    };
    Prediction {
        estimate,
        quality: QualityEstimate::default(),
        base_ttft_s: said_s,
        base_tpot_s: 0.01,
        forecast_output_tokens: None,
        in_flight: 0,
        load_factor: 1.0,
        length: crate::LengthEstimate::default(),
        regime,
    }
}

fn times(regime: Regime, (ttft_s, e2e_s): (f64, f64)) -> Prediction {
    let mut times = prediction(regime, ttft_s, Bounds::default());
    times.estimate.e2e_s = e2e_s;
    times
}

/// An answer of unknown length.
fn answered(e2e_s: f64) -> Observation {
    Observation {
        ttft_s: Some(e2e_s),
        e2e_s,
        output_tokens: None,
    }
}

/// Predicts one second each time, learns from what is `drawn`, and answers the share of bounds that held from
/// observation `from` on.
fn coverage(confidence: f64, from: usize, of: usize, mut drawn: impl FnMut(usize) -> f64) -> f64 {
    let (mut own, mut tier) = (Calibration::default(), Calibration::default());
    let mut held = 0;
    for index in 0..of {
        let now = Timestamp::from_secs_f64(index as f64 * 0.1);
        let bounds = own.bounds(&tier, now, &times(Regime::Busy, (1.0, 1.0)), confidence);
        let said = prediction(Regime::Busy, 1.0, bounds);
        let observed = drawn(index);
        own.sent(&said);
        held += usize::from(index >= from && observed <= bounds.ttft_s);
        own.observe_first_token(now, &said, observed);
        tier.observe_first_token(now, &said, observed);
    }
    held as f64 / (of - from) as f64
}

#[test]
fn the_share_asked_for_is_covered_whatever_the_errors_are_like() {
    for confidence in [0.8, 0.95, 0.99] {
        let mut random = RandomStream::new(7);
        let least = confidence - 0.012;
        let normal = coverage(confidence, 0, 6000, |_| random.log_normal(1.0, 0.3));
        assert!(normal >= least && normal < confidence + 0.05, "{confidence}: {normal}");
        // Skewed: an exponential's logarithm leans to the left; a biased one: twice as slow as predicted.
        let skewed = coverage(confidence, 0, 6000, |_| 2.0 * random.exponential(1.0));
        assert!(skewed >= least, "{confidence}: {skewed}");
        // Heavy: a Pareto tail of index 1.5 has no variance.
        let heavy = coverage(confidence, 0, 6000, |_| (1.0 - random.uniform()).powf(-1.0 / 1.5));
        assert!(heavy >= least, "{confidence}: {heavy}");
    }
}

#[test]
fn drift_and_jumps_are_followed() {
    let mut random = RandomStream::new(8);
    // Ten times as slow in the course of the run, and twice as slow from one request to the next in the middle.
    let drift = coverage(0.95, 0, 4000, |index| {
        let jump = if index > 2000 { 2.0 } else { 1.0 };
        jump * 10_f64.powf(index as f64 / 4000.0) * random.log_normal(1.0, 0.2)
    });
    assert!(drift > 0.93, "{drift}");
}

#[test]
fn a_cold_start_is_safe_and_a_tier_is_borrowed_from() {
    let now = Timestamp::from_secs_f64(9.0);
    let (cold, mut tier) = (Calibration::default(), Calibration::default());
    let first = cold.bounds(&tier, now, &times(Regime::Idle, (1.0, 1.0)), 0.95);
    assert!(first.ttft_s > 1.25 && first.ttft_s < 2.0, "{first:?}");
    let said = prediction(Regime::Idle, 1.0, first);
    for _ in 0..100 {
        tier.observe_first_token(now, &said, 1.01);
    }
    let borrowed = cold.bounds(&tier, now, &times(Regime::Idle, (1.0, 1.0)), 0.95);
    assert!(borrowed.ttft_s < first.ttft_s, "{borrowed:?}");
    // Nobody is condemned for ever: the bound goes back to the prior's.
    let mut slow = Calibration::default();
    for _ in 0..100 {
        slow.observe_first_token(now, &said, 20.0);
    }
    let after = |seconds: f64| {
        let at = Timestamp::from_secs_f64(9.0 + seconds);
        let none = Calibration::default();
        slow.bounds(&none, at, &times(Regime::Idle, (1.0, 1.0)), 0.95).ttft_s
    };
    assert!(
        after(0.0) > 19.0 && after(3000.0) < 2.0,
        "{} {}",
        after(0.0),
        after(3000.0)
    );
}

#[test]
fn the_quick_ones_do_not_speak_for_those_that_still_run() {
    let now = Timestamp::from_secs_f64(9.0);
    let tier = Calibration::default();
    let bound = |own: &Calibration| own.bounds(&tier, now, &times(Regime::Busy, (0.1, 1.0)), 0.95).e2e_s;
    let (mut all, mut some) = (Calibration::default(), Calibration::default());
    let said = prediction(Regime::Busy, 1.0, Bounds::default());
    for _ in 0..100 {
        some.sent(&said);
    }
    for _ in 0..50 {
        some.observe_answer(now, &said, &answered(0.5));
        all.observe_answer(now, &said, &answered(0.5));
    }
    assert!(bound(&some) > 1.3 * bound(&all), "{} {}", bound(&some), bound(&all));
    for _ in 0..50 {
        some.withdrawn(&said, true);
    }
    assert_eq!(bound(&some), bound(&all));
}

proptest! {
    #[test]
    fn bounds_rise_with_confidence_and_are_never_negative(
        observed in proptest::collection::vec(prop_oneof![1e-6..1e6_f64, Just(f64::NAN), Just(-1.0), Just(0.0)], 0..300),
        (one, other) in (0.001..0.9999_f64, 0.001..0.9999_f64),
        (ttft_s, more_s) in (0.0..100.0_f64, 0.0..1000.0_f64),
        later in 0.0..5000.0_f64,
    ) {
        let (mut own, mut tier) = (Calibration::default(), Calibration::default());
        for (index, seconds) in observed.iter().enumerate() {
            let now = Timestamp::from_secs_f64(index as f64);
            let bounds = own.bounds(&tier, now, &times(Regime::Strained, (1.0, 1.0)), one);
            let said = prediction(Regime::Strained, 1.0, bounds);
            own.observe_first_token(now, &said, *seconds);
            tier.observe_answer(now, &said, &answered(*seconds));
        }
        let now = Timestamp::from_secs_f64(observed.len() as f64 + later);
        let at = |confidence| own.bounds(&tier, now, &times(Regime::Strained, (ttft_s, ttft_s + more_s)), confidence);
        let (low, high) = (at(one.min(other)), at(one.max(other)));
        prop_assert!(low.ttft_s <= high.ttft_s && low.e2e_s <= high.e2e_s, "{:?} {:?}", low, high);
        prop_assert!(low.ttft_s >= 0.0 && low.ttft_s <= low.e2e_s && high.e2e_s.is_finite(), "{:?} {:?}", low, high);
    }

    // With exchangeable errors.
    #[test]
    fn coverage_is_at_least_what_was_asked_for(seed in any::<u64>(), sigma in 0.02..1.0_f64, bias in 0.3..3.0_f64, confidence in 0.6..0.97_f64) {
        let mut random = RandomStream::new(seed);
        let share = coverage(confidence, 0, 2000, |_| random.log_normal(bias, sigma));
        prop_assert!(share >= confidence - 0.03, "{} of {}", share, confidence);
    }
}

/// A request of one joule whose answer may be long.
fn of_length(p50: f64, p90: f64) -> Prediction {
    let mut said = prediction(Regime::Busy, 1.0, Bounds::default());
    said.length = crate::LengthEstimate {
        p50,
        p90,
        ..crate::LengthEstimate::default()
    };
    said
}

#[test]
fn what_a_request_may_draw_is_bounded_by_samples_and_length() {
    let (mut own, tier) = (Calibration::default(), Calibration::default());
    let now = Timestamp::from_secs_f64(100.0);
    let bound = |own: &Calibration, said: &Prediction| own.bounds(&tier, now, said, 0.95).energy.0;
    let plain = prediction(Regime::Busy, 1.0, Bounds::default());
    let unmetered = bound(&own, &plain);
    assert!(unmetered > 1.2, "nothing was metered yet: {unmetered}");
    let mut random = RandomStream::new(4);
    for index in 0..400 {
        let at = Timestamp::from_secs_f64(60.0 + 0.1 * f64::from(index));
        own.observe_draw(at, Watts(200.0 * random.log_normal(1.0, 0.1)), Watts(200.0));
    }
    let metered = bound(&own, &plain);
    assert!((1.1..unmetered).contains(&metered), "{metered} after {unmetered}");
    // z of 95 % is 1.645, of 90 % 1.282: half as long again at 90 % is a factor of 1.68 at 95 %.
    let long = bound(&own, &of_length(100.0, 150.0));
    assert!(long > 1.6 && long > metered, "{long}");
    assert!(own.bounds(&tier, now, &plain, 0.99).energy.0 >= metered);
}
