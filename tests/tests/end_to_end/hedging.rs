//! A stream that is late is asked for a second time, and its client sees one answer.

use crate::client::{CHAT, complete_tokens, streamed_chat};
use crate::cluster::{FleetFile, Up};
use crate::eventually;

/// Three boxes that answer at once, and one that lets everybody wait; each gets its turn.
const FLEET: &str = "[scheduler]\npolicy = \"round-robin\"\nhedge = { quantile = 0.6, least_delay_ms = 50 }\n\n[[model]]\nname = \"m\"\n\n\
                     [[pool]]\nname = \"quick\"\nmodel = \"m\"\nservice_ms = 20\ncount = 3\n\n\
                     [[pool]]\nname = \"slow\"\nmodel = \"m\"\nservice_ms = 1500\ncount = 1\n";
const TOKENS: u32 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_stream_has_a_twin_and_one_answer() {
    let fleet = FleetFile::new(FLEET);
    let up = Up::start(&["--fleet", fleet.path()]).await;
    let mut asked = 0;
    let mut ask = async |streams: usize| {
        let asking = (0..streams).map(|_| {
            let router = up.router.clone();
            tokio::spawn(async move {
                let mut stream = router.stream(CHAT, &[], &streamed_chat("m", TOKENS)).await;
                let instance = stream.header("x-equipoise-instance").to_owned();
                let events = stream.rest().await.expect("ends well");
                assert_eq!(complete_tokens(&events), Some(TOKENS as usize), "{events:#?}");
                instance
            })
        });
        let asking: Vec<_> = asking.collect();
        asked += streams;
        let mut by = Vec::new();
        for one in asking {
            by.push(one.await.expect("a client ends well"));
        }
        by
    };
    // Until enough is known of what is usual nobody is hedged.
    let by = ask(40).await;
    assert!(by.iter().any(|instance| instance == "slow-0"), "{by:?}");
    let metric = async |name: &str, label: &str| up.router.metric(name, label).await;
    assert_eq!(metric("equipoise_router_hedges_total", "").await, Some(0.0));
    let mut by = Vec::new();
    for _ in 0..3 {
        by.extend(ask(8).await);
    }
    let (hedges, won) = (
        metric("equipoise_router_hedges_total", "").await,
        metric("equipoise_router_hedges_won_total", "").await,
    );
    assert!(hedges >= Some(3.0) && won >= Some(1.0), "{hedges:?}, {won:?}: {by:?}");
    // Two were sent, one is counted; the loser's place is free, here and at the engine.
    eventually("nothing is left", || async {
        let in_flight = up.router.metric("equipoise_router_in_flight", "").await;
        (in_flight == Some(0.0)).then_some(())
    })
    .await;
    let answered = metric("equipoise_router_requests_total", "outcome=\"answered\"").await;
    assert_eq!(answered, Some(asked as f64));
    assert_eq!(metric("equipoise_router_requests_total", "").await, Some(asked as f64));
    assert_eq!(metric("equipoise_router_breaker", "").await, Some(0.0));
}
