//! An engine without a model, as a process of its own: what every router is measured against in `benches/peers`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use equipoise_benches::{ANSWER, say};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Answers chat completions, in one piece or as a stream, at once or after a while.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Ports of the loopback interface: one engine each.
    #[arg(required = true)]
    ports: Vec<u16>,
    /// Time before an answer, milliseconds.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Requests served at the same time; the others wait. 0: no limit.
    #[arg(long, default_value_t = 0)]
    slots: usize,
    /// Chunks of a streamed answer.
    #[arg(long, default_value_t = 20)]
    chunks: u32,
    /// Time between two chunks, milliseconds.
    #[arg(long, default_value_t = 0)]
    gap_ms: u64,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct Engine {
    options: Options,
    slots: Option<Semaphore>,
    running: AtomicU64,
    served: AtomicU64,
}

/// Counts a request as running until it is dropped: also when its client goes away.
struct Running(Arc<Engine>);

impl Running {
    fn on(engine: &Arc<Engine>) -> Self {
        engine.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(engine))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for &port in &options.ports {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let engine = Arc::new(Engine {
            options: options.clone(),
            slots: (options.slots > 0).then(|| Semaphore::new(options.slots)),
            running: AtomicU64::new(0),
            served: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, engine));
    }
    say("ready");
    std::future::pending().await
}

async fn accept(listener: TcpListener, engine: Arc<Engine>) {
    while let Ok((socket, _)) = listener.accept().await {
        // Without it the measurement would be slower, not wrong.
        drop(socket.set_nodelay(true));
        let engine = Arc::clone(&engine);
        let service = service_fn(move |request| answer(Arc::clone(&engine), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move {
            // A client that goes away is no matter.
            drop(connection.await);
        });
    }
}

async fn answer(engine: Arc<Engine>, request: http::Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let content = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(match path.as_str() {
        "/v1/chat/completions" => complete(engine, &content).await,
        "/health" => whole("text/plain", ""),
        "/v1/models" => whole(
            "application/json",
            r#"{"object":"list","data":[{"id":"bench","object":"model","owned_by":"mock"}]}"#,
        ),
        "/metrics" => whole("text/plain", metrics(&engine)),
        _ => {
            let mut response = whole("text/plain", "no such path");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn whole(kind: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(content.into()).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn metrics(engine: &Engine) -> String {
    let running = engine.running.load(Ordering::Relaxed);
    let free = engine.slots.as_ref().map_or(usize::MAX, Semaphore::available_permits);
    let waiting = if free == 0 {
        running.saturating_sub(engine.options.slots as u64)
    } else {
        0
    };
    format!(
        "vllm:num_requests_running{{model_name=\"bench\"}} {}\nvllm:num_requests_waiting{{model_name=\"bench\"}} {waiting}\n\
         vllm:kv_cache_usage_perc{{model_name=\"bench\"}} 0\nmock_served_total {}\n",
        running - waiting,
        engine.served.load(Ordering::Relaxed)
    )
}

async fn complete(engine: Arc<Engine>, content: &[u8]) -> Response<Body> {
    let running = Running::on(&engine);
    let slot = match &engine.slots {
        Some(slots) => slots.acquire().await.ok(),
        None => None,
    };
    if engine.options.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(engine.options.delay_ms)).await;
    }
    engine.served.fetch_add(1, Ordering::Relaxed);
    if content.windows(13).any(|bytes| bytes == b"\"stream\":true") {
        drop(slot);
        return stream(running);
    }
    whole("application/json", ANSWER)
}

/// The chunks of a stream, each in a write of its own, and the end that OpenAI's clients wait for.
fn stream(running: Running) -> Response<Body> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let options = &running.0.options;
        for index in 0..options.chunks {
            if index > 0 && options.gap_ms > 0 {
                tokio::time::sleep(Duration::from_millis(options.gap_ms)).await;
            }
            let finish = if index + 1 == options.chunks {
                "\"stop\""
            } else {
                "null"
            };
            let chunk = format!(
                "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"bench\",\
                 \"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"word \"}},\"finish_reason\":{finish}}}]}}\n\n"
            );
            if sender.send(chunk.into()).await.is_err() {
                return;
            }
        }
        // Nobody is left to tell where the client has gone.
        drop(sender.send(Bytes::from_static(b"data: [DONE]\n\n")).await);
    });
    let mut response = Response::new(Chunks(receiver).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

struct Chunks(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
