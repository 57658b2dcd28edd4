//! What can go wrong between us and an engine, and what a retry would cost.

use std::error::Error;
use std::time::Duration;

/// What a retry of the failed request would cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing reached the engine: a retry, here or elsewhere, repeats nothing.
    Free,
    /// The engine may have begun: a retry is safe for the client as long as it has seen no byte of an answer, but
    /// some work may be done twice.
    MayRepeatWork,
    /// A retry would fail in the same way, or the client has already seen part of an answer.
    Useless,
}

/// A failed exchange with an engine.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The endpoint is no usable base URL.
    #[error("engine endpoint `{endpoint}` is unusable: {reason}; write it like http://10.0.0.7:8000")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection could be made: refused, unreachable, name not found, or the connect timeout passed.
    #[error("cannot connect to engine {endpoint}: {}", chain(source.as_ref()))]
    Connect {
        /// The engine.
        endpoint: String,
        /// What the connector said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The head of the response, or for probes the whole response, did not come in time.
    #[error("engine {endpoint} did not answer {path} within {timeout:?}")]
    Timeout {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// The time it was given.
        timeout: Duration,
    },
    /// The engine closed the connection, or the connection broke, before the head of the response.
    #[error("engine {endpoint} closed the connection before answering {path}: {}", chain(source.as_ref()))]
    Closed {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// What the connection said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The body of the request could not be read to its end (the client went away, for example).
    #[error("the body of the request to engine {endpoint} broke off: {}", chain(source.as_ref()))]
    RequestBody {
        /// The engine.
        endpoint: String,
        /// What the body said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What came back is not HTTP.
    #[error("engine {endpoint} answered {path} with something that is not HTTP/1.1: {}", chain(source.as_ref()))]
    Protocol {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// What the parser said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The response began and then broke off.
    #[error("the response of engine {endpoint} to {path} broke off: {}", chain(source.as_ref()))]
    Body {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// What the connection said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A probe's response is larger than a probe reads.
    #[error("the response of engine {endpoint} to {path} is larger than {limit} bytes")]
    TooLarge {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// The limit, bytes.
        limit: usize,
    },
    /// A probe was answered with another status than success.
    #[error("engine {endpoint} answered {path} with status {status}")]
    Status {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// The status.
        status: u16,
    },
    /// A probe's answer could not be understood.
    #[error("cannot read the answer of engine {endpoint} to {path}: {reason}")]
    Malformed {
        /// The engine.
        endpoint: String,
        /// The path asked for.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl BackendError {
    /// True if the head of a response had not come when it failed: then no byte can have reached a client.
    #[must_use]
    pub fn before_response(&self) -> bool {
        match self {
            Self::Endpoint { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Closed { .. }
            | Self::RequestBody { .. }
            | Self::Protocol { .. } => true,
            Self::Body { .. } | Self::TooLarge { .. } | Self::Status { .. } | Self::Malformed { .. } => false,
        }
    }

    /// What a retry would cost.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect { .. } => Retry::Free,
            Self::Timeout { .. } | Self::Closed { .. } | Self::Protocol { .. } => Retry::MayRepeatWork,
            Self::Endpoint { .. }
            | Self::RequestBody { .. }
            | Self::Body { .. }
            | Self::TooLarge { .. }
            | Self::Status { .. }
            | Self::Malformed { .. } => Retry::Useless,
        }
    }
}

/// An error and its causes on one line: the outermost alone often says only "client error (Connect)".
fn chain(error: &(dyn Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
