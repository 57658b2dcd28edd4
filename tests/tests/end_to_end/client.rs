//! A small HTTP client that reads OpenAI's answers and streams.

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::PATIENCE;

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const COMPLETIONS: &str = "/v1/completions";

/// Talks to one server.
#[derive(Clone)]
pub(crate) struct Client {
    base: String,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

/// An answer in one piece.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Client {
    /// For the server at `base`, `http://host:port`.
    pub(crate) fn new(base: &str) -> Self {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
        }
    }

    /// The same over HTTP/2, which the server is known to speak: all requests on one connection.
    pub(crate) fn http2(base: &str) -> Self {
        let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Self {
            base: base.trim_end_matches('/').to_owned(),
            http: builder.http2_only(true).build_http(),
        }
    }

    /// `http://host:port`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// Sends a request and waits for the head of its answer. An error is a request that was lost.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<http::Response<Incoming>, String> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let answer = tokio::time::timeout(PATIENCE, self.http.request(request)).await;
        answer
            .map_err(|_| format!("{path}: no answer"))?
            .map_err(|error| format!("{path}: {error:?}"))
    }

    /// One whole exchange, or why it was lost.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let (head, body) = self.send(method, path, headers, body.into()).await?.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await;
        let body = body
            .map_err(|_| format!("{path}: the answer did not end"))?
            .map_err(|error| format!("{path}: the answer broke off: {error:?}"))?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.exchange(Method::GET, path, &[], Bytes::new())
            .await
            .expect("an answer")
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.exchange(Method::POST, path, headers, body)
            .await
            .expect("an answer")
    }

    /// A chat in one piece.
    pub(crate) async fn chat(&self, model: &str, max_tokens: u32, headers: &[(&str, &str)]) -> Answer {
        self.post(CHAT, headers, chat(model, max_tokens).to_string()).await
    }

    /// A stream, or why it was lost before it began.
    pub(crate) async fn try_stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<EventStream, String> {
        let answer = self.send(Method::POST, path, headers, body.to_string().into()).await?;
        let (head, body) = answer.into_parts();
        Ok(EventStream {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            pending: String::new(),
        })
    }

    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> EventStream {
        self.try_stream(path, headers, body).await.expect("a stream")
    }

    /// The sum of a metric over the series whose labels contain `label`; `None` if there is none.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let page = self.get("/metrics").await.text();
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.contains(label)).then(|| value.parse::<f64>().expect("a number"))
        });
        series.reduce(|sum, value| sum + value)
    }
}

/// The body of a chat request.
pub(crate) fn chat(model: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "What does a balance weigh?"}],
        "max_tokens": max_tokens,
    })
}

/// The body of a streamed chat request whose answer has exactly so many tokens.
pub(crate) fn streamed_chat(model: &str, tokens: u32) -> Value {
    let mut body = chat(model, tokens);
    body["stream"] = true.into();
    body["ignore_eos"] = true.into();
    body
}

impl Answer {
    /// A header's text, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The instance that answered.
    pub(crate) fn instance(&self) -> &str {
        self.header("x-equipoise-instance")
    }

    /// Checks that it is OpenAI's error object with this status and `code`, and gives its message.
    pub(crate) fn error(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/json");
        let error = &self.json()["error"];
        assert!(error["type"].is_string(), "an error has a type: {error}");
        assert_eq!(error["code"], code, "{error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.len() > 10, "an error says what is wrong: {error}");
        message.to_owned()
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// A streamed answer, read event by event. Dropping it hangs up.
pub(crate) struct EventStream {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Incoming,
    pending: String,
}

impl EventStream {
    pub(crate) fn header(&self, name: &str) -> &str {
        text_of(&self.headers, name)
    }

    /// The next event's data: `Ok(None)` at the end of the stream, an error where it breaks off.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, String> {
        while let Some(event) = self.next_event().await? {
            if let Some(data) = event.trim_start().strip_prefix("data: ") {
                return Ok(Some(data.to_owned()));
            }
        }
        Ok(None)
    }

    async fn next_event(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some((event, rest)) = self.pending.split_once("\n\n") {
                let event = event.to_owned();
                self.pending = rest.to_owned();
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            match frame.map_err(|_| "the stream stands still".to_owned())? {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the stream broke off: {error:?}")),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.pending
                        .push_str(std::str::from_utf8(&data).expect("frames are UTF-8"));
                }
            }
        }
    }

    /// The next event's data, of a stream whose events have names.
    pub(crate) async fn next_data(&mut self) -> Result<Option<String>, String> {
        while let Some(event) = self.next_event().await? {
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                return Ok(Some(data.to_owned()));
            }
        }
        Ok(None)
    }

    /// The data of all events to the end.
    pub(crate) async fn rest(&mut self) -> Result<Vec<String>, String> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }
}

/// How many answer tokens these events of a stream hold, if they are an answer to its very end.
pub(crate) fn complete_tokens(events: &[String]) -> Option<usize> {
    let (done, chunks) = events.split_last()?;
    let chunks: Vec<Value> = chunks
        .iter()
        .filter_map(|chunk| serde_json::from_str(chunk).ok())
        .collect();
    let says = |chunk: &&Value| {
        let choice = &chunk["choices"][0];
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        text.is_some_and(|text| !text.is_empty())
    };
    let finished = chunks
        .iter()
        .any(|chunk| chunk["choices"][0]["finish_reason"].is_string());
    let failed = chunks.iter().any(|chunk| !chunk["error"].is_null());
    (done == "[DONE]" && finished && !failed).then(|| chunks.iter().filter(says).count())
}
