//! HTTP/2 with prior knowledge on the router's port: gateways in front keep one connection for all of their clients.

use crate::client::{CHAT, Client, complete_tokens, streamed_chat};
use crate::cluster::Up;
use crate::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_one_connection() {
    let up = Up::start(&[]).await;
    let client = Client::http2(up.router.base());
    let ask = |number: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            if number.is_multiple_of(2) {
                let answer = client.chat("gemma-2-2b", 8, &[]).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(!answer.instance().is_empty());
            } else {
                let mut stream = client.stream(CHAT, &[], &streamed_chat("gemma-2-2b", 8)).await;
                let events = stream.rest().await.expect("it flows");
                assert_eq!(complete_tokens(&events), Some(8));
            }
        })
    };
    for request in (0..100).map(ask).collect::<Vec<_>>() {
        request.await.expect("answered");
    }
    let answer = client.chat("nobody", 1, &[]).await;
    answer.error(404, "model_not_found");
    // HTTP/1.1 beside it, on the same port.
    assert_eq!(up.router.chat("gemma-2-2b", 1, &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_frees_its_place_and_leaves_the_connection_alone() {
    let up = Up::start(&[]).await;
    let client = Client::http2(up.router.base());
    let mut kept = client.stream(CHAT, &[], &streamed_chat("gemma-2-2b", 300)).await;
    let mut dropped = client.stream(CHAT, &[], &streamed_chat("gemma-2-2b", 6000)).await;
    kept.next().await.expect("flows").expect("has begun");
    dropped.next().await.expect("flows").expect("has begun");
    drop(dropped);
    eventually("the router forgets the one that was reset", || async {
        let cancelled = up
            .router
            .metric("equipoise_router_requests_total", "outcome=\"cancelled\"")
            .await;
        (cancelled == Some(1.0)).then_some(())
    })
    .await;
    let rest = kept.rest().await.expect("the other is not concerned");
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
}
