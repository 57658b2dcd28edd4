//! What a tenant may send in a minute: requests and tokens, a bucket each, and the headers in which OpenAI says how much is
//! left.

use equipoise_openai::ErrorResponse;
use equipoise_types::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

const WINDOW_S: f64 = 60.0;

/// A bucket that holds a minute's worth and fills evenly.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    capacity: f64,
    level: f64,
    filled_at: Timestamp,
}

impl Bucket {
    fn new(per_minute: u32) -> Self {
        let capacity = f64::from(per_minute);
        Self {
            capacity,
            level: capacity,
            filled_at: Timestamp::ZERO,
        }
    }

    fn per_s(&self) -> f64 {
        self.capacity / WINDOW_S
    }

    fn fill(&mut self, now: Timestamp) {
        let gained = now.secs_since(self.filled_at).max(0.0) * self.per_s();
        self.level = (self.level + gained).min(self.capacity);
        self.filled_at = self.filled_at.max(now);
    }

    /// Seconds until `wanted` is there, of what the bucket can hold at all.
    fn wait_s(&self, wanted: f64) -> f64 {
        ((wanted.min(self.capacity) - self.level) / self.per_s()).max(0.0)
    }
}

/// Which limit is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Requests,
    Tokens,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }

    fn headers(self) -> [HeaderName; 3] {
        let name = HeaderName::from_static;
        match self {
            Self::Requests => [
                name("x-ratelimit-limit-requests"),
                name("x-ratelimit-remaining-requests"),
                name("x-ratelimit-reset-requests"),
            ],
            Self::Tokens => [
                name("x-ratelimit-limit-tokens"),
                name("x-ratelimit-remaining-tokens"),
                name("x-ratelimit-reset-tokens"),
            ],
        }
    }
}

/// One tenant's buckets.
#[derive(Debug)]
pub(crate) struct Meter {
    buckets: Mutex<Vec<(Limit, Bucket)>>,
}

impl Meter {
    /// `None` where nothing is limited.
    pub(crate) fn new(requests_per_minute: Option<u32>, tokens_per_minute: Option<u32>) -> Option<Self> {
        let requests = requests_per_minute.map(|limit| (Limit::Requests, Bucket::new(limit)));
        let tokens = tokens_per_minute.map(|limit| (Limit::Tokens, Bucket::new(limit)));
        let buckets: Vec<_> = [requests, tokens].into_iter().flatten().collect();
        (!buckets.is_empty()).then(|| Self {
            buckets: Mutex::new(buckets),
        })
    }

    /// Takes one request of so many tokens out, all or nothing.
    ///
    /// # Errors
    /// 429, which says what is exhausted and when to come again.
    pub(crate) fn take(&self, now: Timestamp, tokens: u64) -> Result<(), Box<ErrorResponse>> {
        let mut buckets = self.buckets.lock();
        let cost = |limit| match limit {
            Limit::Requests => 1.0,
            Limit::Tokens => tokens as f64,
        };
        for (limit, bucket) in buckets.iter_mut() {
            bucket.fill(now);
            let wanted = cost(*limit);
            if bucket.level < wanted {
                return Err(Box::new(exhausted(*limit, bucket, wanted)));
            }
        }
        for (limit, bucket) in buckets.iter_mut() {
            bucket.level -= cost(*limit);
        }
        Ok(())
    }

    /// A request that was taken for `reserved` tokens came to `spent`.
    pub(crate) fn settle(&self, now: Timestamp, reserved: u64, spent: u64) {
        let mut buckets = self.buckets.lock();
        for (_, bucket) in buckets.iter_mut().filter(|(limit, _)| *limit == Limit::Tokens) {
            bucket.fill(now);
            // A bucket that an underestimate has overdrawn fills from below zero.
            bucket.level = (bucket.level + reserved as f64 - spent as f64).min(bucket.capacity);
        }
    }

    /// Says what is left, as OpenAI does.
    pub(crate) fn describe(&self, now: Timestamp, headers: &mut HeaderMap) {
        let mut buckets = self.buckets.lock();
        for (limit, bucket) in buckets.iter_mut() {
            bucket.fill(now);
            let [most, left, reset] = limit.headers();
            headers.insert(most, HeaderValue::from(bucket.capacity as u64));
            headers.insert(left, HeaderValue::from(bucket.level.max(0.0) as u64));
            if let Ok(span) = HeaderValue::from_str(&span(bucket.wait_s(bucket.capacity))) {
                headers.insert(reset, span);
            }
        }
    }
}

fn exhausted(limit: Limit, bucket: &Bucket, wanted: f64) -> ErrorResponse {
    let (name, most, left) = (limit.name(), bucket.capacity, bucket.level.max(0.0) as u64);
    if wanted > bucket.capacity {
        let message = format!(
            "The request is for {wanted} {name} and the limit is {most} a minute: it can never be served. Send a shorter prompt, \
             or ask for fewer tokens with max_tokens."
        );
        return ErrorResponse::too_many_requests(message).with_retry_after(WINDOW_S as u32);
    }
    let wait_s = bucket.wait_s(wanted).ceil().max(1.0) as u32;
    let message = format!(
        "The limit of {most} {name} a minute is reached: {left} left, {wanted} asked for. Try again in {wait_s} s."
    );
    ErrorResponse::too_many_requests(message).with_retry_after(wait_s)
}

/// `6m0s`, `1.5s`, `20ms`: Go's form, which OpenAI uses.
fn span(seconds: f64) -> String {
    let ms = (seconds * 1e3).ceil() as u64;
    match ms {
        0 => "0s".to_owned(),
        1..1000 => format!("{ms}ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        1000..60_000 => format!("{:.3}s", ms as f64 / 1e3),
        _ => format!("{}m{}s", ms / 60_000, (ms % 60_000).div_ceil(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_secs_f64(seconds)
    }

    #[test]
    fn requests_and_tokens_bind_and_time_mends_it() {
        let meter = Meter::new(Some(2), Some(600)).expect("limited");
        assert!(meter.take(at(0.0), 100).is_ok() && meter.take(at(0.0), 100).is_ok());
        let refused = meter.take(at(0.0), 100).expect_err("two a minute");
        assert_eq!((refused.status, refused.retry_after_s), (429, Some(30)));
        assert!(
            refused.body.message.contains("2 requests a minute"),
            "{}",
            refused.body.message
        );
        assert!(meter.take(at(30.0), 100).is_ok());
        let refused = meter.take(at(90.0), 601).expect_err("more than a minute's worth");
        assert!(refused.body.message.contains("never"), "{}", refused.body.message);
        // What was refused cost nothing.
        assert!(meter.take(at(90.0), 600).is_ok());
        let refused = meter.take(at(90.0), 10).expect_err("no tokens left");
        assert_eq!(refused.retry_after_s, Some(1));
        meter.settle(at(90.0), 600, 700);
        assert_eq!(meter.take(at(90.0), 10).expect_err("overdrawn").retry_after_s, Some(11));
        meter.settle(at(90.0), 700, 0);
        assert!(meter.take(at(90.0), 0).is_ok() && meter.take(at(90.0), 0).is_err());
        assert!(Meter::new(None, None).is_none());
    }

    #[test]
    fn the_headers_are_openai_s() {
        let meter = Meter::new(Some(60), Some(1000)).expect("limited");
        meter.take(at(0.0), 400).expect("room");
        let mut headers = HeaderMap::new();
        meter.describe(at(0.0), &mut headers);
        for (name, value) in [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "600"),
            ("x-ratelimit-reset-tokens", "24s"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        for (seconds, text) in [
            (0.0, "0s"),
            (0.02, "20ms"),
            (1.5, "1.500s"),
            (360.0, "6m0s"),
            (61.0, "1m1s"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
