//! The numbers behind the metrics page.

use crate::histogram::{FIRST_TOKEN_S, Histogram, INTER_TOKEN_S, REQUEST_S, TOKENS};
use crate::length::Finish;
use crate::meter::EnergyMeter;
use equipoise_engine::EngineStats;
use equipoise_types::Watts;

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) engine: EngineStats,
    pub(crate) meter: EnergyMeter,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
    pub(crate) stopped: u64,
    pub(crate) cut: u64,
    pub(crate) aborted: u64,
    pub(crate) rejected: u64,
    pub(crate) first_token_s: Histogram,
    pub(crate) inter_token_s: Histogram,
    pub(crate) per_output_token_s: Histogram,
    pub(crate) end_to_end_s: Histogram,
    pub(crate) queue_s: Histogram,
    pub(crate) inference_s: Histogram,
    pub(crate) prefill_s: Histogram,
    pub(crate) decode_s: Histogram,
    pub(crate) prompt_tokens: Histogram,
    pub(crate) generation_tokens: Histogram,
}

impl Metrics {
    pub(crate) fn new(idle: Watts, max_model_len: u32) -> Self {
        let tokens = &TOKENS[..TOKENS.partition_point(|&bound| bound <= f64::from(max_model_len))];
        Self {
            engine: EngineStats::default(),
            meter: EnergyMeter::new(idle),
            prefix_queries: 0,
            prefix_hits: 0,
            stopped: 0,
            cut: 0,
            aborted: 0,
            rejected: 0,
            first_token_s: Histogram::new(FIRST_TOKEN_S),
            inter_token_s: Histogram::new(INTER_TOKEN_S),
            per_output_token_s: Histogram::new(INTER_TOKEN_S),
            end_to_end_s: Histogram::new(REQUEST_S),
            queue_s: Histogram::new(REQUEST_S),
            inference_s: Histogram::new(REQUEST_S),
            prefill_s: Histogram::new(REQUEST_S),
            decode_s: Histogram::new(REQUEST_S),
            prompt_tokens: Histogram::new(tokens),
            generation_tokens: Histogram::new(tokens),
        }
    }
}

/// When the stages of one request were reached, seconds since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestTimes {
    arrived_s: f64,
    pub(crate) scheduled_s: Option<f64>,
    first_token_s: f64,
    last_token_s: f64,
    prompt_tokens: u32,
    tokens: u32,
}

impl RequestTimes {
    pub(crate) fn new(arrived_s: f64, prompt_tokens: u32) -> Self {
        let (first_token_s, last_token_s) = (arrived_s, arrived_s);
        Self {
            arrived_s,
            scheduled_s: None,
            first_token_s,
            last_token_s,
            prompt_tokens,
            tokens: 0,
        }
    }

    /// Notes a token; gives whether it was the first.
    pub(crate) fn token(&mut self, now_s: f64, metrics: &mut Metrics) -> bool {
        let first = self.tokens == 0;
        if first {
            self.first_token_s = now_s;
            metrics.first_token_s.observe(now_s - self.arrived_s);
        } else {
            metrics.inter_token_s.observe(now_s - self.last_token_s);
        }
        self.last_token_s = now_s;
        self.tokens += 1;
        first
    }

    pub(crate) fn finished(&self, now_s: f64, finish: Finish, metrics: &mut Metrics) {
        let scheduled_s = self.scheduled_s.unwrap_or(self.arrived_s).max(self.arrived_s);
        let decode_s = self.last_token_s - self.first_token_s;
        metrics.end_to_end_s.observe(now_s - self.arrived_s);
        metrics.queue_s.observe(scheduled_s - self.arrived_s);
        metrics.inference_s.observe(self.last_token_s - scheduled_s);
        metrics.prefill_s.observe(self.first_token_s - scheduled_s);
        metrics.decode_s.observe(decode_s);
        if self.tokens > 1 {
            metrics
                .per_output_token_s
                .observe(decode_s / f64::from(self.tokens - 1));
        }
        metrics.prompt_tokens.observe(f64::from(self.prompt_tokens));
        metrics.generation_tokens.observe(f64::from(self.tokens));
        match finish {
            Finish::Stop => metrics.stopped += 1,
            Finish::Length => metrics.cut += 1,
        }
    }
}
