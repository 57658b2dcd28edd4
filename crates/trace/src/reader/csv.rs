//! Columns of a CSV file with a header, found by name.

use std::io::BufRead;

use crate::TraceError;
use crate::error::excerpt;
use crate::lines::Lines;

/// The fields of a CSV line. The traces quote nothing that contains a comma.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|field| field.trim().trim_matches('"'))
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    index: usize,
    name: &'static str,
}

impl Column {
    /// Finds the column in the current line, in any place and case; `header` is how the line should look.
    pub(super) fn find<R: BufRead>(lines: &Lines<R>, name: &'static str, header: &str) -> Result<Self, TraceError> {
        let index = fields(lines.current()).position(|field| field.eq_ignore_ascii_case(name));
        index.map(|index| Self { index, name }).ok_or_else(|| {
            let expected = format!("the header `{header}`");
            lines.malformed(expected, excerpt(lines.current()))
        })
    }

    /// What the current line has in it.
    pub(super) fn text<'a, R: BufRead>(&self, lines: &'a Lines<R>) -> Result<&'a str, TraceError> {
        fields(lines.current()).nth(self.index).ok_or_else(|| {
            let expected = format!("column {} ({})", self.index + 1, self.name);
            lines.malformed(expected, format!("only {}", excerpt(lines.current())))
        })
    }

    /// A number of tokens.
    pub(super) fn tokens<R: BufRead>(&self, lines: &Lines<R>) -> Result<u32, TraceError> {
        let text = self.text(lines)?;
        text.parse::<u32>().map_err(|_| {
            let expected = format!("a whole number of tokens from 0 to {} in {}", u32::MAX, self.name);
            lines.malformed(expected, excerpt(text))
        })
    }
}
