//! Log setup: to standard error, filtered by the environment.

use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The environment variable that holds the log filter, for example `info,equipoise_router=debug`.
const FILTER_VARIABLE: &str = "EQUIPOISE_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format { given: text.to_owned() }),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The format is not known.
    #[error("log format {given:?} is not known: use text or json")]
    Format {
        /// What was given.
        given: String,
    },
    /// The filter does not parse.
    #[error(
        "{FILTER_VARIABLE}={given:?} is not a log filter ({reason}): use for example info or warn,equipoise_router=debug"
    )]
    Filter {
        /// What the variable holds.
        given: String,
        /// What the parser says.
        reason: String,
    },
    /// Something else in the process has set up logging.
    #[error("logging was set up before in this process: call init_logging once, first thing in main")]
    SetTwice,
}

/// Sends logs to standard error, filtered by `EQUIPOISE_LOG` (default `info`).
///
/// # Errors
/// A filter that does not parse, or a process that logs already.
pub fn init_logging(format: LogFormat) -> Result<(), LoggingError> {
    let given = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let filter = filter_from(&given)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colours).finish().try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    outcome.map_err(|_| LoggingError::SetTwice)
}

fn filter_from(given: &str) -> Result<EnvFilter, LoggingError> {
    if given.trim().is_empty() {
        return Ok(EnvFilter::new("info"));
    }
    EnvFilter::try_new(given).map_err(|error| LoggingError::Filter {
        given: given.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_an_empty_one_means_info() {
        assert_eq!(filter_from(" ").expect("default").to_string(), "info");
        let error = filter_from("equipoise=loud").expect_err("no such level").to_string();
        assert!(error.contains("EQUIPOISE_LOG=\"equipoise=loud\""), "{error}");
    }

    #[test]
    fn formats_are_text_and_json() {
        assert_eq!("json".parse::<LogFormat>().expect("known"), LogFormat::Json);
        assert!(
            "xml"
                .parse::<LogFormat>()
                .expect_err("unknown")
                .to_string()
                .contains("text or json")
        );
    }
}
