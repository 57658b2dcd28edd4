//! Messages that the protocol does not have in this order, or at all: the stream ends with a reason, nothing stays booked, and
//! the router goes on.

use equipoise_proto::ext_proc::processing_request::Request as Message;
use equipoise_proto::ext_proc::{BodySendMode, ProcessingRequest};
use equipoise_types::RandomStream;
use tonic::Code;

use crate::envoy::{Stream, chat_headers, request_body, request_headers, response_body, response_headers, trailers};
use crate::ext_proc::{CONCRETE, picked};
use crate::plane::{Router, instance, small_instance};

/// Reads to the end of a stream that must end with an error.
async fn complaint(stream: &mut Stream) -> tonic::Status {
    loop {
        match stream.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if nothing were wrong"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn what_comes_out_of_order_ends_the_stream_with_a_reason() {
    let router = Router::start(vec![instance("a", "m", 8000)], |_| {}).await;
    let response = || response_headers("200", "application/json");
    let sequences = [
        vec![request_body(CONCRETE, true)],
        vec![chat_headers(), chat_headers()],
        vec![chat_headers(), request_body(CONCRETE, true), chat_headers()],
        vec![
            chat_headers(),
            request_body(CONCRETE, true),
            request_body(b"more", true),
        ],
        vec![Message::RequestTrailers(trailers())],
        vec![response_body(b"{}", true)],
        vec![chat_headers(), response_body(b"{}", true)],
        vec![chat_headers(), request_body(CONCRETE, true), response_body(b"{}", true)],
        vec![
            chat_headers(),
            request_body(CONCRETE, true),
            Message::ResponseTrailers(trailers()),
        ],
        vec![chat_headers(), request_body(CONCRETE, true), response(), response()],
    ];
    for messages in sequences {
        let mut stream = Stream::duplex(&router.channel).await;
        let last = format!("{:?}", messages.last());
        for message in messages {
            stream.send(message).await;
        }
        let status = complaint(&mut stream).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status} after {last}");
        router.holds(0).await;
    }
    // A kind of message that is not known here reads as none.
    let mut stream = Stream::duplex(&router.channel).await;
    picked(&mut stream, CONCRETE).await;
    stream.send_raw(ProcessingRequest::default()).await;
    assert_eq!(complaint(&mut stream).await.code(), Code::Unimplemented);
    router.holds(0).await;
    router.running.shutdown().await;
}

#[tokio::test]
async fn a_stream_may_end_anywhere() {
    let router = Router::start(vec![small_instance("a", "m", 8000, 1)], |_| {}).await;
    // Without a word, without a body, in the middle of it: politely and by a reset.
    for polite in [true, false] {
        for messages in [
            vec![],
            vec![chat_headers()],
            vec![chat_headers(), request_body(b"{\"mod", false)],
        ] {
            let mut stream = Stream::duplex(&router.channel).await;
            for message in messages {
                stream.send(message).await;
            }
            if polite {
                stream.half_close();
                assert!(stream.next().await.expect("a clean end").is_none());
            }
        }
        // After the decision, and while another waits for the same slot.
        let mut sent = Stream::duplex(&router.channel).await;
        picked(&mut sent, CONCRETE).await;
        let mut waiting = Stream::duplex(&router.channel).await;
        waiting.send(chat_headers()).await;
        waiting.send(request_body(CONCRETE, true)).await;
        assert!(waiting.is_silent().await, "the only slot is taken");
        if polite {
            waiting.half_close();
            assert!(waiting.next().await.expect("a clean end").is_none());
            sent.half_close();
            assert!(sent.next().await.expect("a clean end").is_none());
        } else {
            drop(waiting);
            drop(sent);
        }
        router.holds(0).await;
    }
    // A gateway that answers by itself, before the request was complete.
    let mut stream = Stream::duplex(&router.channel).await;
    stream.send(chat_headers()).await;
    stream.send(response_headers("401", "text/plain")).await;
    stream.answer().await;
    stream.send(response_body(b"no", true)).await;
    stream.answer().await;
    stream.half_close();
    assert!(stream.next().await.expect("a clean end").is_none());
    router.running.shutdown().await;
}

/// One of all there are, sensible or not.
fn any_message(random: &mut RandomStream) -> ProcessingRequest {
    let end = random.below(2) == 0;
    let garbage: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
    let request = match random.below(12) {
        0 | 1 => chat_headers(),
        2 => request_headers(
            "/v1/chat/completions",
            &[("x-equipoise-labels", "=,="), ("\n", "?")],
            end,
        ),
        3 => request_headers(&String::from_utf8_lossy(&garbage), &[(":path", "/v1/completions")], end),
        4 | 5 => request_body(CONCRETE, end),
        6 => request_body(&garbage, end),
        7 => response_headers(["200", "500", "", "99999"][random.below(4)], "text/event-stream"),
        8 => response_body(&garbage, end),
        9 => response_body(b"data: {\"choices\": [{\"delta\": {\"content\": \"x\"}}]}\n\n", end),
        10 => Message::RequestTrailers(trailers()),
        _ => Message::ResponseTrailers(trailers()),
    };
    ProcessingRequest {
        request: (random.below(40) > 0).then_some(request),
        observability_mode: random.below(40) == 0,
        ..ProcessingRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sequence_of_messages_breaks_the_router_or_stays_booked() {
    let router = Router::start(vec![instance("a", "m", 8000), instance("b", "m", 8001)], |_| {}).await;
    let modes = [
        BodySendMode::FullDuplexStreamed,
        BodySendMode::Buffered,
        BodySendMode::BufferedPartial,
    ];
    for seed in 0..300 {
        let mut random = RandomStream::new(seed);
        let mode = modes[random.below(3)];
        let mut stream = Stream::open(&router.channel, mode, mode).await;
        for step in 0..random.below(10) {
            // Most begin well, or nothing would come far.
            let message = match step {
                0 if random.below(4) > 0 => ProcessingRequest {
                    request: Some(chat_headers()),
                    ..ProcessingRequest::default()
                },
                1 if random.below(4) > 0 => ProcessingRequest {
                    request: Some(request_body(CONCRETE, true)),
                    ..ProcessingRequest::default()
                },
                _ => any_message(&mut random),
            };
            stream.send_raw(message).await;
        }
        if random.below(2) == 0 {
            stream.half_close();
            while let Ok(Some(_)) = stream.next().await {}
        }
    }
    router.holds(0).await;
    // 5xx may have ejected both for a while; that a well-formed request has an answer of either kind is enough.
    let mut stream = Stream::duplex(&router.channel).await;
    stream.send(chat_headers()).await;
    stream.send(request_body(CONCRETE, true)).await;
    stream.answer().await;
    drop(stream);
    router.running.shutdown().await;
}
