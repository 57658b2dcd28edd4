//! A CSV table of labels: a header, a key column, numbers; blank means not known. Nothing in these tables is quoted.

use std::path::Path;

use super::{Input, open};
use crate::TraceError;
use crate::error::excerpt;
use crate::lines::Lines;

/// A table being read.
pub(super) struct Table {
    lines: Lines<Input>,
    header: Vec<String>,
}

impl Table {
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let mut lines = open(path)?;
        if !lines.advance()? {
            return Err(TraceError::Empty {
                origin: lines.origin().to_owned(),
            });
        }
        let header = lines.current().split(',').map(|name| name.trim().to_owned()).collect();
        Ok(Self { lines, header })
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// The position of a column.
    pub(super) fn column(&self, name: &str) -> Result<usize, TraceError> {
        self.header.iter().position(|column| column == name).ok_or_else(|| {
            self.lines.malformed(
                format!("a column `{name}` in the header"),
                excerpt(self.lines.current()),
            )
        })
    }

    /// The next row, as many fields as the header has; `None` at the end.
    pub(super) fn row(&mut self) -> Result<Option<Vec<String>>, TraceError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let fields: Vec<String> = self
            .lines
            .current()
            .split(',')
            .map(|field| field.trim().to_owned())
            .collect();
        if fields.len() == self.header.len() {
            Ok(Some(fields))
        } else {
            let expected = format!("{} fields, as in the header", self.header.len());
            Err(self.malformed(&expected, &format!("{} fields", fields.len())))
        }
    }

    pub(super) fn malformed(&self, expected: &str, found: &str) -> TraceError {
        self.lines.malformed(expected, found)
    }

    /// A grade in [0, 1], or blank.
    pub(super) fn score(&self, field: &str) -> Result<Option<f64>, TraceError> {
        if field.is_empty() {
            return Ok(None);
        }
        match field.parse::<f64>() {
            Ok(score) if (0.0..=1.0).contains(&score) => Ok(Some(score)),
            _ => Err(self.malformed("a score from 0 to 1, or nothing", &excerpt(field))),
        }
    }

    /// A length in characters, or blank.
    pub(super) fn characters(&self, field: &str) -> Result<Option<u32>, TraceError> {
        if field.is_empty() {
            return Ok(None);
        }
        // Some tools write whole numbers as `234.0` once a column has blanks.
        let whole = field.strip_suffix(".0").unwrap_or(field);
        let parsed = whole.parse::<u32>();
        parsed
            .map(Some)
            .map_err(|_| self.malformed("a whole number of characters, or nothing", &excerpt(field)))
    }
}
