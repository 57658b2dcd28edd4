//! What a workload is like, in one pass and bounded memory.

mod blocks;
mod counts;
mod tokens;

use std::collections::BTreeSet;

use equipoise_types::Timestamp;
use serde::Serialize;

use crate::WorkloadRecord;
use blocks::Recurrence;
use counts::Counts;
use tokens::TokenHistogram;

/// Tenants that are told apart at most.
const MOST_TENANTS: usize = 100_000;
/// Lengths of the windows in which arrivals are counted, seconds.
const WINDOWS_S: [u64; 2] = [1, 60];

/// Takes in requests by arrival, one after the other.
#[derive(Clone, Debug)]
pub struct WorkloadStatistics {
    requests: u64,
    first: Timestamp,
    last: Timestamp,
    /// Mean and sum of squared deviations of the gaps, seconds (Welford's recurrence).
    gap_mean_s: f64,
    gap_deviations: f64,
    counts: [Counts; 2],
    prompt: TokenHistogram,
    output: TokenHistogram,
    with_blocks: u64,
    blocks: Recurrence,
    tenants: BTreeSet<String>,
}

impl Default for WorkloadStatistics {
    fn default() -> Self {
        Self {
            requests: 0,
            first: Timestamp::ZERO,
            last: Timestamp::ZERO,
            gap_mean_s: 0.0,
            gap_deviations: 0.0,
            counts: WINDOWS_S.map(Counts::new),
            prompt: TokenHistogram::default(),
            output: TokenHistogram::default(),
            with_blocks: 0,
            blocks: Recurrence::default(),
            tenants: BTreeSet::new(),
        }
    }
}

/// What [`WorkloadStatistics`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadSummary {
    /// How many requests.
    pub requests: u64,
    /// Arrival of the first, seconds from the start of the workload.
    pub first_s: f64,
    /// From the first arrival to the last, seconds.
    pub span_s: f64,
    /// Requests per second between the first and the last; none if all come at once.
    pub rate_per_s: Option<f64>,
    /// Standard deviation of the gaps between arrivals over their mean: 1 for Poisson arrivals.
    pub gap_cv: Option<f64>,
    /// Arrivals counted in windows, from the first arrival on.
    pub counts: Vec<CountSummary>,
    /// Prompt lengths.
    pub prompt_tokens: TokenSummary,
    /// Answer lengths.
    pub output_tokens: TokenSummary,
    /// Prefixes, where the workload has them.
    pub prefix: Option<PrefixSummary>,
    /// How many different tenants are named; counting stops at 100,000.
    pub tenants: usize,
}

/// Arrivals in windows of one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CountSummary {
    /// Length of a window, seconds.
    pub window_s: u64,
    /// The most arrivals in one window, per second.
    pub peak_per_s: f64,
    /// Index of dispersion: variance over mean of the arrivals per window, 1 for Poisson arrivals; none for less than
    /// two whole windows.
    pub dispersion: Option<f64>,
}

/// A distribution of lengths, tokens. Quantiles are exact below 2,048 and within 0.1 % above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TokenSummary {
    /// Sum over all requests.
    pub total: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u32,
    /// 90th percentile.
    pub p90: u32,
    /// 99th percentile.
    pub p99: u32,
    /// The longest.
    pub max: u32,
}

/// How often prefix blocks come again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrefixSummary {
    /// Requests with blocks.
    pub requests: u64,
    /// All their blocks.
    pub blocks: u64,
    /// The share of blocks that came before: what a cache without limit would answer.
    pub reuse_share: f64,
    /// The share of different blocks that the reuse was counted on; below 1 it is an estimate.
    pub sampled_share: f64,
}

impl WorkloadStatistics {
    /// Takes the next request in.
    pub fn observe(&mut self, record: &WorkloadRecord) {
        if self.requests == 0 {
            self.first = record.arrival;
        } else {
            let gap_s = record.arrival.secs_since(self.last);
            let deviation = gap_s - self.gap_mean_s;
            self.gap_mean_s += deviation / self.requests as f64;
            self.gap_deviations += deviation * (gap_s - self.gap_mean_s);
        }
        self.requests += 1;
        self.last = record.arrival;
        let since_first = record.arrival.since(self.first);
        for counts in &mut self.counts {
            counts.observe(since_first.as_secs());
        }
        self.prompt.observe(record.prompt_tokens);
        self.output.observe(record.output_tokens);
        if let Some(blocks) = &record.prefix_blocks {
            self.with_blocks += 1;
            for block in blocks {
                self.blocks.observe(*block);
            }
        }
        if let Some(tenant) = &record.tenant
            && self.tenants.len() < MOST_TENANTS
            && !self.tenants.contains(tenant)
        {
            self.tenants.insert(tenant.clone());
        }
    }

    /// How many requests were taken in.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests per second between the first and the last; `None` if they have no distance.
    #[must_use]
    pub fn rate_per_s(&self) -> Option<f64> {
        let span_s = self.last.secs_since(self.first);
        (span_s > 0.0).then(|| (self.requests - 1) as f64 / span_s)
    }

    /// What was found so far.
    #[must_use]
    pub fn summary(&self) -> WorkloadSummary {
        let gaps = self.requests.saturating_sub(1) as f64;
        WorkloadSummary {
            requests: self.requests,
            first_s: self.first.as_secs_f64(),
            span_s: self.last.secs_since(self.first),
            rate_per_s: self.rate_per_s(),
            gap_cv: (self.gap_mean_s > 0.0).then(|| (self.gap_deviations / gaps).sqrt() / self.gap_mean_s),
            counts: self.counts.iter().map(Counts::summary).collect(),
            prompt_tokens: self.prompt.summary(),
            output_tokens: self.output.summary(),
            prefix: (self.with_blocks > 0).then(|| PrefixSummary {
                requests: self.with_blocks,
                blocks: self.blocks.all(),
                reuse_share: self.blocks.share(),
                sampled_share: self.blocks.sampled_share(),
            }),
            tenants: self.tenants.len(),
        }
    }
}

#[cfg(test)]
mod tests;
