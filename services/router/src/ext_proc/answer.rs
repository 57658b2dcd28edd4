//! The answers of an endpoint picker, as messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use equipoise_openai::{ErrorCode, ErrorResponse};
use equipoise_proto::ext_proc::body_mutation::Mutation;
use equipoise_proto::ext_proc::header_value_option::HeaderAppendAction;
use equipoise_proto::ext_proc::processing_response::Response;
use equipoise_proto::ext_proc::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeaderValue, HeaderValueOption, HeadersResponse,
    HttpStatus, ImmediateResponse, ProcessingResponse, StreamedBodyResponse, TrailersResponse,
};
use equipoise_proto::prost_types::value::Kind;
use equipoise_proto::prost_types::{Struct, Value};

/// The header, and the key in the metadata, that names the endpoint.
pub(super) const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The namespace of the metadata.
pub(super) const NAMESPACE: &str = "envoy.lb";
/// Longest part of a streamed body in one message: below 64 KiB with all that is around it.
const PART_BYTES: usize = 62_000;

pub(super) fn of(response: Response) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        dynamic_metadata: None,
    }
}

fn set(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: String::new(),
            raw_value: value.as_bytes().to_vec(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

/// Headers to set.
pub(super) fn mutation(headers: &[(&str, &str)]) -> HeaderMutation {
    HeaderMutation {
        set_headers: headers.iter().map(|(name, value)| set(name, value)).collect(),
        remove_headers: Vec::new(),
    }
}

/// Where the request goes, for the headers. What comes back is read for its tokens: it may not be compressed.
pub(super) fn destination(address: SocketAddr) -> CommonResponse {
    let mut mutation = mutation(&[(DESTINATION, &address.to_string())]);
    mutation.remove_headers.push("accept-encoding".to_owned());
    CommonResponse {
        header_mutation: Some(mutation),
        // Routes may look at the header.
        clear_route_cache: true,
        ..CommonResponse::default()
    }
}

/// The same for the metadata.
pub(super) fn metadata(address: SocketAddr) -> Struct {
    let text = |text: String| Value {
        kind: Some(Kind::StringValue(text)),
    };
    let inner = Struct {
        fields: BTreeMap::from([(DESTINATION.to_owned(), text(address.to_string()))]),
    };
    let inner = Value {
        kind: Some(Kind::StructValue(inner)),
    };
    Struct {
        fields: BTreeMap::from([(NAMESPACE.to_owned(), inner)]),
    }
}

pub(super) fn headers(response: CommonResponse) -> HeadersResponse {
    HeadersResponse {
        response: Some(response),
    }
}

pub(super) fn body(response: CommonResponse) -> BodyResponse {
    BodyResponse {
        response: Some(response),
    }
}

pub(super) fn replaced_body(content: &Bytes) -> BodyMutation {
    BodyMutation {
        mutation: Some(Mutation::Body(content.to_vec())),
    }
}

/// One part of a body in full duplex.
pub(super) fn part(content: &[u8], end_of_stream: bool) -> BodyResponse {
    let streamed = StreamedBodyResponse {
        body: content.to_vec(),
        end_of_stream,
    };
    body(CommonResponse {
        body_mutation: Some(BodyMutation {
            mutation: Some(Mutation::StreamedResponse(streamed)),
        }),
        ..CommonResponse::default()
    })
}

/// A whole body in full duplex, in parts; the last ends it, unless trailers will.
pub(super) fn parts(content: &[u8], trailers_follow: bool) -> impl Iterator<Item = BodyResponse> {
    let count = content.len().div_ceil(PART_BYTES).max(1);
    (0..count).map(move |index| {
        let end = content.len().min((index + 1) * PART_BYTES);
        part(
            &content[index * PART_BYTES..end],
            index + 1 == count && !trailers_follow,
        )
    })
}

pub(super) fn request_trailers() -> ProcessingResponse {
    of(Response::RequestTrailers(TrailersResponse::default()))
}

pub(super) fn response_trailers() -> ProcessingResponse {
    of(Response::ResponseTrailers(TrailersResponse::default()))
}

/// Says to the client why nothing is served, in OpenAI's form.
pub(super) fn immediate(problem: &ErrorResponse) -> ProcessingResponse {
    let retry_after = problem.retry_after_s.map(|seconds| seconds.to_string());
    let mut headers = vec![("content-type", "application/json")];
    if let Some(seconds) = &retry_after {
        headers.push(("retry-after", seconds));
    }
    let code = match &problem.body.code {
        Some(ErrorCode::Name(name)) => name.to_string(),
        Some(ErrorCode::Status(status)) => status.to_string(),
        None => String::new(),
    };
    of(Response::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus {
            code: problem.status.into(),
        }),
        headers: Some(mutation(&headers)),
        body: problem.body.to_json(),
        details: format!("equipoise_{code}"),
    }))
}
