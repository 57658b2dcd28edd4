//! What can be wrong with a trace, and how to mend it.

use std::io;

/// Why a trace could not be read or written. `origin` is a path, or what stands for one.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or created.
    #[error("cannot open {origin}: {source}")]
    Open {
        /// Which file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// There is a directory where a file should be.
    #[error("{origin} is a directory: name a file in it")]
    Directory {
        /// Which.
        origin: String,
    },
    /// Reading or writing broke off.
    #[error("{origin}: reading or writing failed after line {line}: {source}")]
    Io {
        /// Which file.
        origin: String,
        /// After which line.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// A line is not what the format asks for.
    #[error("{origin}:{line}: expected {expected}, found {found}")]
    Malformed {
        /// Which file.
        origin: String,
        /// Which line, counted from 1.
        line: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The format cannot be told from the first bytes.
    #[error(
        "{origin}: this is no known workload: expected the header `TIMESTAMP,ContextTokens,GeneratedTokens` (Azure) or \
         `Timestamp,Model,Request tokens,…` (BurstGPT), JSON lines with `input_length` (Mooncake) or `prompt_tokens` \
         (Equipoise), a result of `vllm bench serve` or GuideLLM, our Parquet, or a tar of ServeGen clients; found {found}"
    )]
    UnknownFormat {
        /// Which file.
        origin: String,
        /// What stands at its beginning.
        found: String,
    },
    /// A request comes too late to be put in its place.
    #[error(
        "{origin}{}: request {request} arrives {late_s} s before one that was passed on {window} requests earlier: the file is too \
         far out of order to be read in one pass; sort it first (`equipoise trace convert --sort`)",
        .line.map_or_else(String::new, |line| format!(":{line}"))
    )]
    OutOfOrder {
        /// Which file.
        origin: String,
        /// Its line, counted from 1, where the format has lines.
        line: Option<u64>,
        /// Which one, from 1, as the file has them.
        request: u64,
        /// By how much, seconds.
        late_s: f64,
        /// How many requests are held to be sorted.
        window: usize,
    },
    /// A Parquet file is broken, or holds something else.
    #[error("{origin}: this Parquet file cannot be read beyond row {row}: {reason}")]
    Parquet {
        /// Which file.
        origin: String,
        /// After how many rows.
        row: u64,
        /// Why.
        reason: String,
    },
    /// Scaling would fill the memory.
    #[error("more than {most} copies wait for their turn at once: make the factor or the spread of copies smaller")]
    TooManyCopies {
        /// At most.
        most: usize,
    },
    /// A request is later than any file may say.
    #[error("{origin}: request {request} arrives after more than thirty years, which no reader takes")]
    TooLate {
        /// Which file.
        origin: String,
        /// Which one, from 1.
        request: u64,
    },
    /// A format is not written.
    #[error("workloads are written as `parquet` or `jsonl`, not as `{format}`")]
    ReadOnly {
        /// As asked for.
        format: crate::WorkloadFormat,
    },
    /// A set of clients cannot give what is asked for.
    #[error("{origin}: {source}")]
    Generator {
        /// Which set.
        origin: String,
        /// Why.
        source: crate::GeneratorError,
    },
    /// There is no request in it.
    #[error("{origin}: no request in it: a workload needs at least one")]
    Empty {
        /// Which file.
        origin: String,
    },
}

/// The beginning of a line, quoted, for an error.
pub(crate) fn excerpt(line: &str) -> String {
    const SHOWN: usize = 80;
    let line = line.trim();
    if line.is_empty() {
        return "nothing".to_owned();
    }
    // A terminal must not obey what a file says.
    let shown = line.chars().take(SHOWN);
    let shown: String = shown
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if line.chars().nth(SHOWN).is_some() {
        format!("`{shown}…`")
    } else {
        format!("`{shown}`")
    }
}

/// serde_json's message without its own position, which counts from the line's start and would mislead, and without
/// Rust's names of types.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    const PLAIN: [(&str, &str); 3] = [
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number from 0 up"),
        ("expected f64", "expected a number"),
    ];
    let text = error.to_string();
    let mut message = text[..text.rfind(" at line ").unwrap_or(text.len())].to_owned();
    for (rust, plain) in PLAIN {
        if let Some(before) = message.strip_suffix(rust) {
            message = format!("{before}{plain}");
        }
    }
    format!("{message} (column {})", error.column())
}
