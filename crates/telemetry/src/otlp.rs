//! Spans, and how they look to an OpenTelemetry collector (OTLP over HTTP, `http/protobuf`).

use equipoise_proto::Message as _;
use equipoise_proto::otlp::any_value::Value as Wire;
use equipoise_proto::otlp::span::{Event, SpanKind as WireKind};
use equipoise_proto::otlp::status::StatusCode;
use equipoise_proto::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
    Span as WireSpan, Status,
};

/// Bit 8 and 9 of a span's flags: whether its parent is in another process is known, and whether it is.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;
const SAMPLED: u32 = 1;

/// A span's part in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Somebody else's request.
    Server,
    /// Work inside.
    Internal,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Names with values.
pub type Attributes = Vec<(&'static str, Value)>;

/// Something that happened in a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// What.
    pub name: &'static str,
    /// What it was like.
    pub attributes: Attributes,
}

/// A piece of work that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Itself.
    pub span_id: [u8; 8],
    /// The span that it is part of.
    pub parent: Option<[u8; 8]>,
    /// Vendors' state, as the `tracestate` header has it.
    pub trace_state: String,
    /// What was done.
    pub name: String,
    /// Its part.
    pub kind: SpanKind,
    /// From when, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Until when.
    pub end_unix_ns: u64,
    /// What it was like.
    pub attributes: Attributes,
    /// What happened in it.
    pub events: Vec<SpanEvent>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

fn key_value(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => Wire::StringValue(text),
        Value::Integer(number) => Wire::IntValue(number),
        Value::Number(number) => Wire::DoubleValue(number),
        Value::Flag(flag) => Wire::BoolValue(flag),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

fn key_values(attributes: Attributes) -> Vec<KeyValue> {
    attributes
        .into_iter()
        .map(|(key, value)| key_value(key, value))
        .collect()
}

impl From<Span> for WireSpan {
    fn from(span: Span) -> Self {
        let remote = if span.kind == SpanKind::Server {
            PARENT_IS_REMOTE
        } else {
            0
        };
        Self {
            trace_id: span.trace_id.to_vec(),
            span_id: span.span_id.to_vec(),
            trace_state: span.trace_state,
            parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.to_vec()),
            name: span.name,
            kind: match span.kind {
                SpanKind::Server => WireKind::Server.into(),
                SpanKind::Internal => WireKind::Internal.into(),
            },
            start_time_unix_nano: span.start_unix_ns,
            end_time_unix_nano: span.end_unix_ns.max(span.start_unix_ns),
            attributes: key_values(span.attributes),
            events: span
                .events
                .into_iter()
                .map(|event| Event {
                    time_unix_nano: event.unix_ns,
                    name: event.name.to_owned(),
                    attributes: key_values(event.attributes),
                })
                .collect(),
            status: span.error.map(|message| Status {
                message,
                code: StatusCode::Error.into(),
            }),
            flags: SAMPLED | PARENT_IS_KNOWN | remote,
        }
    }
}

/// The body of an export: `application/x-protobuf`. `resource` says whose spans they are.
#[must_use]
pub fn encode_spans(resource: &[(String, String)], spans: Vec<Span>) -> Vec<u8> {
    let attributes = resource
        .iter()
        .map(|(key, value)| key_value(key, value.as_str().into()));
    let scope = InstrumentationScope {
        name: "equipoise".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes.collect(),
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.into_iter().map(WireSpan::from).collect(),
            }],
        }],
    };
    request.encode_to_vec()
}
