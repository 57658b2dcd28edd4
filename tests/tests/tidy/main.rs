//! The rules of the house, run on the repository's own files: each rule is one small function, and a failure lists
//! every offender with the way out.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its plain functions too"
)]

mod deploy;
mod imports;
mod layout;
mod metrics;
mod repository;
mod words;

/// Fails with all offenders at once; `rule` says what is held and what to do.
fn hold(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}\n  {}", offenders.join("\n  "));
}
