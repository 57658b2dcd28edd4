//! External processing as the endpoint picker protocol has it.

use equipoise_proto::ext_proc::processing_request::Request as Message;
use equipoise_proto::ext_proc::processing_response::Response as Answer;
use equipoise_proto::ext_proc::{BodySendMode, ProcessingRequest};
use equipoise_proto::health::HealthCheckRequest;
use equipoise_proto::health::health_check_response::ServingStatus;
use equipoise_proto::health::health_client::HealthClient;
use equipoise_proto::v1;

use crate::envoy::{
    Stream, chat_headers, destination, header, replaced, request_body, request_headers, response_body,
    response_headers, served, set_to, streamed, subset, trailers,
};
use crate::plane::{Router, instance, small_instance};

pub(crate) const CONCRETE: &[u8] =
    br#"{ "model" : "m", "stream": true, "odd": 1e2, "messages": [{"role": "user", "content": "Hello"}]}"#;
const AUTO: &[u8] = br#"{"messages": [{"role": "user", "content": "Hello"}], "model": "auto", "stream": true}"#;
const SSE: &str = "text/event-stream; charset=utf-8";

/// A stream's request part to the decision, with nothing out of the ordinary.
pub(crate) async fn picked(stream: &mut Stream, body: &[u8]) -> String {
    stream.send(chat_headers()).await;
    stream.send(request_body(body, true)).await;
    let endpoint = destination(&stream.answer().await);
    let (_, last) = streamed(&stream.answer().await);
    assert!(last);
    endpoint
}

fn chunk(text: &str) -> String {
    format!("data: {{\"choices\": [{{\"index\": 0, \"delta\": {{\"content\": \"{text}\"}}}}]}}\n\n")
}

#[tokio::test]
async fn a_streamed_request_is_sent_watched_and_released() {
    let router = Router::start(vec![instance("a", "m", 8000)], |_| {}).await;
    let mut stream = Stream::duplex(&router.channel).await;
    stream.send(chat_headers()).await;
    let (one, two) = AUTO.split_at(30);
    stream.send(request_body(one, false)).await;
    assert!(stream.is_silent().await, "nothing is said before the body is complete");
    stream.send(request_body(two, true)).await;
    let answer = stream.answer().await;
    assert_eq!(destination(&answer), "10.0.0.1:8000");
    let (body, last) = streamed(&stream.answer().await);
    let expected = String::from_utf8_lossy(AUTO).replace("\"auto\"", "\"m\"");
    assert_eq!(
        String::from_utf8_lossy(&body),
        expected,
        "only the model's name is changed"
    );
    assert!(last);
    router.holds(1).await;

    stream.send(response_headers("200", SSE)).await;
    let answer = stream.answer().await;
    assert_eq!(header(&answer, "x-equipoise-instance").as_deref(), Some("a"));
    assert!(header(&answer, "x-equipoise-decision-id").is_some_and(|name| name.starts_with("router-a-")));
    let text = format!("{}{}{}", chunk("The"), chunk(" scale"), chunk("s"));
    for part in text.as_bytes().chunks(17) {
        stream.send(response_body(part, false)).await;
        assert_eq!(streamed(&stream.answer().await), (part.to_vec(), false));
    }
    router.holds(1).await;
    let end = "data: {\"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";
    stream.send(response_body(end.as_bytes(), true)).await;
    assert_eq!(streamed(&stream.answer().await), (end.as_bytes().to_vec(), true));
    router.holds(0).await;
    assert_eq!(router.ended(), [(false, 3)]);
    stream.half_close();
    assert!(stream.next().await.expect("a clean end").is_none());
    router.running.shutdown().await;
}

#[tokio::test]
async fn a_concrete_model_s_body_goes_on_byte_for_byte_in_parts() {
    let router = Router::start(vec![instance("a", "m", 8000)], |_| {}).await;
    let mut stream = Stream::open_with(&router.channel, None).await;
    let filler = "x".repeat(200_000);
    let body = format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "{filler}"}}]}}"#);
    stream.send(chat_headers()).await;
    for part in body.as_bytes().chunks(60_000) {
        stream.send(request_body(part, false)).await;
    }
    // The end comes with the trailers.
    stream.send(Message::RequestTrailers(trailers())).await;
    assert_eq!(destination(&stream.answer().await), "10.0.0.1:8000");
    let mut passed = Vec::new();
    loop {
        let answer = stream.answer().await;
        if let Some(Answer::RequestTrailers(_)) = answer.response {
            break;
        }
        let (part, last) = streamed(&answer);
        assert!(!last && part.len() < 65_536, "the trailers are the end");
        passed.extend(part);
    }
    assert_eq!(passed, body.as_bytes());
    stream.send(response_headers("200", "application/json")).await;
    stream.answer().await;
    let whole = br#"{"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": 9}}"#;
    stream.send(response_body(whole, false)).await;
    stream.answer().await;
    stream.send(Message::ResponseTrailers(trailers())).await;
    let answer = stream.answer().await;
    assert!(matches!(answer.response, Some(Answer::ResponseTrailers(_))));
    router.holds(0).await;
    assert_eq!(router.ended(), [(false, 9)]);
    router.running.shutdown().await;
}

#[tokio::test]
async fn a_buffered_request_has_its_answer_with_the_body() {
    let router = Router::start(vec![instance("a", "m", 8000)], |_| {}).await;
    let mut stream = Stream::open(&router.channel, BodySendMode::Buffered, BodySendMode::Streamed).await;
    stream.send(chat_headers()).await;
    let answer = stream.answer().await;
    assert!(matches!(answer.response, Some(Answer::RequestHeaders(_))));
    assert!(answer.dynamic_metadata.is_none());
    stream.send(request_body(AUTO, true)).await;
    let answer = stream.answer().await;
    assert_eq!(destination(&answer), "10.0.0.1:8000");
    let body = replaced(&answer).expect("a new body");
    assert_eq!(header(&answer, "content-length"), Some(body.len().to_string()));
    stream.send(response_headers("200", SSE)).await;
    stream.answer().await;
    stream.send(response_body(chunk("Hi").as_bytes(), false)).await;
    let answer = stream.answer().await;
    assert_eq!(replaced(&answer), None, "passes untouched");
    // The client leaves in the middle: the gateway resets the stream.
    drop(stream);
    router.holds(0).await;
    assert_eq!(router.ended(), [(true, 1)]);

    let mut stream = Stream::open(&router.channel, BodySendMode::Buffered, BodySendMode::Streamed).await;
    stream.send(chat_headers()).await;
    stream.answer().await;
    stream.send(request_body(CONCRETE, true)).await;
    let answer = stream.answer().await;
    assert_eq!(replaced(&answer), None);
    assert_eq!(header(&answer, "content-length"), None);
    router.running.shutdown().await;
}

#[tokio::test]
async fn what_is_not_served_has_the_status_that_the_protocol_asks_for() {
    let mut drained = instance("a", "m", 8000);
    drained.admin = Some(v1::InstanceAdmin {
        draining: true,
        weight: None,
    });
    let nobody = Router::start(vec![drained], |_| {}).await;
    let full = Router::start(vec![small_instance("a", "m", 8000, 1)], |config| {
        config.scheduler.queue_limit = 0;
        config.max_body_bytes = 100_000;
    })
    .await;
    let mut holder = Stream::duplex(&full.channel).await;
    picked(&mut holder, CONCRETE).await;
    let other = String::from_utf8_lossy(CONCRETE).replace("\"m\"", "\"other\"");
    let huge = vec![b' '; 100_001];
    for (router, headers, body, status, code) in [
        (&nobody, chat_headers(), CONCRETE, 503, "unavailable"),
        (&full, chat_headers(), CONCRETE, 429, "queue_full"),
        (&full, chat_headers(), other.as_bytes(), 404, "model_not_found"),
        (&full, chat_headers(), b"{\"model\": \"m\", \"mess", 400, "invalid_json"),
        (&full, chat_headers(), b"", 400, "invalid_json"),
        (&full, chat_headers(), huge.as_slice(), 413, "request_too_large"),
        (
            &full,
            request_headers("/v1/nothing", &[], false),
            CONCRETE,
            404,
            "not_found",
        ),
        (
            &full,
            request_headers("/v1/chat/completions?x=1", &[("x-equipoise-priority", "high")], false),
            CONCRETE,
            400,
            "invalid_header",
        ),
        (
            &full,
            request_headers("/v1/chat/completions", &[("x-equipoise-labels", "zone=moon")], false),
            CONCRETE,
            400,
            "infeasible",
        ),
    ] {
        let mut stream = Stream::duplex(&router.channel).await;
        stream.send(headers).await;
        stream.send(request_body(body, true)).await;
        let immediate = stream.immediate().await;
        let text = String::from_utf8_lossy(&immediate.body).into_owned();
        assert_eq!(immediate.status.map(|status| status.code), Some(status), "{text}");
        let error: serde_json::Value = serde_json::from_str(&text).expect("OpenAI's error object");
        assert_eq!(error["error"]["code"], code, "{text}");
        let headers = immediate.headers.expect("headers");
        assert_eq!(set_to(&headers, "content-type").as_deref(), Some("application/json"));
        assert_eq!(set_to(&headers, "retry-after").is_some(), [429, 503].contains(&status));
    }
    let mut unread = Stream::open(&full.channel, BodySendMode::None, BodySendMode::None).await;
    unread.send(chat_headers()).await;
    let immediate = unread.immediate().await;
    assert!(String::from_utf8_lossy(&immediate.body).contains("FULL_DUPLEX_STREAMED or BUFFERED"));
    full.holds(1).await;
    drop(holder);
    full.holds(0).await;
}

#[tokio::test]
async fn only_offered_endpoints_are_picked() {
    let fleet = (1..=4).map(|port| instance(&format!("i{port}"), "m", port)).collect();
    let router = Router::start(fleet, |_| {}).await;
    for _ in 0..6 {
        let mut stream = Stream::duplex(&router.channel).await;
        stream
            .send_with(chat_headers(), Some(subset(&["10.0.0.1:3", "10.0.0.9:1"])))
            .await;
        stream.send(request_body(CONCRETE, true)).await;
        assert_eq!(destination(&stream.answer().await), "10.0.0.1:3");
        let mut list = Stream::duplex(&router.channel).await;
        let headers = request_headers("/v1/models", &[], true);
        list.send_with(headers, Some(subset(&["10.0.0.1:2"]))).await;
        assert_eq!(destination(&list.answer().await), "10.0.0.1:2");
    }
    for offered in [vec![], vec!["10.0.0.9:1"]] {
        let mut stream = Stream::duplex(&router.channel).await;
        stream.send_with(chat_headers(), Some(subset(&offered))).await;
        stream.send(request_body(CONCRETE, true)).await;
        let immediate = stream.immediate().await;
        assert_eq!(immediate.status.map(|status| status.code), Some(503));
    }
    // Offered, but of another model: nobody eligible is 503, too.
    let two = vec![instance("a", "m", 1), instance("b", "other", 2)];
    let mixed = Router::start(two, |_| {}).await;
    let mut stream = Stream::duplex(&mixed.channel).await;
    stream.send_with(chat_headers(), Some(subset(&["10.0.0.1:2"]))).await;
    stream.send(request_body(CONCRETE, true)).await;
    assert_eq!(stream.immediate().await.status.map(|status| status.code), Some(503));
    router.holds(0).await;
    router.running.shutdown().await;
}

#[tokio::test]
async fn answers_that_are_none_release_the_ledger() {
    let router = Router::start(vec![instance("a", "m", 8000), instance("b", "m", 8001)], |_| {}).await;
    for (status, metadata) in [
        ("500", None),
        ("429", None),
        ("400", None),
        ("nonsense", None),
        ("200", Some(served("10.0.0.1:9999"))),
    ] {
        let mut stream = Stream::duplex(&router.channel).await;
        picked(&mut stream, CONCRETE).await;
        stream
            .send_with(response_headers(status, "application/json"), metadata)
            .await;
        stream.answer().await;
        stream.send(response_body(b"{}", true)).await;
        assert_eq!(streamed(&stream.answer().await), (b"{}".to_vec(), true));
        router.holds(0).await;
    }
    assert!(router.ended().iter().all(|(wasted, _)| *wasted));
    router.running.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_only_watches_is_left_alone() {
    let router = Router::start(vec![instance("a", "m", 8000)], |_| {}).await;
    let mut stream = Stream::duplex(&router.channel).await;
    for message in [
        chat_headers(),
        request_body(CONCRETE, true),
        response_headers("200", SSE),
    ] {
        let message = ProcessingRequest {
            request: Some(message),
            observability_mode: true,
            ..ProcessingRequest::default()
        };
        stream.send_raw(message).await;
    }
    stream.half_close();
    assert!(stream.next().await.expect("a clean end").is_none());
    router.holds(0).await;
    router.running.shutdown().await;
}

#[tokio::test]
async fn health_is_asked_by_name() {
    let router = Router::start(vec![instance("a", "m", 8000)], |_| {}).await;
    let empty = Router::start(vec![], |_| {}).await;
    let check = async |router: &Router, service: &str| {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut client = HealthClient::new(router.channel.clone());
        client
            .check(request)
            .await
            .map(|response| response.into_inner().status())
    };
    for service in ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"] {
        assert_eq!(check(&router, service).await.expect("known"), ServingStatus::Serving);
        assert_eq!(check(&empty, service).await.expect("known"), ServingStatus::NotServing);
    }
    assert_eq!(check(&empty, "liveness").await.expect("known"), ServingStatus::Serving);
    let unknown = check(&router, "nothing").await.expect_err("unknown");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    let mut client = HealthClient::new(router.channel.clone());
    let mut watch = client
        .watch(HealthCheckRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    let first = watch.message().await.expect("no error").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
}
