use equipoise_estimate::{Estimate, InstanceLoad, Prediction};
use equipoise_types::{InstanceId, Joules, ModelId, RequestId};
use proptest::prelude::*;

use super::*;
use crate::{Prefix, Preset, Target, Wishes};

fn candidate(id: u32, quality: f64, e2e_s: f64, joules: f64, cost_usd: f64, in_flight: u32) -> Candidate {
    let estimate = Estimate {
        quality,
        quality_sd: 0.1,
        output_tokens: 100.0,
        queue_s: 0.0,
        ttft_s: 0.1,
        tpot_s: 0.01,
        e2e_s,
        energy: Joules(joules),
        idle_energy: Joules(0.0),
        others_s: 0.0,
        cost_usd,
        bounds: Default::default(),
    };
    Candidate {
        instance: InstanceId(id),
        model: ModelId(0),
        load: InstanceLoad {
            in_flight,
            ..InstanceLoad::default()
        },
        slots: 8,
        kv_capacity_tokens: None,
        cached_tokens: 0,
        weight: 1.0,
        alone_tpot_s: 0.01,
        peers: equipoise_fleet::PeerView::default(),
        crowded: None,
        prediction: Prediction {
            estimate,
            quality: equipoise_estimate::QualityEstimate::default(),
            base_ttft_s: 0.1,
            base_tpot_s: 0.01,
            forecast_output_tokens: None,
            in_flight: 0,
            load_factor: 1.0,
            length: equipoise_estimate::LengthEstimate::default(),
            regime: Default::default(),
        },
    }
}

fn request(weights: Option<Weights>) -> Request {
    Request {
        id: RequestId(1),
        target: Target::Auto,
        tenant: None,
        prompt_tokens: 10,
        max_output_tokens: None,
        streams: true,
        forecast: None,
        prefix: Prefix::default(),
        wishes: Wishes {
            weights,
            ..Wishes::default()
        },
    }
}

fn policy() -> Equipoise {
    Equipoise::new(Preset::Balanced.weights(), References::default())
}

fn taken(choice: Choice) -> Option<usize> {
    match choice {
        Choice::Take { index, .. } => Some(index),
        Choice::Wait => None,
    }
}

#[test]
fn each_weight_moves_the_choice() {
    let candidates = [
        candidate(0, 0.9, 60.0, 900.0, 9e-4, 0),
        candidate(1, 0.2, 1.0, 500.0, 9e-4, 0),
        candidate(2, 0.2, 50.0, 5.0, 9e-4, 0),
        candidate(3, 0.2, 50.0, 500.0, 1e-5, 0),
    ];
    let only = |quality, latency, energy, cost| {
        Some(Weights {
            quality,
            latency,
            energy,
            cost,
        })
    };
    let wishes = [
        only(1.0, 0.0, 0.0, 0.0),
        only(0.0, 1.0, 0.0, 0.0),
        only(0.0, 0.0, 1.0, 0.0),
        only(0.0, 0.0, 0.0, 1.0),
    ];
    for (expected, weights) in wishes.into_iter().enumerate() {
        let choice = policy().choose(&request(weights), &candidates, &mut RandomStream::new(0));
        assert_eq!(taken(choice), Some(expected));
    }
}

#[test]
fn waits_for_a_fast_instance_rather_than_take_a_slow_one() {
    let fast = candidate(0, 0.5, 0.06, 10.0, 0.0, 8);
    let slow = candidate(1, 0.5, 0.40, 10.0, 0.0, 0);
    assert_eq!(
        policy().choose(&request(None), &[fast, slow], &mut RandomStream::new(0)),
        Choice::Wait
    );
    let drowned = candidate(0, 0.5, 0.60, 10.0, 0.0, 8);
    assert_eq!(
        taken(policy().choose(&request(None), &[drowned, slow], &mut RandomStream::new(0))),
        Some(1)
    );
}

#[test]
fn whom_it_holds_up_and_what_it_keeps_awake_count() {
    let quick = candidate(0, 0.5, 5.0, 10.0, 0.0, 4);
    let mut crowded = candidate(1, 0.5, 4.0, 10.0, 0.0, 4);
    crowded.prediction.estimate.others_s = 2.0;
    let take = |candidates: &[Candidate], references: References| {
        let mut policy = Equipoise::new(Preset::Green.weights(), references);
        taken(policy.choose(&request(None), candidates, &mut RandomStream::new(0)))
    };
    assert_eq!(take(&[quick, crowded], References::default()), Some(0));
    let mut awake = candidate(1, 0.5, 5.0, 9.0, 0.0, 4);
    awake.prediction.estimate.idle_energy = Joules(100.0);
    assert_eq!(take(&[quick, awake], References::default()), Some(0));
    let paid_anyway = References {
        idle_share: 0.0,
        ..References::default()
    };
    assert_eq!(take(&[quick, awake], paid_anyway), Some(1));
}

#[test]
fn equal_candidates_take_turns() {
    let candidates = [candidate(0, 0.5, 1.0, 1.0, 0.0, 0), candidate(1, 0.5, 1.0, 1.0, 0.0, 0)];
    let (mut policy, mut random) = (policy(), RandomStream::new(0));
    let mut next = || taken(policy.choose(&request(None), &candidates, &mut random));
    assert_eq!([next(), next(), next()], [Some(0), Some(1), Some(0)]);
}

prop_compose! {
    fn any_candidate()(quality in 0.0..1.0, e2e_s in 0.01..100.0, joules in 0.1..5e3, cost in 0.0..1e-2) -> (f64, f64, f64, f64) {
        (quality, e2e_s, joules, cost)
    }
}

proptest! {
    // The absolute score: whoever is worse in every respect than the one chosen changes nothing by being there.
    #[test]
    fn a_dominated_candidate_reorders_nobody(figures in proptest::collection::vec(any_candidate(), 1..12), at in 0_usize..12) {
        let of = |id: usize, (quality, e2e_s, joules, cost): (f64, f64, f64, f64)| candidate(id as u32, quality, e2e_s, joules, cost, 0);
        let candidates: Vec<_> = figures.iter().enumerate().map(|(id, &figures)| of(id, figures)).collect();
        let chosen = taken(policy().choose(&request(None), &candidates, &mut RandomStream::new(0))).expect("none is saturated");
        let best = figures[chosen];
        let dominated = of(99, (best.0 * 0.9, best.1 * 1.1 + 1.0, best.2 * 1.1, best.3 * 1.1));
        let mut more = candidates.clone();
        let at = at.min(more.len());
        more.insert(at, dominated);
        let again = taken(policy().choose(&request(None), &more, &mut RandomStream::new(0))).expect("none is saturated");
        prop_assert_eq!(more[again].instance, candidates[chosen].instance);
    }

    // Worse latency never raises a score, without bound: a drowning tier cannot hide.
    #[test]
    fn the_score_falls_with_latency_without_bound(figures in any_candidate(), factor in 2.0..1e6_f64) {
        let (quality, e2e_s, joules, cost) = figures;
        let before = policy().value(&request(None), &candidate(0, quality, e2e_s, joules, cost, 0));
        let after = policy().value(&request(None), &candidate(0, quality, e2e_s * factor, joules, cost, 0));
        let latency = |e2e_s: f64| e2e_s / References::default().e2e_s * (1.0 + e2e_s / References::default().e2e_s);
        let fall = Preset::Balanced.weights().latency * (latency(e2e_s * factor) - latency(e2e_s));
        prop_assert!((before - after - fall).abs() <= 1e-9 * (1.0 + fall));
    }
}

/// Beside seven other routers that have sent `newcomers`, each of which costs `fall_s` seconds.
fn crowded(mut candidate: Candidate, newcomers: f64, fall_s: f64) -> Candidate {
    candidate.peers.routers = 7;
    candidate.peers.newcomers = newcomers / 3.0;
    let mut estimate = *candidate.estimate();
    estimate.e2e_s += newcomers * fall_s;
    candidate.crowded = Some(crate::Crowded::of(newcomers, &estimate));
    candidate
}

#[test]
fn routers_with_one_view_do_not_all_pick_the_same() {
    // The first is better by two newcomers' worth of time.
    let of = |id: u32, e2e_s: f64| crowded(candidate(id, 0.5, e2e_s, 1.0, 0.0, 0), 8.0, 0.5);
    let candidates = [of(0, 1.0), of(1, 2.0), of(2, 2.0)];
    let mut counts = [0_u32; 3];
    for router in 0..64 {
        let (mut policy, mut random) = (policy(), RandomStream::new(router));
        for _ in 0..9 {
            let choice = policy.choose(&request(None), &candidates, &mut random);
            counts[taken(choice).expect("none is saturated")] += 1;
        }
    }
    // Nine fill them up to one level with 13/3, 7/3 and 7/3: 1 + 0.5 · 13/3 = 2 + 0.5 · 7/3.
    let expected = [13.0 / 27.0, 7.0 / 27.0, 7.0 / 27.0];
    for (count, share) in counts.iter().zip(expected) {
        let seen = f64::from(*count) / (64.0 * 9.0);
        assert!((seen - share).abs() < 0.03, "{counts:?}");
    }
}

#[test]
fn one_routers_own_picks_are_spread_evenly() {
    let candidates: Vec<_> = (0..4)
        .map(|id| crowded(candidate(id, 0.5, 1.0, 1.0, 0.0, 0), 8.0, 0.5))
        .collect();
    let (mut policy, mut random) = (policy(), RandomStream::new(3));
    for _ in 0..10 {
        let mut turn: Vec<_> = (0..4)
            .map(|_| taken(policy.choose(&request(None), &candidates, &mut random)))
            .collect();
        turn.sort_unstable();
        assert_eq!(turn, [Some(0), Some(1), Some(2), Some(3)]);
    }
}

#[test]
fn a_price_makes_time_dearer_and_nothing_else() {
    let plain = candidate(0, 0.5, 3.0, 100.0, 1e-3, 0);
    let mut dear = plain;
    dear.peers.price = 1.5;
    let fall = policy().value(&request(None), &plain) - policy().value(&request(None), &dear);
    let squared = |seconds: f64| {
        let time = seconds / References::default().e2e_s;
        time * (1.0 + time)
    };
    let expected = Preset::Balanced.weights().latency * (squared(3.0 * 2.5) - squared(3.0));
    assert!((fall - expected).abs() < 1e-12, "{fall}");
}

#[test]
fn hearsay_holds_nobody_back_from_what_is_free_or_ones_own() {
    let mut candidate = candidate(0, 0.5, 1.0, 1.0, 0.0, 8);
    assert!(candidate.is_saturated(), "alone: eight of eight slots");
    candidate.peers.routers = 3;
    candidate.peers.own_in_flight = 3;
    candidate.peers.staying = 4;
    assert!(!candidate.is_saturated(), "a slot is free as far as anybody has said");
    candidate.peers.staying = 5;
    assert!(candidate.is_saturated());
    candidate.peers.own_in_flight = 1;
    candidate.peers.staying = 30;
    assert!(!candidate.is_saturated(), "two of eight slots are this router's");
}
