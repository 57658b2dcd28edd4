//! The route service.

use std::collections::HashMap;
use std::time::Duration;

use equipoise_proto::v1;
use equipoise_proto::v1::pick_request::Prompt;
use equipoise_proto::v1::report::What;
use equipoise_proto::v1::route_service_client::RouteServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::plane::{Router, instance, small_instance};

fn asking(model: &str) -> v1::PickRequest {
    v1::PickRequest {
        model: model.to_owned(),
        prompt: Some(Prompt::Tokens(100)),
        max_output_tokens: Some(50),
        streams: true,
        ..v1::PickRequest::default()
    }
}

async fn pick(client: &mut RouteServiceClient<Channel>, request: v1::PickRequest) -> v1::PickResponse {
    client.pick(request).await.expect("a pick").into_inner()
}

async fn report(client: &mut RouteServiceClient<Channel>, decision: &str, what: Vec<What>) -> Vec<bool> {
    let reports = what.into_iter().map(|what| v1::Report {
        decision_id: decision.to_owned(),
        what: Some(what),
    });
    let request = v1::ReportRequest {
        reports: reports.collect(),
    };
    client.report(request).await.expect("taken").into_inner().known
}

fn finished(prompt_tokens: u32, output_tokens: u32) -> What {
    What::Finished(v1::Finished {
        prompt_tokens: Some(prompt_tokens),
        output_tokens: Some(output_tokens),
    })
}

#[tokio::test]
async fn a_pick_is_booked_until_it_is_reported_to_have_ended_and_no_longer() {
    let router = Router::start(vec![instance("a", "m", 1), instance("b", "m", 2)], |_| {}).await;
    let mut client = RouteServiceClient::new(router.channel.clone());
    let first = pick(&mut client, asking("m")).await;
    let second = pick(&mut client, asking("auto")).await;
    assert_ne!(first.instance, second.instance, "the first is counted at once");
    assert_eq!(
        (first.model.as_str(), first.attempt, first.report_within_ms),
        ("m", 1, 60_000)
    );
    assert!(first.endpoint.starts_with("http://10.0.0.1:"));
    assert!(first.estimate.expect("an estimate").e2e_s > 0.0);
    router.holds(2).await;
    let tokens = |count| What::Tokens(v1::Tokens { count });
    let said = vec![
        What::FirstToken(v1::FirstToken {}),
        tokens(3),
        tokens(4),
        finished(120, 8),
    ];
    assert_eq!(report(&mut client, &first.decision_id, said).await, [true; 4]);
    assert_eq!(
        report(&mut client, &first.decision_id, vec![finished(1, 1)]).await,
        [false]
    );
    router.holds(1).await;
    assert_eq!(router.in_flight(&second.instance), 1);
    let unknown = vec![What::Cancelled(v1::Cancelled {})];
    assert_eq!(report(&mut client, "router-b-7", unknown.clone()).await, [false]);
    assert_eq!(report(&mut client, &second.decision_id, unknown).await, [true]);
    router.holds(0).await;
    assert_eq!(router.ended(), [(false, 8), (true, 0)]);
    router.running.shutdown().await;
}

#[tokio::test]
async fn a_pick_that_nobody_reports_on_expires() {
    let router = Router::start(vec![instance("a", "m", 1)], |_| {}).await;
    let mut client = RouteServiceClient::new(router.channel.clone());
    let request = v1::PickRequest {
        report_within_ms: 300,
        ..asking("m")
    };
    let pick = pick(&mut client, request).await;
    // Each report puts it off.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let tokens = What::Tokens(v1::Tokens { count: 1 });
        assert_eq!(report(&mut client, &pick.decision_id, vec![tokens]).await, [true]);
    }
    router.holds(0).await;
    assert_eq!(
        report(&mut client, &pick.decision_id, vec![finished(1, 1)]).await,
        [false]
    );
    assert_eq!(router.ended(), [(true, 4)]);
    router.running.shutdown().await;
}

#[tokio::test]
async fn a_pick_that_failed_goes_elsewhere_until_there_is_nowhere() {
    let router = Router::start(vec![instance("a", "m", 1), instance("b", "m", 2)], |_| {}).await;
    let mut client = RouteServiceClient::new(router.channel.clone());
    let first = pick(&mut client, asking("m")).await;
    let again = |decision: &str| v1::PickAgainRequest {
        decision_id: decision.to_owned(),
        failure: v1::PickFailure::Unreached.into(),
    };
    let second = client
        .pick_again(again(&first.decision_id))
        .await
        .expect("another")
        .into_inner();
    assert_ne!(second.instance, first.instance);
    assert_eq!(second.attempt, 2);
    let gone = client.pick_again(again(&first.decision_id)).await.expect_err("ended");
    assert_eq!(gone.code(), Code::NotFound);
    router.holds(1).await;
    let nowhere = client
        .pick_again(again(&second.decision_id))
        .await
        .expect_err("nobody is left");
    assert_eq!(nowhere.code(), Code::Unavailable, "{nowhere}");
    router.holds(0).await;
    router.running.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_picked_says_why() {
    let router = Router::start(vec![instance("a", "m", 1)], |_| {}).await;
    let mut client = RouteServiceClient::new(router.channel.clone());
    let wish = |name: &str, value: &str| v1::PickRequest {
        wishes: HashMap::from([(name.to_owned(), value.to_owned())]),
        ..asking("m")
    };
    let body = |path: &str, content: &str| v1::PickRequest {
        prompt: Some(Prompt::Body(v1::Body {
            path: path.to_owned(),
            content: content.as_bytes().to_vec(),
        })),
        ..v1::PickRequest::default()
    };
    let unlucky = [
        (asking("nobody"), Code::NotFound, "m, auto"),
        (asking(""), Code::InvalidArgument, "`auto`"),
        (wish("labels", "zone=moon"), Code::FailedPrecondition, "without a label"),
        (wish("priority", "high"), Code::InvalidArgument, "whole number"),
        (wish("colour", "red"), Code::InvalidArgument, "is not understood"),
        (wish("two\nlines", "1"), Code::InvalidArgument, "no name of a header"),
        (
            v1::PickRequest {
                prompt: None,
                ..asking("m")
            },
            Code::InvalidArgument,
            "no prompt",
        ),
        (
            v1::PickRequest {
                report_within_ms: 5,
                ..asking("m")
            },
            Code::InvalidArgument,
            "from 100",
        ),
        (body("/v1/nothing", "{}"), Code::NotFound, "/v1/nothing"),
        (body("/v1/completions", "{"), Code::InvalidArgument, "not valid JSON"),
        (
            v1::PickRequest {
                model: "m".to_owned(),
                ..body("/v1/completions", "{}")
            },
            Code::InvalidArgument,
            "leave them out",
        ),
    ];
    for (request, code, reason) in unlucky {
        let status = client.pick(request.clone()).await.expect_err("is refused");
        assert_eq!(status.code(), code, "{status} of {request:?}");
        assert!(status.message().contains(reason), "{status}");
    }
    let fine = body(
        "/v1/chat/completions",
        r#"{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}"#,
    );
    let picked = pick(&mut client, fine).await;
    assert_eq!(picked.instance, "a");
    let text = v1::PickRequest {
        prompt: Some(Prompt::Text("What does a balance weigh?".to_owned())),
        ..asking("auto")
    };
    pick(&mut client, text).await;
    router.holds(2).await;
    router.running.shutdown().await;
}

#[tokio::test]
async fn who_waits_and_leaves_is_forgotten() {
    let router = Router::start(vec![small_instance("a", "m", 1, 1)], |_| {}).await;
    let mut client = RouteServiceClient::new(router.channel.clone());
    let first = pick(&mut client, asking("m")).await;
    let mut other = client.clone();
    let waiting = tokio::time::timeout(Duration::from_millis(200), other.pick(asking("m"))).await;
    assert!(waiting.is_err(), "the only slot is taken");
    report(&mut client, &first.decision_id, vec![finished(10, 10)]).await;
    router.holds(0).await;
    let next = pick(&mut client, asking("m")).await;
    report(&mut client, &next.decision_id, vec![What::Failed(v1::Failed {})]).await;
    router.holds(0).await;
    router.running.shutdown().await;
}
