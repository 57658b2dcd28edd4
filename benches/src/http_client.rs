//! A pooled HTTP/1.1 client and the body of a chat request.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The client of the benches.
pub type Http = Client<HttpConnector, Full<Bytes>>;

/// A client that keeps its connections.
#[must_use]
pub fn http_client() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(std::time::Duration::from_secs(5)));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(usize::MAX)
        .build(connector)
}

/// A JSON POST.
#[must_use]
pub fn post(uri: Uri, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    request
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

/// The body of a chat request with a prompt of `prompt_chars` characters that begins with `index`, so that no two
/// prompts share a prefix. `model` must need no JSON escapes.
#[must_use]
pub fn chat_body(model: &str, index: u64, prompt_chars: usize, max_tokens: Option<u32>, stream: bool) -> Bytes {
    let mut prompt = format!("{index} ");
    while prompt.len() < prompt_chars {
        prompt.push_str("tell me more of it ");
    }
    prompt.truncate(prompt_chars.max(1));
    let limit = max_tokens.map_or_else(String::new, |tokens| format!(",\"max_tokens\":{tokens}"));
    let messages = format!("[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]");
    format!("{{\"model\":\"{model}\",\"messages\":{messages},\"stream\":{stream}{limit}}}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use equipoise_openai::{Endpoint, RequestHead};

    #[test]
    fn the_body_is_what_a_router_reads() {
        let body = chat_body("m", 7, 200, Some(5), true);
        let head = RequestHead::parse(Endpoint::Chat, &body).expect("valid");
        assert_eq!(
            (head.model.as_str(), head.max_tokens, head.stream),
            ("m", Some(5), true)
        );
        assert_eq!(head.prompt_chars, 200);
        assert_ne!(body, chat_body("m", 8, 200, Some(5), true));
    }
}
