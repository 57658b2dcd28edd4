//! A gateway's side of external processing.

use std::collections::BTreeMap;
use std::time::Duration;

use equipoise_proto::ext_proc::body_mutation::Mutation;
use equipoise_proto::ext_proc::external_processor_client::ExternalProcessorClient;
use equipoise_proto::ext_proc::processing_request::Request as Message;
use equipoise_proto::ext_proc::processing_response::Response as Answer;
use equipoise_proto::ext_proc::{
    BodySendMode, CommonResponse, HeaderMap, HeaderMutation, HeaderValue, HttpBody, HttpHeaders, HttpTrailers,
    ImmediateResponse, Metadata, ProcessingRequest, ProcessingResponse, ProtocolConfiguration,
};
use equipoise_proto::prost_types::value::Kind;
use equipoise_proto::prost_types::{ListValue, Struct, Value};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const DESTINATION: &str = "x-gateway-destination-endpoint";

/// One request's stream.
pub(crate) struct Stream {
    sender: Option<mpsc::Sender<ProcessingRequest>>,
    answers: Streaming<ProcessingResponse>,
    config: Option<ProtocolConfiguration>,
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        value: String::new(),
        raw_value: value.as_bytes().to_vec(),
    };
    HeaderMap {
        headers: pairs.iter().map(header).collect(),
    }
}

pub(crate) fn request_headers(path: &str, more: &[(&str, &str)], end_of_stream: bool) -> Message {
    let mut pairs = vec![
        (":method", "POST"),
        (":path", path),
        ("content-type", "application/json"),
    ];
    pairs.extend(more);
    Message::RequestHeaders(HttpHeaders {
        headers: Some(headers(&pairs)),
        end_of_stream,
    })
}

pub(crate) fn chat_headers() -> Message {
    request_headers("/v1/chat/completions", &[], false)
}

pub(crate) fn response_headers(status: &str, kind: &str) -> Message {
    Message::ResponseHeaders(HttpHeaders {
        headers: Some(headers(&[(":status", status), ("content-type", kind)])),
        end_of_stream: false,
    })
}

fn http_body(content: &[u8], end_of_stream: bool) -> HttpBody {
    HttpBody {
        body: content.to_vec(),
        end_of_stream,
    }
}

pub(crate) fn request_body(content: &[u8], end_of_stream: bool) -> Message {
    Message::RequestBody(http_body(content, end_of_stream))
}

pub(crate) fn response_body(content: &[u8], end_of_stream: bool) -> Message {
    Message::ResponseBody(http_body(content, end_of_stream))
}

pub(crate) fn trailers() -> HttpTrailers {
    HttpTrailers {
        trailers: Some(headers(&[("x-checksum", "1")])),
    }
}

/// Metadata with the endpoints that may be picked.
pub(crate) fn subset(endpoints: &[&str]) -> Metadata {
    let text = |text: &&str| Value {
        kind: Some(Kind::StringValue((*text).to_owned())),
    };
    let list = Value {
        kind: Some(Kind::ListValue(ListValue {
            values: endpoints.iter().map(text).collect(),
        })),
    };
    metadata("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset", list)
}

/// Metadata with the endpoint that has answered.
pub(crate) fn served(endpoint: &str) -> Metadata {
    let text = Value {
        kind: Some(Kind::StringValue(endpoint.to_owned())),
    };
    metadata("envoy.lb", "x-gateway-destination-endpoint-served", text)
}

fn metadata(namespace: &str, key: &str, value: Value) -> Metadata {
    let fields = Struct {
        fields: BTreeMap::from([(key.to_owned(), value)]),
    };
    Metadata {
        filter_metadata: [(namespace.to_owned(), fields)].into(),
    }
}

impl Stream {
    /// With the modes said as newer gateways do.
    pub(crate) async fn open(channel: &Channel, request: BodySendMode, response: BodySendMode) -> Self {
        let config = ProtocolConfiguration {
            request_body_mode: request.into(),
            response_body_mode: response.into(),
            send_body_without_waiting_for_header_response: false,
        };
        Self::open_with(channel, Some(config)).await
    }

    /// As a gateway of the inference extension: streamed both ways.
    pub(crate) async fn duplex(channel: &Channel) -> Self {
        Self::open(
            channel,
            BodySendMode::FullDuplexStreamed,
            BodySendMode::FullDuplexStreamed,
        )
        .await
    }

    pub(crate) async fn open_with(channel: &Channel, config: Option<ProtocolConfiguration>) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        let mut client = ExternalProcessorClient::new(channel.clone());
        let opened = client.process(ReceiverStream::new(receiver)).await;
        Self {
            sender: Some(sender),
            answers: opened.expect("a stream").into_inner(),
            config,
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.send_with(message, None).await;
    }

    pub(crate) async fn send_with(&mut self, message: Message, metadata_context: Option<Metadata>) {
        self.send_raw(ProcessingRequest {
            request: Some(message),
            metadata_context,
            observability_mode: false,
            protocol_config: None,
        })
        .await;
    }

    pub(crate) async fn send_raw(&mut self, mut message: ProcessingRequest) {
        message.protocol_config = self.config.take();
        // The other side may have ended the stream: then it is its answer that tells.
        if let Some(sender) = &self.sender {
            drop(sender.send(message).await);
        }
    }

    /// Says nothing more; answers may still come.
    pub(crate) fn half_close(&mut self) {
        self.sender = None;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<ProcessingResponse>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        next.expect("the stream stands still")
    }

    /// The next answer, which must come.
    pub(crate) async fn answer(&mut self) -> ProcessingResponse {
        self.next().await.expect("no error").expect("an answer")
    }

    /// What the gateway is told to answer by itself, and that nothing follows.
    pub(crate) async fn immediate(&mut self) -> ImmediateResponse {
        let answer = self.answer().await;
        let Some(Answer::ImmediateResponse(immediate)) = answer.response else {
            panic!("no immediate response: {answer:?}");
        };
        assert!(self.next().await.expect("a clean end").is_none());
        immediate
    }

    /// Nothing comes for a moment.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(50), self.answers.message())
            .await
            .is_err()
    }
}

fn common(answer: &ProcessingResponse) -> &CommonResponse {
    let common = match &answer.response {
        Some(Answer::RequestHeaders(headers) | Answer::ResponseHeaders(headers)) => headers.response.as_ref(),
        Some(Answer::RequestBody(body) | Answer::ResponseBody(body)) => body.response.as_ref(),
        other => panic!("neither headers nor a body: {other:?}"),
    };
    common.expect("something to do")
}

/// The value that a mutation sets a header to.
pub(crate) fn set_to(mutation: &HeaderMutation, name: &str) -> Option<String> {
    let headers = mutation.set_headers.iter().filter_map(|option| option.header.as_ref());
    let mut values = headers.filter(|header| header.key == name);
    let value = values
        .next()
        .map(|header| String::from_utf8(header.raw_value.clone()).expect("text"));
    assert!(values.next().is_none(), "{name} is set twice");
    value
}

/// The header that an answer sets.
pub(crate) fn header(answer: &ProcessingResponse, name: &str) -> Option<String> {
    set_to(common(answer).header_mutation.as_ref()?, name)
}

/// The endpoint that an answer names, in the header and in the metadata alike.
pub(crate) fn destination(answer: &ProcessingResponse) -> String {
    let named = header(answer, DESTINATION).expect("a destination in the headers");
    let fields = &answer.dynamic_metadata.as_ref().expect("metadata").fields;
    let Some(Kind::StructValue(inner)) = &fields["envoy.lb"].kind else {
        panic!("no namespace: {fields:?}");
    };
    assert_eq!(inner.fields[DESTINATION].kind, Some(Kind::StringValue(named.clone())));
    named
}

/// A part of a body that goes on, and whether it is the last.
pub(crate) fn streamed(answer: &ProcessingResponse) -> (Vec<u8>, bool) {
    match &common(answer).body_mutation.as_ref().expect("a body").mutation {
        Some(Mutation::StreamedResponse(part)) => (part.body.clone(), part.end_of_stream),
        other => panic!("not streamed: {other:?}"),
    }
}

/// The body that takes the place of the one that came, if one does.
pub(crate) fn replaced(answer: &ProcessingResponse) -> Option<Vec<u8>> {
    match &common(answer).body_mutation.as_ref()?.mutation {
        Some(Mutation::Body(body)) => Some(body.clone()),
        other => panic!("no replacement: {other:?}"),
    }
}
