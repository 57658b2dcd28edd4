//! Lines of a file with their numbers, one at a time, never longer than a bound.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use crate::TraceError;
use crate::input::open_file;

/// No line of a workload comes near this; an event log's line holds one batch of arrivals.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Reads numbered lines without their ends (LF or CRLF), without a byte-order mark, leaving blank ones out.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    origin: String,
    number: u64,
    buffer: Vec<u8>,
    complete: bool,
}

impl Lines<BufReader<File>> {
    pub(crate) fn open(path: &Path) -> Result<Self, TraceError> {
        let file = open_file(path)?;
        Ok(Self::new(
            BufReader::with_capacity(1 << 16, file),
            path.display().to_string(),
        ))
    }
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R, origin: String) -> Self {
        Self {
            input,
            origin,
            number: 0,
            buffer: Vec::new(),
            complete: true,
        }
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of the line read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the line read last ended with a line feed. If not, its writer may have died in the middle.
    pub(crate) fn complete(&self) -> bool {
        self.complete
    }

    /// The line read last.
    pub(crate) fn current(&self) -> &str {
        // Checked when it was read.
        str::from_utf8(&self.buffer).unwrap_or_default().trim()
    }

    /// Reads on to the next line that is not blank; false at the end of the file.
    pub(crate) fn advance(&mut self) -> Result<bool, TraceError> {
        loop {
            self.buffer.clear();
            let read = (&mut self.input)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut self.buffer);
            let read = match read {
                Ok(read) => read as u64,
                Err(source) => {
                    return Err(TraceError::Io {
                        origin: self.origin.clone(),
                        line: self.number,
                        source,
                    });
                }
            };
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            self.complete = self.buffer.last() == Some(&b'\n');
            if read == MAX_LINE_BYTES && !self.complete {
                let found = "a longer one; is this a text file?".to_owned();
                return Err(self.malformed(format!("a line of at most {MAX_LINE_BYTES} bytes"), found));
            }
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            if let Err(error) = str::from_utf8(&self.buffer) {
                let found = format!(
                    "the byte {:#04x} at position {} of the line",
                    self.buffer[error.valid_up_to()],
                    error.valid_up_to() + 1
                );
                self.buffer.clear();
                return Err(self.malformed("UTF-8 text", found));
            }
            if !self.current().is_empty() {
                return Ok(true);
            }
        }
    }

    /// An error about the line read last.
    pub(crate) fn malformed(&self, expected: impl Into<String>, found: impl Into<String>) -> TraceError {
        TraceError::Malformed {
            origin: self.origin.clone(),
            line: self.number,
            expected: expected.into(),
            found: found.into(),
        }
    }
}
