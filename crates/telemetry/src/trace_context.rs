//! W3C trace context: taken from a request's headers, continued as a child, passed on to the engine.
//!
//! <https://www.w3.org/TR/trace-context/>. Parsing and formatting are OpenTelemetry's own propagator.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The place of one piece of work in a trace: trace id, span id, the sampling flag and vendors' state.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceContext {
    span: SpanContext,
}

impl TraceContext {
    /// The context that a caller sent, if its `traceparent` is valid.
    #[must_use]
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(TRACEPARENT) {
            return None;
        }
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming::new(headers));
        let span = context.span().span_context().clone();
        span.is_valid().then_some(Self { span })
    }

    /// The caller's context continued, with the caller's span; or a new trace, sampled in `ratio` of cases ([0, 1]).
    #[must_use]
    pub fn accept(headers: &HeaderMap, ratio: f64) -> (Self, Option<[u8; 8]>) {
        match Self::extract(headers) {
            Some(caller) => (caller.child(), Some(caller.span.span_id().to_bytes())),
            None => (Self::root_sampled(ratio), None),
        }
    }

    /// The start of a new trace, sampled in `ratio` of cases by its id, so that every sampler with that ratio agrees
    /// (`TraceIdRatioBased` of the OpenTelemetry SDK specification).
    #[must_use]
    pub fn root_sampled(ratio: f64) -> Self {
        let ids = RandomIdGenerator::default();
        let trace_id = ids.new_trace_id();
        let low = trace_id.to_bytes()[8..]
            .iter()
            .fold(0_u64, |low, byte| (low << 8) | u64::from(*byte));
        let share = (low >> 1) as f64 / (1_u64 << 63) as f64;
        let flags = if share < ratio {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        Self {
            span: SpanContext::new(trace_id, ids.new_span_id(), flags, false, TraceState::default()),
        }
    }

    /// The trace id and the span id as they are on the wire.
    #[must_use]
    pub fn ids(&self) -> ([u8; 16], [u8; 8]) {
        (self.span.trace_id().to_bytes(), self.span.span_id().to_bytes())
    }

    /// Vendors' state, as a header has it.
    #[must_use]
    pub fn trace_state(&self) -> String {
        self.span.trace_state().header()
    }

    /// A new span in the same trace, with the same sampling and state.
    #[must_use]
    pub fn child(&self) -> Self {
        let span_id = RandomIdGenerator::default().new_span_id();
        let (flags, state) = (self.span.trace_flags(), self.span.trace_state().clone());
        Self {
            span: SpanContext::new(self.span.trace_id(), span_id, flags, false, state),
        }
    }

    /// Writes `traceparent` and `tracestate` over what the headers hold.
    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        if *self.span.trace_state() == TraceState::NONE {
            // The form that nearly all requests have is written without the propagator's detour over its map of strings.
            let text = traceparent(&self.span);
            if let Ok(value) = HeaderValue::from_bytes(&text) {
                headers.insert(HeaderName::from_static(TRACEPARENT), value);
            }
            return;
        }
        let context = Context::new().with_remote_span_context(self.span.clone());
        TraceContextPropagator::new().inject_context(&context, &mut Outgoing(headers));
    }

    /// The trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.span.trace_id().to_string()
    }

    /// The span id, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        self.span.span_id().to_string()
    }

    /// Whether the caller asked for this trace to be recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.span.is_sampled()
    }
}

/// `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal digits; of the flags only the sampling one is passed on.
fn traceparent(span: &SpanContext) -> [u8; 55] {
    let mut text = [b'-'; 55];
    let mut write = |at: usize, bytes: &[u8]| {
        for (pair, byte) in text[at..].chunks_exact_mut(2).zip(bytes) {
            pair[0] = HEX_DIGITS[usize::from(byte >> 4)];
            pair[1] = HEX_DIGITS[usize::from(byte & 15)];
        }
    };
    write(0, &[0]);
    write(3, &span.trace_id().to_bytes());
    write(36, &span.span_id().to_bytes());
    write(53, &[(span.trace_flags() & TraceFlags::SAMPLED).to_u8()]);
    text
}

/// `tracestate` may come in several header lines, which read as one list (section 3.3 of the recommendation).
struct Incoming<'a> {
    headers: &'a HeaderMap,
    tracestate: Option<String>,
}

impl<'a> Incoming<'a> {
    fn new(headers: &'a HeaderMap) -> Self {
        let lines: Vec<_> = headers
            .get_all(TRACESTATE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .collect();
        Self {
            headers,
            tracestate: (!lines.is_empty()).then(|| lines.join(",")),
        }
    }
}

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == TRACESTATE {
            self.tracestate.as_deref()
        } else {
            self.headers.get(key)?.to_str().ok()
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.headers.keys().map(HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("valid"));
        }
        headers
    }

    #[test]
    fn a_child_keeps_the_trace_and_changes_the_span() {
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let incoming = headers(&[("traceparent", &parent), ("tracestate", "a=1"), ("tracestate", "b=2")]);
        let child = TraceContext::accept(&incoming, 0.0).0;
        assert_eq!(child.trace_id(), TRACE);
        assert_ne!(child.span_id(), "b7ad6b7169203331");
        assert!(child.is_sampled());
        let mut outgoing = headers(&[("tracestate", "old=1")]);
        child.inject(&mut outgoing);
        assert_eq!(outgoing["traceparent"], format!("00-{TRACE}-{}-01", child.span_id()));
        assert_eq!(outgoing["tracestate"], "a=1,b=2");
        assert_eq!(outgoing.get_all("tracestate").iter().count(), 1);
    }

    #[test]
    fn without_state_the_header_is_the_propagators() {
        for ratio in [0.0, 1.0] {
            let root = TraceContext::root_sampled(ratio);
            let (mut ours, mut theirs) = (headers(&[("traceparent", "old")]), HeaderMap::new());
            root.inject(&mut ours);
            let context = Context::new().with_remote_span_context(root.span.clone());
            TraceContextPropagator::new().inject_context(&context, &mut Outgoing(&mut theirs));
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn roots_are_sampled_by_their_id() {
        let sampled = |ratio| {
            (0..2000)
                .filter(|_| TraceContext::root_sampled(ratio).is_sampled())
                .count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 2000));
        let half = sampled(0.5);
        // Twelve standard deviations.
        assert!((730..1270).contains(&half), "{half}");
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let (context, caller) = TraceContext::accept(&headers(&[("traceparent", &parent)]), 0.0);
        assert_eq!(caller, Some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]));
        assert!(context.is_sampled(), "a caller's flag counts");
        assert_eq!(TraceContext::accept(&HeaderMap::new(), 1.0).1, None);
    }

    #[test]
    fn what_is_not_a_trace_parent_starts_a_new_trace() {
        for bad in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "garbage",
        ] {
            let incoming = headers(&[("traceparent", bad)]);
            assert_eq!(TraceContext::extract(&incoming), None, "{bad}");
            let fresh = TraceContext::accept(&incoming, 0.0).0;
            assert!(!fresh.is_sampled());
            assert_ne!(fresh.trace_id(), TraceContext::root_sampled(1.0).trace_id());
        }
    }
}
