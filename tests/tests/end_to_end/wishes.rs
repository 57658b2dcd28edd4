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

/// A floor between two models' qualities (0.584 and 0.647): only the better one is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_quality_floor_and_weights_pick_the_model() {
    let up = Up::start(&[]).await;
    let model = |header: &'static str, value: &'static str| {
        let router = up.router.clone();
        async move {
            let answer = router.chat("auto", 1, &[(header, value)]).await;
            assert_eq!(answer.status, 200, "{header}: {}", answer.text());
            answer.header("x-equipoise-model").to_owned()
        }
    };
    assert_eq!(model("x-equipoise-quality-min", "0.6").await, "gemma-2-27b");
    assert_eq!(model("x-equipoise-weights", "quality=1").await, "gemma-2-27b");
    assert_eq!(model("x-equipoise-weights", "cost=1").await, "gemma-2-2b");
}
