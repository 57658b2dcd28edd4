//! Heads of requests that are not taken: those that two readers could understand in two ways, and those that are too much.

use equipoise_openai::ErrorResponse;
use http::{HeaderMap, HeaderName, header};

/// Header fields of a request; hyper itself refuses more with 431.
pub(crate) const MOST_HEADERS: usize = 100;
/// Bytes of a whole head; hyper itself refuses more with 431.
pub(crate) const MOST_HEAD_BYTES: usize = 64 << 10;
const OURS: &str = "x-equipoise-";

fn wrong(header: &str, message: String) -> Box<ErrorResponse> {
    let problem = ErrorResponse::invalid_request(message);
    Box::new(problem.with_param(header).with_code("invalid_header"))
}

/// Checks what every request's head must hold to.
///
/// # Errors
/// 400 for a header that comes twice where that has no meaning; 431 for too many.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Box<ErrorResponse>> {
    if headers.len() > MOST_HEADERS {
        let mut problem = ErrorResponse::invalid_request(format!(
            "The request has {} header fields; {MOST_HEADERS} are read.",
            headers.len()
        ))
        .with_code("too_many_headers");
        problem.status = 431;
        return Err(Box::new(problem));
    }
    let counts_once = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with(OURS) || matches!(name, "content-length" | "content-type" | "authorization" | "host")
    };
    for name in headers.keys().filter(|name| counts_once(name)) {
        if headers.get_all(name).iter().nth(1).is_some() {
            let message = format!("header `{name}`: comes twice; send it once");
            return Err(wrong(name.as_str(), message));
        }
    }
    // RFC 9112, section 6.1: whoever believes the other one sees another request.
    if headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING) {
        let message = "header `content-length`: contradicts transfer-encoding; send one of them".to_owned();
        return Err(wrong("content-length", message));
    }
    Ok(())
}

/// Checks that a body can be JSON by what its head says. Nothing said, and what curl says unasked, is taken for JSON.
///
/// # Errors
/// 415 for a body of another kind, or a compressed one.
pub(crate) fn check_content(headers: &HeaderMap) -> Result<(), Box<ErrorResponse>> {
    let unsupported = |message: String, header: &str| {
        let mut problem = ErrorResponse::invalid_request(message)
            .with_param(header)
            .with_code("unsupported_media_type");
        problem.status = 415;
        Box::new(problem)
    };
    let plain = |encoding: &http::HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| !plain(encoding))
    {
        let message = "Compressed request bodies are not read; send it as it is.".to_owned();
        return Err(unsupported(message, "content-encoding"));
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "" | "application/json" | "text/json" | "application/x-www-form-urlencoded" => Ok(()),
        kind if kind.starts_with("application/") && kind.ends_with("+json") => Ok(()),
        _ => Err(unsupported(
            "The request body must be JSON: send `content-type: application/json`.".to_owned(),
            "content-type",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_may_come_once_comes_once() {
        let twice = [
            "content-length",
            "authorization",
            "x-equipoise-labels",
            "x-equipoise-unknown",
            "content-type",
        ];
        for name in twice {
            let problem = check(&headers(&[(name, "1"), (name, "1")])).expect_err("twice");
            assert_eq!((problem.status, problem.body.param.as_deref()), (400, Some(name)));
        }
        assert!(check(&headers(&[("accept", "a"), ("accept", "b"), ("content-length", "1")])).is_ok());
        assert!(check(&headers(&[("content-length", "1"), ("transfer-encoding", "chunked")])).is_err());
        let many: HeaderMap = (0..=MOST_HEADERS)
            .map(|index| {
                let name = HeaderName::from_bytes(format!("x-{index}").as_bytes()).expect("a name");
                (name, HeaderValue::from_static("1"))
            })
            .collect();
        assert_eq!(check(&many).expect_err("too many").status, 431);
    }

    #[test]
    fn only_json_is_read() {
        for fine in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
        ] {
            assert!(check_content(&headers(&[("content-type", fine)])).is_ok(), "{fine}");
        }
        assert!(check_content(&HeaderMap::new()).is_ok());
        for other in [
            "multipart/form-data; boundary=x",
            "text/plain",
            "application/xml",
            "nonsense",
        ] {
            let problem = check_content(&headers(&[("content-type", other)])).expect_err("no JSON");
            assert_eq!(problem.status, 415, "{other}");
        }
        assert!(check_content(&headers(&[("content-encoding", "gzip")])).is_err());
        assert!(check_content(&headers(&[("content-encoding", "identity")])).is_ok());
    }
}
