//! ServeGen client sets (alibaba/ServeGen, Apache-2.0): measured clients of a serving platform, from which workloads
//! are generated.
//!
//! A set is a folder, or a tar archive of one, with two files per client: `chunk-N-trace.csv` (window's start in seconds,
//! requests per second, coefficient of variation of the gaps, family, shape, scale; no header) and
//! `chunk-N-dataset.json` (window's start, and histograms of `input_tokens` and `output_tokens`).
//!
//! How requests are made, and where that differs from ServeGen's own generator:
//! - In each window a client sends as many requests as its rate says (a fraction by chance, so that small clients keep
//!   their rate at any scale; ServeGen rounds up). Their gaps follow the window's family and *shape* and are stretched to
//!   fill the window, as ServeGen does; the file's scale parameter plays no part, in either.
//! - Gamma shapes are corrected so that a window's few gaps vary as much as was measured, see `files.rs`.
//! - Prompt and answer lengths are drawn apart: the set has no joint distribution. (ServeGen draws both from one random
//!   number, so that its longest prompts have its longest answers.)
//! - A client's histograms are those of the latest window with any, or the first if there is none yet.

mod files;
mod requests;
mod tar;

use std::io::BufRead;
use std::path::Path;

use crate::TraceError;
use crate::distribution::Histogram;

pub use requests::ServeGenRequests;

/// What to generate from a set of clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServeGenOptions {
    /// Where in the recorded time to begin, seconds.
    pub start_s: f64,
    /// How long, seconds; `None`: to the end of the set.
    pub duration_s: Option<f64>,
    /// The mean rate of all clients together over that time, requests per second; every client and window is scaled by
    /// the same factor, so that who is busy when is kept. `None`: as recorded.
    pub rate_per_s: Option<f64>,
    /// Same seed, same requests. Another rate or time keeps the lengths.
    pub seed: u64,
}

/// The clients of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeGenClients {
    clients: Vec<Client>,
    end_s: f64,
}

/// One client.
#[derive(Clone, Debug, PartialEq)]
struct Client {
    id: u32,
    windows: Vec<ClientWindow>,
    lengths: Vec<WindowLengths>,
}

/// How a client sends in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ClientWindow {
    start_s: f64,
    end_s: f64,
    rate_per_s: f64,
    /// Coefficient of variation of the gaps, as measured.
    cv: f64,
    gaps: Family,
}

/// The family of the gaps between requests, with its shape.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    Gamma(f64),
    Weibull(f64),
}

/// How long prompts and answers are from some time on.
#[derive(Clone, Debug, PartialEq)]
struct WindowLengths {
    start_s: f64,
    input: Histogram,
    output: Histogram,
}

impl Client {
    fn lengths_at(&self, time_s: f64) -> &WindowLengths {
        let begun = self.lengths.partition_point(|lengths| lengths.start_s <= time_s);
        &self.lengths[begun.saturating_sub(1)]
    }
}

impl ServeGenClients {
    /// Reads a set from a folder.
    ///
    /// # Errors
    /// A file cannot be read or is malformed, by name and line; a client with one of its two files only; no client.
    pub fn open_folder(path: &Path) -> Result<Self, TraceError> {
        files::of_folder(path)
    }

    /// Reads a set from a tar archive that is already decompressed.
    ///
    /// # Errors
    /// As [`ServeGenClients::open_folder`].
    pub fn read_tar(input: impl BufRead, origin: &str) -> Result<Self, TraceError> {
        files::of_tar(input, origin)
    }

    /// How many clients there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// The end of the recorded time, seconds from its start.
    #[must_use]
    pub fn end_s(&self) -> f64 {
        self.end_s
    }

    /// Requests that the set counts between two times.
    #[must_use]
    pub fn requests_between(&self, start_s: f64, end_s: f64) -> f64 {
        let windows = self.clients.iter().flat_map(|client| &client.windows);
        windows
            .map(|window| window.rate_per_s * (window.end_s.min(end_s) - window.start_s.max(start_s)).max(0.0))
            .sum()
    }
}

#[cfg(test)]
mod tests;
