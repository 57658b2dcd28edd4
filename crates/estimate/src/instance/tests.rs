use equipoise_engine::{Deployment, EngineLimits, EngineShape, gpu, model};
use equipoise_types::Watts;

use super::*;
use crate::{LengthPredictor, QualityPredictor};

fn llama_on_h100() -> InstanceEstimator {
    let shape = EngineShape {
        gpu: gpu("H100").expect("catalogue"),
        model: model("Llama-3.1-8B").expect("catalogue"),
        tensor_parallel: 1,
        limits: EngineLimits::default(),
        deployment: Deployment::default(),
    };
    InstanceEstimator::new(Some(StepModel::new(&shape).expect("fits")), None)
}

fn predict(estimator: &InstanceEstimator, now: Timestamp, load: &InstanceLoad) -> Prediction {
    let length = LengthPredictor::new(Some(200.0)).predict(None);
    let quality = QualityPredictor::new(Some(0.5)).predict(Timestamp::ZERO);
    estimator.predict(now, 500, length, quality, PriceOfTokens::default(), load)
}

fn busy(in_flight: u32) -> InstanceLoad {
    InstanceLoad {
        in_flight,
        prefilling: 0,
        pending_prefill_tokens: 0,
        pending_decode_tokens: u64::from(in_flight) * 100,
        kv_tokens: u64::from(in_flight) * 600,
        overdue_s: 0.0,
        company: 0.0,
        idle_s: 0.0,
    }
}

#[test]
fn load_makes_it_later_and_the_marginal_joule_cheaper() {
    let estimator = llama_on_h100();
    let idle = predict(&estimator, Timestamp::ZERO, &busy(0)).estimate;
    let half = predict(&estimator, Timestamp::ZERO, &busy(64)).estimate;
    let full = predict(&estimator, Timestamp::ZERO, &busy(400)).estimate;
    assert!(
        idle.e2e_s < half.e2e_s && half.e2e_s < full.e2e_s,
        "{idle:?} {half:?} {full:?}"
    );
    assert!(half.queue_s == 0.0 && full.queue_s > 0.0);
    assert!(
        half.energy.0 < idle.energy.0 / 2.0,
        "joining a batch is cheaper than waking one: {idle:?} {half:?}"
    );
    assert!(half.energy.0 > 0.0);
}

#[test]
fn waking_an_engine_is_shared_with_those_it_will_serve_and_joining_holds_others_up() {
    let estimator = llama_on_h100();
    let of = |load: InstanceLoad| predict(&estimator, Timestamp::ZERO, &load).estimate;
    let alone = of(busy(0));
    let sociable = of(InstanceLoad {
        company: 32.0,
        ..busy(0)
    });
    let joined = of(busy(64));
    let all = |estimate: Estimate| estimate.energy.0 + estimate.idle_energy.0;
    assert!(alone.idle_energy.0 > 0.0 && alone.others_s == 0.0);
    assert!(all(sociable) < 0.2 * all(alone), "{sociable:?} {alone:?}");
    assert!(
        all(joined) < all(sociable),
        "a batch that runs anyway is cheaper: {joined:?} {sociable:?}"
    );
    assert!(sociable.e2e_s == alone.e2e_s, "company to come slows nobody yet");
    // Every one of 64 waits for a prompt and for a longer step, as long as both are there.
    assert!(joined.others_s > 0.1 && joined.others_s < 64.0, "{joined:?}");
}

#[test]
fn what_is_observed_corrects_what_is_said() {
    let mut estimator = InstanceEstimator::new(None, Some(8));
    for step in 0..20 {
        let now = Timestamp::from_secs_f64(f64::from(step));
        let prediction = predict(&estimator, now, &busy(2));
        let observation = Observation {
            ttft_s: None,
            e2e_s: 0.4,
            output_tokens: Some(200),
        };
        estimator.observe(now, &prediction, &observation);
    }
    let estimate = predict(&estimator, Timestamp::from_secs_f64(20.0), &busy(2)).estimate;
    assert!((estimate.e2e_s - 0.4).abs() < 0.02, "{estimate:?}");
}

#[test]
fn an_overdue_request_delays_the_next() {
    let estimator = InstanceEstimator::new(None, None);
    let calm = predict(&estimator, Timestamp::ZERO, &busy(1)).estimate;
    let hung = predict(
        &estimator,
        Timestamp::ZERO,
        &InstanceLoad {
            overdue_s: 9.0,
            ..busy(1)
        },
    )
    .estimate;
    assert!((hung.ttft_s - calm.ttft_s - 9.0).abs() < 1e-9);
}

#[test]
fn slots_are_learned_from_an_engine_that_keeps_requests_waiting() {
    let mut estimator = InstanceEstimator::new(None, None);
    assert_eq!(estimator.slots(), 256);
    for (running, waiting) in [(1, 1), (8, 2), (7, 0), (8, 3), (8, 1)] {
        estimator.observe_sample(Timestamp::ZERO, running, waiting, 0, None);
        assert_eq!(estimator.slots(), 256, "somebody waited now and then");
    }
    estimator.observe_sample(Timestamp::ZERO, 7, 4, 0, None);
    assert_eq!(estimator.slots(), 8);
    let mut described = llama_on_h100();
    for _ in 0..9 {
        described.observe_sample(Timestamp::ZERO, 8, 3, 0, None);
    }
    assert_eq!(described.slots(), 256, "what is known is not unlearned");
}

#[test]
fn measured_power_corrects_the_energy() {
    let mut estimator = llama_on_h100();
    let before = predict(&estimator, Timestamp::ZERO, &busy(32)).estimate.energy.0;
    let work = StepWork {
        decode_seqs: 32,
        kv_tokens: 20_000,
        ..StepWork::default()
    };
    let physics = estimator.physics.clone().expect("known");
    let idle = physics.idle_watts().0;
    let half = idle + (physics.cost(&work).watts.0 - idle) / 2.0;
    estimator.observe_sample(Timestamp::ZERO, 32, 0, 20_000, Some(Watts(half)));
    let after = predict(&estimator, Timestamp::ZERO, &busy(32)).estimate.energy.0;
    assert!((after / before - 0.5).abs() < 1e-6, "{after} {before}");
}

#[test]
fn a_box_whose_time_does_not_depend_on_length_is_seen_through() {
    // Twins with answers of different lengths must look alike; a box eight times as slow must not.
    let learned = |e2e_s: f64, seed: u64| {
        let mut random = equipoise_types::RandomStream::new(seed);
        let mut estimator = InstanceEstimator::new(None, None);
        for step in 0..100 {
            let now = Timestamp::from_secs_f64(f64::from(step) * 0.05);
            let observation = Observation {
                ttft_s: None,
                e2e_s,
                output_tokens: Some(random.log_normal(150.0, 0.8) as u32),
            };
            let prediction = predict(&estimator, now, &busy(2));
            estimator.observe(now, &prediction, &observation);
        }
        predict(&estimator, Timestamp::from_secs_f64(5.0), &busy(2))
            .estimate
            .e2e_s
    };
    for seed in 0..20 {
        let (one, other, slow) = (learned(0.05, seed), learned(0.05, seed + 100), learned(0.4, seed));
        assert!((one / other).ln().abs() < 0.05, "{one} {other}");
        assert!((slow / 0.4).ln().abs() < 0.1, "{slow}");
    }
}

#[test]
fn waiting_for_a_slot_is_not_taken_for_slowness() {
    let mut estimator = InstanceEstimator::new(None, Some(8));
    for step in 0..100 {
        let now = Timestamp::from_secs_f64(f64::from(step) * 0.05);
        let prediction = predict(&estimator, now, &busy(40));
        // 40 are there, 8 are served at a time, 0.4 s each: 33 must go first.
        let e2e_s = 0.4 + 33.0 * 0.4 / 8.0;
        let observation = Observation {
            ttft_s: None,
            e2e_s,
            output_tokens: Some(200),
        };
        estimator.observe(now, &prediction, &observation);
    }
    let now = Timestamp::from_secs_f64(5.0);
    let waited = predict(&estimator, now, &busy(40)).estimate.e2e_s;
    let idle = predict(&estimator, now, &busy(0)).estimate.e2e_s;
    assert!((waited / 2.05 - 1.0).abs() < 0.15, "{waited}");
    assert!(idle < 0.8, "{idle}");
}

#[test]
fn whoever_wakes_an_engine_waits_for_it_and_pays_for_it() {
    let serving =
        equipoise_engine::Serving::from_text("sleep = { level = \"off\", after_s = 60.0 }").expect("it can be read");
    let declared = equipoise_engine::DeclaredEngine {
        model: "Llama-3.1-8B",
        gpu: "H100",
        tensor_parallel: 1,
        limits: EngineLimits::default(),
        measured: None,
        serving: serving.as_ref(),
    };
    let physics = declared.step_model().expect("fits");
    let estimator = InstanceEstimator::new(Some(physics.clone()), None);
    assert!(estimator.may_sleep());
    let after = |idle_s: f64, in_flight: u32| {
        let load = InstanceLoad {
            idle_s,
            in_flight,
            ..InstanceLoad::default()
        };
        let length = LengthEstimate {
            mean: 100.0,
            ..LengthEstimate::default()
        };
        let quality = QualityEstimate::default();
        estimator
            .predict(Timestamp::ZERO, 100, length, quality, PriceOfTokens::default(), &load)
            .estimate
    };
    let (awake, asleep) = (after(59.0, 0), after(61.0, 0));
    let waking = physics.waking(61.0).expect("asleep");
    assert!((asleep.ttft_s - awake.ttft_s - waking.seconds).abs() < 1e-9 && waking.seconds > 30.0);
    assert!((asleep.energy.0 - awake.energy.0 - waking.energy.0).abs() < 1e-6);
    assert!((asleep.idle_energy.0 - awake.idle_energy.0 - waking.awake_energy.0).abs() < 1e-6);
    // Nobody else is held up by it, and with others there it is awake.
    assert_eq!(asleep.others_s, awake.others_s);
    assert_eq!(after(61.0, 1).queue_s, 0.0);
}
