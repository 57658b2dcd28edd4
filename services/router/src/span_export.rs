//! Spans on their way to a collector: a bounded queue, and a task that sends what is in it.

use std::sync::Arc;
use std::time::Duration;

use equipoise_backend::{BackendError, EngineClient, EngineClientConfig, full_body};
use equipoise_telemetry::{OtlpSettings, Span, SpanOutcome, encode_spans};
use http::{HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::server::State;

/// Spans that may wait; further ones are dropped and counted. The queue of the OpenTelemetry SDKs has this size, too.
const WAITING: usize = 2048;
/// Spans of one export.
const BATCH: usize = 512;
/// How long a span waits for company.
const COMPANY: Duration = Duration::from_secs(1);
/// What a collector says of an export is short.
const LIMIT_ANSWER_BYTES: usize = 64 << 10;

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct SpanQueue {
    sender: mpsc::Sender<Span>,
    pub(crate) sample_ratio: f64,
}

impl SpanQueue {
    /// The queue, and the exporter that is to be run.
    pub(crate) fn new(settings: OtlpSettings) -> Result<(Self, Exporter), BackendError> {
        let (sender, spans) = mpsc::channel(WAITING);
        let config = EngineClientConfig {
            response_head_timeout: settings.timeout,
            ..EngineClientConfig::default()
        };
        let client = EngineClient::new(&settings.endpoint, config)?;
        let queue = Self {
            sender,
            sample_ratio: settings.sample_ratio,
        };
        let exporter = Exporter {
            client,
            settings,
            spans,
        };
        Ok((queue, exporter))
    }

    /// Hands a span over; false where the queue is full.
    pub(crate) fn put(&self, span: Span) -> bool {
        self.sender.try_send(span).is_ok()
    }
}

/// Sends spans.
pub(crate) struct Exporter {
    client: EngineClient,
    settings: OtlpSettings,
    spans: mpsc::Receiver<Span>,
}

impl Exporter {
    /// Runs until dropped.
    pub(crate) async fn run(mut self, state: Arc<State>) {
        let mut complained = false;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if self.spans.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            let gather = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if self.spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            // Who is there by then goes together.
            drop(timeout(COMPANY, gather).await);
            let spans = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            let count = spans.len() as u64;
            match self.export(spans).await {
                Ok(()) => {
                    complained = false;
                    state.observing.count_spans(SpanOutcome::Exported, count);
                }
                Err(problem) => {
                    state.observing.count_spans(SpanOutcome::Failed, count);
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("spans are lost: {problem}");
                    }
                }
            }
        }
    }

    async fn export(&self, spans: Vec<Span>) -> Result<(), String> {
        let mut request = http::Request::new(full_body(encode_spans(&self.settings.resource, spans)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/traces");
        let headers = request.headers_mut();
        for (name, value) in &self.settings.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            // To its end, so that the connection can be used again.
            let body = Limited::new(response.into_body(), LIMIT_ANSWER_BYTES).collect().await;
            body.map_err(|error| error.to_string())?;
            if status.is_success() {
                Ok(())
            } else {
                Err(format!("the collector answered {status}"))
            }
        };
        let answered = timeout(self.settings.timeout, exchange).await;
        answered.unwrap_or_else(|_| Err("the collector did not answer in time".to_owned()))
    }
}
