//! Open-loop load: requests leave at times fixed beforehand, whether or not earlier ones were answered, and latency
//! counts from the time a request should have left. So a stall shows in every request that it delays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use equipoise_openai::{ChunkSummary, SseParser};
use equipoise_types::RandomStream;
use http::Uri;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Http, Latencies, chat_body, http_client, post};

/// The header by which a router says where a request went.
const INSTANCE: &str = "x-equipoise-instance";

/// When requests leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly spaced.
    Even,
    /// A Poisson process, drawn from this seed.
    Poisson(u64),
}

/// What to send, how fast and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Base URLs (`http://host:port`), taken in turn.
    pub urls: Vec<String>,
    /// Requests per second over all URLs.
    pub rate_per_s: f64,
    /// How long requests leave.
    pub span: Duration,
    /// When they leave.
    pub arrivals: Arrivals,
    /// The `model` field.
    pub model: String,
    /// Whether answers stream.
    pub stream: bool,
    /// Characters of a prompt.
    pub prompt_chars: usize,
    /// The `max_tokens` field.
    pub max_tokens: Option<u32>,
    /// A request that has no full answer by then counts as an error.
    pub timeout: Duration,
    /// Requests that may be out at the same time; those beyond are not sent and count as errors.
    pub in_flight_limit: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Requests that were due.
    pub offered: u64,
    /// Answered in full.
    pub finished: u64,
    /// Of these, before the span was over.
    pub finished_in_span: u64,
    /// Due to the first content token of a stream.
    pub ttft: Latencies,
    /// Due to the last byte of an answer.
    pub e2e: Latencies,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Finished requests by the instance that the router named; `-` where it named none.
    pub by_instance: BTreeMap<String, u64>,
}

impl LoadReport {
    /// The share of finished requests that an instance got, [0, 1].
    #[must_use]
    pub fn share(&self, instance: &str) -> f64 {
        let count = self.by_instance.get(instance).copied().unwrap_or(0);
        count as f64 / self.finished.max(1) as f64
    }

    fn note(&mut self, outcome: Result<Answered, String>, end: Instant) {
        match outcome {
            Ok(answered) => {
                self.finished += 1;
                self.finished_in_span += u64::from(answered.at <= end);
                self.e2e.record(answered.at.duration_since(answered.due));
                if let Some(first) = answered.first_token {
                    self.ttft.record(first.duration_since(answered.due));
                }
                *self.by_instance.entry(answered.instance).or_default() += 1;
            }
            Err(kind) => *self.errors.entry(kind).or_default() += 1,
        }
    }
}

struct Answered {
    due: Instant,
    first_token: Option<Instant>,
    at: Instant,
    instance: String,
}

impl Load {
    /// Sends it all and waits for the answers.
    ///
    /// # Errors
    /// For a URL that is none.
    pub async fn run(&self) -> anyhow::Result<LoadReport> {
        let uris: Vec<Uri> = self.urls.iter().map(|url| chat_uri(url)).collect::<Result<_, _>>()?;
        let client = http_client();
        let room = Arc::new(Semaphore::new(self.in_flight_limit));
        let mut report = LoadReport::default();
        let mut out: JoinSet<Result<Answered, String>> = JoinSet::new();
        let start = Instant::now() + Duration::from_millis(20);
        let end = start + self.span;
        for (index, (offset, uri)) in self.departures().into_iter().zip(uris.iter().cycle()).enumerate() {
            let due = start + offset;
            // Timers are a millisecond coarse: what is due by now leaves now.
            while Instant::now() < due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    Some(ended) = out.join_next(), if !out.is_empty() => report.note(flatten(ended), end),
                }
            }
            report.offered += 1;
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                report.note(Err("not sent: too many are out".to_owned()), end);
                continue;
            };
            let body = chat_body(
                &self.model,
                index as u64,
                self.prompt_chars,
                self.max_tokens,
                self.stream,
            );
            let request = post(uri.clone(), body);
            let (client, stream, limit) = (client.clone(), self.stream, self.timeout);
            out.spawn(async move {
                let _permit = permit;
                let outcome = timeout(limit, ask(&client, request, stream, due)).await;
                outcome.unwrap_or_else(|_| Err(format!("no full answer within {limit:?}")))
            });
        }
        while let Some(ended) = out.join_next().await {
            report.note(flatten(ended), end);
        }
        Ok(report)
    }

    /// When each request is due, from the start.
    fn departures(&self) -> Vec<Duration> {
        let mean_gap_s = 1.0 / self.rate_per_s.max(1e-6);
        let span_s = self.span.as_secs_f64();
        let mut random = match self.arrivals {
            Arrivals::Poisson(seed) => Some(RandomStream::new(seed).derive("arrivals")),
            Arrivals::Even => None,
        };
        let mut departures = Vec::new();
        let mut at_s = 0.0;
        while at_s < span_s - 1e-9 {
            departures.push(Duration::from_secs_f64(at_s));
            at_s = match &mut random {
                Some(random) => at_s + random.exponential(mean_gap_s),
                // Multiplied rather than summed: no rounding error piles up.
                None => departures.len() as f64 * mean_gap_s,
            };
        }
        departures
    }
}

fn chat_uri(url: &str) -> anyhow::Result<Uri> {
    let base = url.trim_end_matches('/').trim_end_matches("/v1");
    let uri = format!("{base}/v1/chat/completions");
    uri.parse()
        .with_context(|| format!("`{url}` is no URL like http://host:8080"))
}

fn flatten(ended: Result<Result<Answered, String>, tokio::task::JoinError>) -> Result<Answered, String> {
    ended.unwrap_or_else(|error| Err(format!("a task failed: {error}")))
}

async fn ask(
    client: &Http,
    request: http::Request<http_body_util::Full<bytes::Bytes>>,
    stream: bool,
    due: Instant,
) -> Result<Answered, String> {
    let response = client.request(request).await.map_err(|error| {
        let kind = if error.is_connect() {
            "not connected"
        } else {
            "broken off"
        };
        kind.to_owned()
    })?;
    let status = response.status();
    let named = response.headers().get(INSTANCE).and_then(|name| name.to_str().ok());
    let instance = named.unwrap_or("-").to_owned();
    let mut body = response.into_body();
    let mut first_token = None;
    let mut parser = SseParser::default();
    let mut done = !stream;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "broken off".to_owned())?;
        let Some(chunk) = frame.data_ref().filter(|_| stream && status.is_success()) else {
            continue;
        };
        let mut content = false;
        let parsed = parser.push(chunk, |event| {
            done |= event.is_done();
            let summary = event.data.as_deref().and_then(ChunkSummary::parse);
            content |= summary.is_some_and(|summary| summary.content_choices > 0);
        });
        parsed.map_err(|error| error.to_string())?;
        if content && first_token.is_none() {
            first_token = Some(Instant::now());
        }
    }
    if !status.is_success() {
        return Err(format!("status {}", status.as_u16()));
    }
    if !done {
        return Err("the stream ended without [DONE]".to_owned());
    }
    Ok(Answered {
        due,
        first_token,
        at: Instant::now(),
        instance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstantEngine;

    fn load(urls: Vec<String>, arrivals: Arrivals) -> Load {
        Load {
            urls,
            rate_per_s: 100.0,
            span: Duration::from_millis(500),
            arrivals,
            model: "bench".to_owned(),
            stream: false,
            prompt_chars: 100,
            max_tokens: None,
            timeout: Duration::from_secs(10),
            in_flight_limit: 1000,
        }
    }

    #[test]
    fn departures_keep_the_rate() {
        let even = load(Vec::new(), Arrivals::Even).departures();
        assert_eq!(even.len(), 50);
        assert_eq!(even[49], Duration::from_millis(490));
        let mut poisson = load(Vec::new(), Arrivals::Poisson(1));
        poisson.span = Duration::from_secs(100);
        let count = poisson.departures().len();
        assert!((9600..10_400).contains(&count), "{count}");
    }

    #[tokio::test]
    async fn answers_and_failures_are_told_apart() {
        let engine = InstantEngine::start().await.expect("a port");
        let report = load(vec![format!("http://{}/v1/", engine.addr())], Arrivals::Even)
            .run()
            .await
            .expect("runs");
        assert_eq!((report.offered, report.finished, report.e2e.count()), (50, 50, 50));
        assert_eq!(report.share("-"), 1.0);
        let gone = format!("http://{}", engine.addr());
        drop(engine);
        let mut streamed = load(vec![gone], Arrivals::Even);
        streamed.stream = true;
        let report = streamed.run().await.expect("runs");
        assert_eq!((report.finished, report.errors.values().sum::<u64>()), (0, 50));
    }
}
