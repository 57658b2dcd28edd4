//! `x-equipoise-*` request headers: what a client may wish for.

use std::collections::BTreeSet;

use crate::cluster::Up;

#[tokio::test(flavor = "multi_thread")]
async fn labels_steer_to_the_instances_that_wear_them() {
    let up = Up::start(&[]).await;
    for (labels, allowed) in [
        ("class=premium", &["expert-0"][..]),
        ("zone=west,class=standard", &["reasoning-0"]),
        ("class=economy", &["edge-0", "edge-1"]),
        ("zone=east", &["edge-0", "edge-1", "general-0", "general-1"]),
    ] {
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let answer = up.router.chat("auto", 1, &[("x-equipoise-labels", labels)]).await;
            assert_eq!(answer.status, 200, "{labels}: {}", answer.text());
            seen.insert(answer.instance().to_owned());
        }
        assert!(
            seen.iter().all(|name| allowed.contains(&name.as_str())),
            "{labels}: {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_nobody_can_grant_is_refused_with_its_reason() {
    let up = Up::start(&[]).await;
    for (header, value, reason) in [
        ("x-equipoise-quality-min", "0.99", "quality floor"),
        ("x-equipoise-labels", "zone=moon", "label"),
    ] {
        let message = up
            .router
            .chat("auto", 1, &[(header, value)])
            .await
            .error(400, "infeasible");
        assert!(message.contains(reason), "{header}: {message}");
    }
    let refused = up
        .router
        .metric("equipoise_router_refused_total", "reason=\"infeasible\"")
        .await;
    assert_eq!(refused, Some(2.0));
}

/// A floor between what the two best models are forecast for the prompt: only the best is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_quality_floor_and_weights_pick_the_model() {
    let up = Up::start(&[]).await;
    let decided = async |header: &str, value: &str| {
        let answer = up.router.chat("auto", 1, &[(header, value)]).await;
        assert_eq!(answer.status, 200, "{header}: {}", answer.text());
        answer
    };
    let cheapest = decided("x-equipoise-weights", "cost=1").await;
    assert_eq!(cheapest.header("x-equipoise-model"), "gemma-2-2b");

    let decision = cheapest.header("x-equipoise-decision-id");
    let explained = up.router.get(&format!("/v1/decisions/{decision}")).await.json();
    let mut forecasts: Vec<(f64, &str)> = explained["candidates"]
        .as_array()
        .expect("candidates")
        .iter()
        .map(|candidate| {
            (
                candidate["quality"].as_f64().expect("a figure"),
                candidate["model"].as_str().expect("a name"),
            )
        })
        .collect();
    forecasts.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    forecasts.dedup();
    let [(best, model), (second, _), ..] = forecasts[..] else {
        panic!("several models: {forecasts:?}")
    };
    assert!(best > second + 0.001, "{forecasts:?}");
    let floor = format!("{:.4}", f64::midpoint(best, second));
    for (header, value) in [
        ("x-equipoise-quality-min", floor.as_str()),
        ("x-equipoise-weights", "quality=1"),
    ] {
        assert_eq!(
            decided(header, value).await.header("x-equipoise-model"),
            model,
            "{header}: {forecasts:?}"
        );
    }
}
