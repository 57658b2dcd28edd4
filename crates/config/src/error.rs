//! What can be wrong with a fleet file or a scenario file.

use std::io;
use std::ops::Range;

/// Why a file is not taken. Every message says where and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the fleet file {origin}: {source}")]
    Read {
        /// Which file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// The scenario file cannot be read.
    #[error("cannot read the scenario file {origin}: {source}")]
    ReadScenario {
        /// Which file.
        origin: String,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong: its syntax, an unknown key, or a value that makes no sense.
    #[error("{origin}:{line}:{column}: {problem}")]
    Invalid {
        /// Which file.
        origin: String,
        /// Which line, from 1.
        line: usize,
        /// Which column, in characters, from 1.
        column: usize,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The text of a file, to turn positions into lines and columns.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    pub(crate) origin: &'a str,
}

impl Source<'_> {
    /// An error at a place in the text.
    pub(crate) fn invalid(&self, span: Range<usize>, problem: impl Into<String>) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ConfigError::Invalid {
            origin: self.origin.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: problem.into(),
        }
    }

    /// An error of the TOML parser.
    pub(crate) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().trim().replace('\n', "; ");
        self.invalid(error.span().unwrap_or(0..0), message)
    }
}
