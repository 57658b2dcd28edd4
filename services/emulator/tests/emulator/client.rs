//! What the tests start and ask.

use bytes::Bytes;
use equipoise_emulator::{Emulator, EmulatorConfig, OutputLengths, RunningEmulator};
use equipoise_engine::{Deployment, EngineLimits, EngineShape, StepModel, gpu, model};
use equipoise_openai::{ChunkSummary, SseParser};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// A model on one H100: a step takes some milliseconds.
pub(crate) fn physical() -> EmulatorConfig {
    let shape = EngineShape {
        gpu: gpu("H100").expect("in the catalogue"),
        model: model("Llama-3.1-8B").expect("in the catalogue"),
        tensor_parallel: 1,
        limits: EngineLimits::default(),
        deployment: Deployment::default(),
    };
    let mut config = EmulatorConfig::new("m", StepModel::new(&shape).expect("fits"));
    config.output_lengths = OutputLengths {
        mean_tokens: 8.0,
        sigma: 0.3,
    };
    config
}

/// An opaque box.
pub(crate) fn fixed(seconds: f64, slots: u32) -> EmulatorConfig {
    let limits = EngineLimits {
        max_num_seqs: slots,
        ..EngineLimits::default()
    };
    let mut config = EmulatorConfig::new("m", StepModel::fixed(seconds, limits));
    config.output_lengths = OutputLengths {
        mean_tokens: 5.0,
        sigma: 0.0,
    };
    config
}

pub(crate) async fn start(config: EmulatorConfig) -> (RunningEmulator, Client) {
    let running = Emulator::start(config).await.expect("a free port");
    let client = Client::new(running.addr());
    (running, client)
}

#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    addr: SocketAddr,
}

/// A stream, read to its end.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) summaries: Vec<ChunkSummary>,
    pub(crate) chunks: Vec<Value>,
    pub(crate) done: bool,
}

impl Stream {
    pub(crate) fn text(&self) -> String {
        let choices = self.chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
        choices
            .filter_map(|choice| choice["delta"]["content"].as_str().or(choice["text"].as_str()))
            .collect()
    }
}

impl Client {
    fn new(addr: SocketAddr) -> Self {
        Self {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            addr,
        }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .header("content-type", "application/json")
            .body(Full::from(body.to_owned()))
            .expect("a valid request");
        self.pool.request(request).await.expect("an answer")
    }

    pub(crate) async fn text(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let response = self.send(method, path, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.text("POST", path, &body.to_string()).await;
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Stream {
        let response = self.send("POST", path, &body.to_string()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        read_stream(response.into_body()).await
    }

    /// The value of a metric by the start of its line, `name` or `name{label="value"`.
    pub(crate) async fn metric(&self, start: &str) -> f64 {
        let (status, page) = self.text("GET", "/metrics", "").await;
        assert_eq!(status, 200);
        let line = page
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in\n{page}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    }

    /// Asks until the metric is `value`; a metric that never gets there fails by this limit, not by a measured time.
    pub(crate) async fn until(&self, start: &str, value: f64) {
        let waiting = async {
            while self.metric(start).await != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), waiting).await.is_err() {
            panic!("{start} is {} and not {value}", self.metric(start).await);
        }
    }
}

pub(crate) async fn read_stream(body: Incoming) -> Stream {
    let bytes = body.collect().await.expect("a whole stream").to_bytes();
    let mut stream = Stream::default();
    let mut parser = SseParser::default();
    let parsed = parser.push(&bytes, |event| {
        if event.is_done() {
            stream.done = true;
            return;
        }
        assert!(!stream.done, "nothing follows [DONE]");
        let data = event.data.expect("every frame has data");
        stream.summaries.push(ChunkSummary::parse(&data).expect("a chunk"));
        stream.chunks.push(serde_json::from_slice(&data).expect("JSON"));
    });
    assert_eq!((parsed, parser.rest()), (Ok(()), &b""[..]));
    stream
}

pub(crate) fn chat(text: &str) -> Value {
    serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

/// `body` with more members.
pub(crate) fn with(mut body: Value, members: Value) -> Value {
    let Value::Object(members) = members else {
        panic!("an object")
    };
    body.as_object_mut().expect("an object").extend(members);
    body
}
