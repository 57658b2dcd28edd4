//! Arrivals counted in windows of one length.

use super::CountSummary;

/// Counts of arrivals per window; windows without any are counted, not visited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    window_s: u64,
    /// The window that is being filled, and how many arrived in it.
    window: u64,
    count: u64,
    peak: u64,
    /// Over the windows that are full.
    sum: f64,
    squares: f64,
}

impl Counts {
    pub(super) fn new(window_s: u64) -> Self {
        Self {
            window_s,
            window: 0,
            count: 0,
            peak: 0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    /// An arrival in that second, from the first arrival on; not earlier than the one before.
    pub(super) fn observe(&mut self, second: u64) {
        let window = second / self.window_s;
        if window > self.window {
            let count = self.count as f64;
            self.sum += count;
            self.squares += count * count;
            self.count = 0;
            self.window = window;
        }
        self.count += 1;
        self.peak = self.peak.max(self.count);
    }

    pub(super) fn summary(&self) -> CountSummary {
        // The last window is not whole and left out.
        let windows = self.window as f64;
        let mean = self.sum / windows;
        let variance = (self.squares - windows * mean * mean) / (windows - 1.0);
        CountSummary {
            window_s: self.window_s,
            peak_per_s: self.peak as f64 / self.window_s as f64,
            dispersion: (self.window >= 2).then_some(variance / mean),
        }
    }
}
