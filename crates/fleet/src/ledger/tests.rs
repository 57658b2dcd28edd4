use equipoise_estimate::Estimate;
use equipoise_types::Joules;
use proptest::prelude::*;

use super::*;

fn prediction(output_tokens: f64) -> Prediction {
    let estimate = Estimate {
        quality: 0.5,
        quality_sd: 0.1,
        output_tokens,
        queue_s: 0.0,
        ttft_s: 0.1,
        tpot_s: 0.01,
        e2e_s: 1.0,
        energy: Joules(10.0),
        idle_energy: Joules(0.0),
        others_s: 0.0,
        cost_usd: 0.0,
        bounds: Default::default(),
    };
    Prediction {
        estimate,
        quality: equipoise_estimate::QualityEstimate::default(),
        base_ttft_s: 0.1,
        base_tpot_s: 0.01,
        forecast_output_tokens: None,
        in_flight: 0,
        load_factor: 1.0,
        length: equipoise_estimate::LengthEstimate::default(),
        regime: Default::default(),
    }
}

#[test]
fn follows_a_request_through_its_life() {
    let mut ledger = Ledger::default();
    let (request, instance) = (RequestId(1), InstanceId(2));
    assert!(ledger.book(Timestamp::ZERO, request, instance, 100, false, prediction(50.0)));
    assert!(!ledger.book(Timestamp::ZERO, request, InstanceId(0), 100, false, prediction(50.0)));
    let load = ledger.load(Timestamp::from_secs_f64(0.6), instance);
    assert_eq!(
        (
            load.in_flight,
            load.prefilling,
            load.pending_prefill_tokens,
            load.pending_decode_tokens
        ),
        (1, 1, 100, 50)
    );
    assert!((load.overdue_s - 0.5).abs() < 1e-9);
    ledger.first_token(Timestamp(5), request);
    ledger.tokens(request, 9);
    let load = ledger.load(Timestamp::MAX, instance);
    assert_eq!(
        (
            load.prefilling,
            load.pending_prefill_tokens,
            load.pending_decode_tokens,
            load.kv_tokens
        ),
        (0, 0, 40, 110)
    );
    assert_eq!(load.overdue_s, 0.0);
    assert_eq!(ledger.release(request).map(|booking| booking.output_tokens), Some(10));
    assert_eq!(ledger.release(request), None);
    assert_eq!(ledger.load(Timestamp::MAX, instance), InstanceLoad::default());
}

#[test]
fn a_silent_request_is_taken_to_decode_when_predicted() {
    let mut ledger = Ledger::default();
    ledger.book(
        Timestamp::ZERO,
        RequestId(1),
        InstanceId(0),
        100,
        true,
        prediction(50.0),
    );
    ledger.advance(Timestamp::from_secs_f64(0.05));
    assert_eq!(ledger.load(Timestamp::ZERO, InstanceId(0)).prefilling, 1);
    ledger.advance(Timestamp::from_secs_f64(0.2));
    let load = ledger.load(Timestamp::from_secs_f64(0.2), InstanceId(0));
    assert_eq!((load.prefilling, load.kv_tokens, load.overdue_s), (0, 100, 0.0));
}

proptest! {
    // Whatever happens in whatever order: no sum goes below zero (it would panic), and an empty ledger is all zeros.
    #[test]
    fn every_sum_returns_to_zero(steps in proptest::collection::vec((0_u8..5, 0_u64..12, 0_u32..3, 0_u32..400, any::<bool>()), 0..200)) {
        let mut ledger = Ledger::default();
        for (time, (action, request, instance, tokens, silent)) in steps.into_iter().enumerate() {
            let (now, request) = (Timestamp(time as u64 * 50_000_000), RequestId(request));
            match action {
                0 => { ledger.book(now, request, InstanceId(instance), tokens, silent, prediction(f64::from(tokens) / 3.0)); }
                1 => { ledger.first_token(now, request); }
                2 => ledger.tokens(request, tokens),
                3 => ledger.advance(now),
                _ => { ledger.release(request); }
            }
            let total: u32 = (0..3).map(|instance| ledger.load(now, InstanceId(instance)).in_flight).sum();
            prop_assert_eq!(total as usize, ledger.len());
        }
        for request in 0..12 {
            ledger.release(RequestId(request));
        }
        for instance in 0..3 {
            prop_assert_eq!(ledger.load(Timestamp::MAX, InstanceId(instance)), InstanceLoad::default());
        }
    }
}
