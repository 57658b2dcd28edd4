//! Golden vectors: independent arithmetic of the published formulas, ten identical requests in one batch on the paper's
//! cluster (14B x3, 3B x3, 72B x2, 7B x5; p = 80, L = 200; quality .30/.36/.40/.45; list prices; static TPOT priors).

use std::collections::BTreeMap;

use equipoise_estimate::{Estimate, Prediction};
use equipoise_types::{Joules, ModelId, RequestId};

use super::*;
use crate::{Prefix, Target, Wishes};

const PROMPT: f64 = 80.0;
const LENGTH: f64 = 200.0;

struct Tier {
    name: &'static str,
    count: usize,
    quality: f64,
    tpot_s: f64,
    usd_per_mtok: (f64, f64),
}

const TIERS: [Tier; 4] = [
    Tier {
        name: "14B",
        count: 3,
        quality: 0.40,
        tpot_s: 0.0184,
        usd_per_mtok: (0.15, 0.15),
    },
    Tier {
        name: "3B",
        count: 3,
        quality: 0.30,
        tpot_s: 0.0123,
        usd_per_mtok: (0.06, 0.06),
    },
    Tier {
        name: "72B",
        count: 2,
        quality: 0.45,
        tpot_s: 0.0474,
        usd_per_mtok: (0.38, 0.40),
    },
    Tier {
        name: "7B",
        count: 5,
        quality: 0.36,
        tpot_s: 0.0206,
        usd_per_mtok: (0.07, 0.07),
    },
];

fn cluster(load: InstanceLoad) -> (Vec<Candidate>, Vec<String>) {
    let (mut candidates, mut names) = (Vec::new(), Vec::new());
    for (tier, of) in TIERS.iter().enumerate() {
        for index in 0..of.count {
            let cost_usd = (PROMPT * of.usd_per_mtok.0 + LENGTH * of.usd_per_mtok.1) / 1e6;
            let estimate = Estimate {
                quality: of.quality,
                quality_sd: 0.1,
                output_tokens: LENGTH,
                queue_s: 0.0,
                ttft_s: 0.05,
                tpot_s: of.tpot_s,
                e2e_s: LENGTH * of.tpot_s,
                energy: Joules(1.0),
                idle_energy: Joules(0.0),
                others_s: 0.0,
                cost_usd,
                bounds: Default::default(),
            };
            candidates.push(Candidate {
                instance: InstanceId(candidates.len() as u32),
                model: ModelId(tier as u32),
                load,
                slots: 256,
                kv_capacity_tokens: None,
                cached_tokens: 0,
                weight: 1.0,
                alone_tpot_s: of.tpot_s,
                peers: equipoise_fleet::PeerView::default(),
                crowded: None,
                prediction: Prediction {
                    estimate,
                    quality: equipoise_estimate::QualityEstimate::default(),
                    base_ttft_s: 0.05,
                    base_tpot_s: of.tpot_s,
                    forecast_output_tokens: None,
                    in_flight: 0,
                    load_factor: 1.0,
                    length: equipoise_estimate::LengthEstimate::default(),
                    regime: Default::default(),
                },
            });
            names.push(format!("{}_{index}", of.name));
        }
    }
    (candidates, names)
}

/// The choices of ten identical requests as `name score`, and the predicted seconds behind each.
fn run(
    quality: f64,
    latency: f64,
    cost: f64,
    quality_norm: QualityNorm,
    load: InstanceLoad,
) -> Vec<(String, f64, f64)> {
    let settings = RouteBalanceSettings {
        weights: Weights {
            quality,
            latency,
            energy: 0.0,
            cost,
        },
        quality_norm,
        ..RouteBalanceSettings::default()
    };
    run_policy(RouteBalance::new(settings), load)
}

fn run_policy(mut policy: RouteBalance, load: InstanceLoad) -> Vec<(String, f64, f64)> {
    let (candidates, names) = cluster(load);
    let states: Vec<_> = candidates
        .iter()
        .map(|candidate| (candidate.instance, candidate.load, candidate.slots))
        .collect();
    policy.begin_batch(&mut states.into_iter());
    let request = Request {
        id: RequestId(0),
        target: Target::Auto,
        tenant: None,
        prompt_tokens: PROMPT as u32,
        max_output_tokens: None,
        streams: false,
        forecast: None,
        prefix: Prefix::default(),
        wishes: Wishes {
            labels: BTreeMap::new(),
            ..Wishes::default()
        },
    };
    let mut random = RandomStream::new(0);
    (0..10)
        .map(|_| {
            let before = policy.snapshots.clone();
            let Choice::Take {
                index,
                score: Some(score),
            } = policy.choose(&request, &candidates, &mut random)
            else {
                panic!("the baseline always takes one");
            };
            let chosen = &candidates[index];
            let seconds = RouteBalance::latency_s(&before[&chosen.instance], LENGTH, chosen.estimate().tpot_s);
            (names[index].clone(), score, seconds)
        })
        .collect()
}

/// `expected` lists runs of equal figures: names, score, seconds.
fn check(chosen: &[(String, f64, f64)], expected: &[(&[&str], f64, Option<f64>)]) {
    let mut chosen = chosen.iter();
    for (names, score, seconds) in expected {
        for name in *names {
            let (got, got_score, got_seconds) = chosen.next().expect("another choice");
            assert_eq!(got, name);
            assert!((got_score - score).abs() < 5.1e-5, "{name}: {got_score} is not {score}");
            if let Some(seconds) = seconds {
                assert!(
                    (got_seconds - seconds).abs() < 5.1e-3,
                    "{name}: {got_seconds} s is not {seconds} s"
                );
            }
        }
    }
    assert_eq!(chosen.next(), None);
}

const FIVE_7B: &[&str] = &["7B_0", "7B_1", "7B_2", "7B_3", "7B_4"];
const THREE_14B: &[&str] = &["14B_0", "14B_1", "14B_2"];
const THREE_3B: &[&str] = &["3B_0", "3B_1", "3B_2"];

fn idle() -> InstanceLoad {
    InstanceLoad::default()
}

#[test]
fn golden_a_uniform_min_max() {
    let chosen = run(0.33, 0.33, 0.33, QualityNorm::MinMax, idle());
    check(
        &chosen,
        &[
            (THREE_14B, 0.6264, Some(3.68)),
            (FIVE_7B, 0.5900, Some(4.12)),
            (&["3B_0", "3B_1"], 0.5242, Some(2.46)),
        ],
    );
}

#[test]
fn golden_a2_uniform_raw() {
    let chosen = run(0.33, 0.33, 0.33, QualityNorm::Raw, idle());
    check(
        &chosen,
        &[
            (THREE_3B, 0.6232, Some(2.46)),
            (FIVE_7B, 0.5768, Some(4.12)),
            (&["14B_0", "14B_1"], 0.5384, Some(3.68)),
        ],
    );
}

#[test]
fn golden_b_quality_drowns_one_tier() {
    let chosen = run(0.8, 0.1, 0.1, QualityNorm::MinMax, idle());
    let pairs: Vec<&str> = chosen.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(pairs, ["72B_0", "72B_1"].repeat(5));
    check(
        &chosen[..4],
        &[
            (&["72B_0"], 0.8000, Some(9.48)),
            (&["72B_1"], 0.8500, Some(9.48)),
            (&["72B_0"], 0.8000, Some(18.96)),
            (&["72B_1"], 0.8333, Some(18.96)),
        ],
    );
    assert!((chosen[9].2 - 47.40).abs() < 5e-3, "{chosen:?}");
}

#[test]
fn golden_c_cost() {
    let chosen = run(0.1, 0.1, 0.8, QualityNorm::MinMax, idle());
    let later = (&["3B_0"][..], 0.7264, Some(4.92));
    check(
        &chosen[..9],
        &[(FIVE_7B, 0.7545, None), (THREE_3B, 0.7523, None), later],
    );
    assert_eq!(chosen[9].0, "3B_1");
}

#[test]
fn golden_d_latency() {
    let chosen = run(0.1, 0.8, 0.1, QualityNorm::MinMax, idle());
    check(
        &chosen,
        &[
            (THREE_3B, 0.6772, None),
            (THREE_14B, 0.6181, None),
            (&FIVE_7B[..4], 0.5746, None),
        ],
    );
}

#[test]
fn golden_e_uniform_on_a_busy_cluster() {
    let busy = InstanceLoad {
        in_flight: 20,
        pending_decode_tokens: 2000,
        ..InstanceLoad::default()
    };
    let chosen = run(0.33, 0.33, 0.33, QualityNorm::MinMax, busy);
    check(&chosen[..8], &[(THREE_14B, 0.6264, None), (FIVE_7B, 0.5900, None)]);
    // 2,000 pending tokens over 20 running, plus the 200 of the first: (2200/20 + 200) * 18.4 ms.
    check(&chosen[8..], &[(&["14B_0", "14B_1"], 0.5559, Some(5.70))]);
}

#[test]
fn windows_follow_the_share_of_waiting_instances() {
    let mut policy = RouteBalance::new(RouteBalanceSettings::default());
    assert_eq!(
        policy.batching(),
        Batching {
            max_requests: 8,
            window_s: 0.1
        }
    );
    let state = |in_flight| {
        (
            InstanceId(0),
            InstanceLoad {
                in_flight,
                ..InstanceLoad::default()
            },
            4,
        )
    };
    policy.begin_batch(&mut [state(2)].into_iter());
    assert_eq!(
        policy.batching(),
        Batching {
            max_requests: 4,
            window_s: 0.05
        }
    );
    policy.begin_batch(&mut [state(5)].into_iter());
    assert_eq!(
        policy.batching(),
        Batching {
            max_requests: 32,
            window_s: 0.2
        }
    );
}

#[test]
fn arm_4_prices_a_constant_per_tier_and_lets_the_queue_choose_within_it() {
    let policy = RouteBalance::by_name("routebalance/static-prior", RouteBalanceSettings::default()).expect("known");
    let chosen = run_policy(policy, idle());
    // The score of golden A stays as it is: nothing that an instance has to do enters it.
    let names: Vec<&str> = chosen.iter().map(|(name, ..)| name.as_str()).collect();
    let in_turn: Vec<&str> = THREE_14B.iter().copied().cycle().take(10).collect();
    assert_eq!(names, in_turn);
    assert!(
        chosen.iter().all(|(_, score, _)| (score - 0.6264).abs() < 5e-5),
        "{chosen:?}"
    );
}

#[test]
fn arms_2_and_3_do_not_price_latency() {
    for name in ["routebalance/latency-blind", "routebalance/latency-tiebreak"] {
        let policy = RouteBalance::by_name(name, RouteBalanceSettings::default()).expect("known");
        let chosen = run_policy(policy, idle());
        // .5 * (.36 - .30) / .15 + .5 * (1 - .0196/.1104) for 7B: .2 + .41123; 14B: .33333 + .30978; 72B: .5.
        assert!(
            chosen.iter().all(|(_, score, _)| (score - 0.6431).abs() < 5e-5),
            "{name}: {chosen:?}"
        );
        let names: Vec<&str> = chosen.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names[..3], *THREE_14B, "{name}");
    }
}

#[test]
fn the_order_of_a_batch_is_a_switch() {
    let key = |name: &str| {
        let policy = RouteBalance::by_name(name, RouteBalanceSettings::default()).expect("known");
        assert_eq!(policy.name(), name);
        policy.order_key(&[300.0, 100.0, 200.0])
    };
    assert_eq!(key("routebalance"), 300.0);
    assert_eq!(key("routebalance/lpt-min"), 100.0);
    assert_eq!(key("routebalance/lpt-mean"), 200.0);
    assert_eq!(key("routebalance/fifo"), 0.0);
    assert!(RouteBalance::by_name("routebalance/magic", RouteBalanceSettings::default()).is_none());
}
