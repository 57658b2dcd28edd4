//! The requests of a set of clients, merged in time, one at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use equipoise_types::{RandomStream, Timestamp};

use super::{Client, ClientWindow, Family, ServeGenClients, ServeGenOptions};
use crate::distribution::{gamma, weibull};
use crate::{GeneratorError, WorkloadRecord};

/// Requests per second of all clients together at most.
const MAX_RATE_PER_S: f64 = 1e6;

/// Generates the requests of a set of clients by arrival, holding one request per client.
#[derive(Clone, Debug)]
pub struct ServeGenRequests {
    set: Arc<ServeGenClients>,
    senders: Vec<Sender>,
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
    span: Span,
}

/// What is generated: a part of the recorded time, with all rates scaled.
#[derive(Clone, Copy, Debug)]
struct Span {
    start_s: f64,
    end_s: f64,
    factor: f64,
}

/// A client at work.
#[derive(Clone, Debug)]
struct Sender {
    parent: RandomStream,
    inputs: RandomStream,
    outputs: RandomStream,
    window: usize,
    burst: Option<Burst>,
    /// When the request was sent that is up next, in recorded time.
    sent_s: f64,
}

/// A window's requests.
#[derive(Clone, Debug)]
struct Burst {
    gaps: RandomStream,
    family: Family,
    left: u64,
    /// Sum of the gaps until now, of the family's own scale.
    reached: f64,
    start_s: f64,
    /// Seconds per unit of the family's own scale.
    unit_s: f64,
}

fn gap(stream: &mut RandomStream, family: Family) -> f64 {
    match family {
        Family::Gamma(shape) => gamma(stream, shape),
        Family::Weibull(shape) => weibull(stream, shape),
    }
}

impl Burst {
    /// Plans the requests of a window: their gaps, and the one that is left at its end, fill it. The gaps are drawn
    /// twice, first to know their sum, so that none needs to be kept.
    fn plan(window: &ClientWindow, span: Span, parent: &RandomStream) -> Self {
        let start_s = window.start_s.max(span.start_s);
        let length_s = window.end_s.min(span.end_s) - start_s;
        let mut gaps = parent.derive(&format!("window {}", window.start_s));
        let expected = window.rate_per_s * span.factor * length_s;
        let left = (expected.floor() + f64::from(gaps.uniform() < expected.fract())) as u64;
        let mut ahead = gaps.clone();
        let sum: f64 = (0..=left).map(|_| gap(&mut ahead, window.gaps)).sum();
        Self {
            gaps,
            family: window.gaps,
            left,
            reached: 0.0,
            start_s,
            // Shapes near zero can make every gap zero: all at once, then.
            unit_s: if sum > 0.0 && sum.is_finite() {
                length_s / sum
            } else {
                0.0
            },
        }
    }

    fn next_s(&mut self) -> Option<f64> {
        self.left = self.left.checked_sub(1)?;
        self.reached += gap(&mut self.gaps, self.family);
        Some(self.start_s + self.reached * self.unit_s)
    }
}

impl Sender {
    fn new(client: &Client, seed: u64) -> Self {
        let parent = RandomStream::new(seed).derive(&format!("client {}", client.id));
        Self {
            inputs: parent.derive("input tokens"),
            outputs: parent.derive("output tokens"),
            parent,
            window: 0,
            burst: None,
            sent_s: 0.0,
        }
    }

    /// Goes on to the client's next request and says when it arrives, from the start of what is generated.
    fn advance(&mut self, client: &Client, span: Span) -> Option<Timestamp> {
        loop {
            if let Some(sent_s) = self.burst.as_mut().and_then(Burst::next_s) {
                self.sent_s = sent_s.min(span.end_s);
                return Some(Timestamp::from_secs_f64(self.sent_s - span.start_s));
            }
            let window = client.windows.get(self.window)?;
            self.window += 1;
            self.burst = (window.end_s > span.start_s && window.start_s < span.end_s)
                .then(|| Burst::plan(window, span, &self.parent));
        }
    }

    fn request(&mut self, client: &Client, arrival: Timestamp) -> WorkloadRecord {
        let lengths = client.lengths_at(self.sent_s);
        WorkloadRecord {
            arrival,
            prompt_tokens: lengths.input.draw(&mut self.inputs).max(1),
            output_tokens: lengths.output.draw(&mut self.outputs).max(1),
            tenant: Some(format!("client-{}", client.id)),
            ..WorkloadRecord::default()
        }
    }
}

impl ServeGenRequests {
    /// Prepares the requests that `options` ask for.
    ///
    /// # Errors
    /// The time lies outside of what was recorded, nobody sends in it, or the rate is no rate.
    pub fn new(set: Arc<ServeGenClients>, options: &ServeGenOptions) -> Result<Self, GeneratorError> {
        let recorded_s = set.end_s();
        let start_s = options.start_s;
        let end_s = options.duration_s.map_or(recorded_s, |duration_s| start_s + duration_s);
        if !(start_s >= 0.0 && end_s > start_s && end_s <= recorded_s) {
            return Err(GeneratorError::OutsideRecording {
                start_s,
                end_s,
                recorded_s,
            });
        }
        let recorded_rate = set.requests_between(start_s, end_s) / (end_s - start_s);
        if recorded_rate <= 0.0 {
            return Err(GeneratorError::NobodySends { start_s, end_s });
        }
        let rate = options.rate_per_s.unwrap_or(recorded_rate);
        if !(rate > 0.0 && rate <= MAX_RATE_PER_S) {
            return Err(GeneratorError::NotInRange {
                what: "the rate in requests per second",
                value: rate,
                least: 0.0,
                most: MAX_RATE_PER_S,
            });
        }
        let span = Span {
            start_s,
            end_s,
            factor: rate / recorded_rate,
        };
        let mut senders: Vec<Sender> = set
            .clients
            .iter()
            .map(|client| Sender::new(client, options.seed))
            .collect();
        let first = senders
            .iter_mut()
            .zip(&set.clients)
            .enumerate()
            .filter_map(|(index, (sender, client))| {
                let arrival = sender.advance(client, span)?;
                Some(Reverse((arrival, index)))
            });
        let next = first.collect();
        Ok(Self {
            set,
            senders,
            next,
            span,
        })
    }
}

impl Iterator for ServeGenRequests {
    type Item = WorkloadRecord;

    fn next(&mut self) -> Option<WorkloadRecord> {
        let Reverse((arrival, index)) = self.next.pop()?;
        let (sender, client) = (&mut self.senders[index], &self.set.clients[index]);
        let record = sender.request(client, arrival);
        if let Some(following) = sender.advance(client, self.span) {
            self.next.push(Reverse((following, index)));
        }
        Some(record)
    }
}
