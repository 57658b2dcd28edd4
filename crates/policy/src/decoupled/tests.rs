use equipoise_estimate::{Estimate, InstanceLoad, Prediction};
use equipoise_types::{InstanceId, Joules, RequestId};

use super::*;
use crate::{Prefix, Target, Wishes};

fn options(figures: &[(f64, f64)]) -> Vec<ModelOption> {
    let option = |(id, &(quality, cost_usd)): (usize, &(f64, f64))| ModelOption {
        model: ModelId(id as u32),
        quality,
        cost_usd,
    };
    figures.iter().enumerate().map(option).collect()
}

#[test]
fn best_route_falls_back_to_the_cheapest_when_unsure() {
    let rule = best_route::BestRoute::new(None);
    // softmax(0, -0.4/0.1): 98 % sure.
    assert_eq!(rule.choose(&options(&[(0.5, 1.0), (0.9, 2.0)])), 1);
    // Four models within 0.05: 38 % at most.
    assert_eq!(
        rule.choose(&options(&[(0.50, 3.0), (0.52, 2.0), (0.48, 1.0), (0.49, 4.0)])),
        2
    );
}

#[test]
fn avengers_pro_trades_performance_for_efficiency() {
    let rule = avengers_pro::AvengersPro::new(None);
    // 0.8*0 + 0.2*1 = 0.2; 0.8*0.9 + 0.2*0.8 = 0.88; 0.8*1 + 0 = 0.8.
    assert_eq!(rule.choose(&options(&[(0.30, 1.0), (0.39, 2.0), (0.40, 6.0)])), 1);
    assert_eq!(rule.choose(&options(&[(0.30, 1.0), (0.32, 2.0), (0.40, 6.0)])), 2);
}

#[test]
fn routellm_takes_the_strong_model_where_it_wins() {
    let rule = route_llm::RouteLlm::new(None);
    assert_eq!(
        rule.choose(&options(&[(0.5, 1.0), (0.6, 9.0), (0.9, 5.0)])),
        1,
        "the one in between is nobody"
    );
    assert_eq!(rule.choose(&options(&[(0.5, 1.0), (0.4, 9.0)])), 0);
}

#[test]
fn radar_pays_for_quality_only_so_much() {
    let rule = radar::Radar::new(None);
    // 0.9*0.5 - 0 = 0.45; 0.9*0.7 - 0.1*1 = 0.53; with a lead of 0.1 it is 0.44.
    assert_eq!(rule.choose(&options(&[(0.5, 1.0), (0.7, 9.0)])), 1);
    assert_eq!(rule.choose(&options(&[(0.5, 1.0), (0.6, 9.0)])), 0);
}

#[test]
fn the_dispatcher_sees_one_model_only() {
    let candidate = |id: u32, model: u32, quality: f64, in_flight: u32| {
        let estimate = Estimate {
            quality,
            quality_sd: 0.1,
            output_tokens: 10.0,
            queue_s: 0.0,
            ttft_s: 0.1,
            tpot_s: 0.01,
            e2e_s: 0.2,
            energy: Joules(1.0),
            idle_energy: Joules(0.0),
            others_s: 0.0,
            cost_usd: 1.0,
            bounds: Default::default(),
        };
        Candidate {
            instance: InstanceId(id),
            model: ModelId(model),
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
                in_flight,
                load_factor: 1.0,
                length: equipoise_estimate::LengthEstimate::default(),
                regime: Default::default(),
            },
        }
    };
    let candidates = [
        candidate(0, 0, 0.2, 0),
        candidate(1, 1, 0.9, 5),
        candidate(2, 1, 0.9, 3),
    ];
    let request = Request {
        id: RequestId(0),
        target: Target::Auto,
        tenant: None,
        prompt_tokens: 5,
        max_output_tokens: None,
        streams: false,
        forecast: None,
        prefix: Prefix::default(),
        wishes: Wishes::default(),
    };
    let mut policy = Decoupled::by_name("quality-greedy+shortest-queue")
        .expect("valid")
        .expect("known");
    let choice = policy.choose(&request, &candidates, &mut RandomStream::new(0));
    assert_eq!(choice, Choice::Take { index: 2, score: None });
    for name in Decoupled::names() {
        assert_eq!(Decoupled::by_name(name).expect("valid").expect("known").name(), *name);
    }
}

#[test]
fn a_routers_parameter_comes_with_its_name() {
    let known = |name: &str| Decoupled::by_name(name).map(|found| found.is_some());
    assert_eq!(known("routellm@0.11593+round-robin"), Ok(true));
    assert_eq!(known("best-route@0+shortest-queue"), Ok(true));
    assert_eq!(known("cost-greedy@0.5+shortest-queue"), Ok(false), "it has none");
    assert_eq!(known("routellm+magic"), Ok(false));
    for nonsense in ["avengers-pro@1.5+round-robin", "avengers-pro@x+round-robin"] {
        let error = known(nonsense).expect_err("nonsense").to_string();
        assert!(error.contains("must be from 0 to 1"), "{error}");
    }
    // At 0.11593, the threshold as published, a weak lead of the weak model is not enough.
    let rule = route_llm::RouteLlm::new(Some(0.11593));
    assert_eq!(rule.choose(&options(&[(0.5, 1.0), (0.4, 9.0)])), 1);
}
