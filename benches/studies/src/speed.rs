//! What a measurement of the simulator's speed needs: a workload that is made as it is read, and this process's own use of
//! CPU and memory (Linux).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use equipoise_trace::{ReadOptions, Workload, WorkloadRecord};
use equipoise_types::{RandomStream, Timestamp};

/// Requests with the lengths of Azure's conversation trace of 2023, drawn with replacement, and Poisson arrivals.
#[derive(Debug)]
pub struct Azure {
    lengths: Vec<(u32, u32)>,
    gaps: RandomStream,
    picks: RandomStream,
    mean_gap_s: f64,
    now_s: f64,
    left: usize,
}

impl Azure {
    /// So many of them; `data` is the folder of reference data.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub fn open(data: &Path, rate_per_s: f64, requests: usize) -> anyhow::Result<Self> {
        let workload = Workload::load(&data.join("traces/azure_2023_conv.csv"), &ReadOptions::default())?;
        let lengths = workload.records.iter();
        let random = RandomStream::new(1);
        Ok(Self {
            lengths: lengths
                .map(|record| (record.prompt_tokens, record.output_tokens))
                .collect(),
            gaps: random.derive("gaps"),
            picks: random.derive("picks"),
            mean_gap_s: 1.0 / rate_per_s,
            now_s: 0.0,
            left: requests,
        })
    }
}

impl Iterator for Azure {
    type Item = WorkloadRecord;

    fn next(&mut self) -> Option<WorkloadRecord> {
        self.left = self.left.checked_sub(1)?;
        self.now_s += self.gaps.exponential(self.mean_gap_s);
        let (prompt_tokens, output_tokens) = self.lengths[self.picks.below(self.lengths.len())];
        Some(WorkloadRecord {
            arrival: Timestamp::from_secs_f64(self.now_s),
            prompt_tokens,
            output_tokens,
            ..WorkloadRecord::default()
        })
    }
}

/// What this process has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU time of its main thread.
    pub cpu: Duration,
    /// The most memory it has had, megabytes.
    pub peak_mb: f64,
}

impl Usage {
    /// Until now.
    ///
    /// # Errors
    /// Where the system does not tell: elsewhere than on Linux.
    pub fn now() -> anyhow::Result<Self> {
        // The first figure is the time on a CPU, nanoseconds (Documentation/scheduler/sched-stats).
        let statistics = fs::read_to_string("/proc/self/schedstat").context("CPU time is read from /proc")?;
        let nanos = statistics.split_whitespace().next().unwrap_or_default().parse()?;
        let status = fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak_kb: f64 = peak
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmHWM in /proc/self/status")?
            .parse()?;
        Ok(Self {
            cpu: Duration::from_nanos(nanos),
            peak_mb: peak_kb / 1024.0,
        })
    }

    /// CPU time since, and the most memory ever.
    ///
    /// # Errors
    /// As [`Usage::now`].
    pub fn until_now(self) -> anyhow::Result<Self> {
        let now = Self::now()?;
        Ok(Self {
            cpu: now.cpu.saturating_sub(self.cpu),
            ..now
        })
    }
}
