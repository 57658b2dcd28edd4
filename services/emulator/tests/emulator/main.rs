//! The emulator over real sockets, with a real HTTP client.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod client;
mod lifecycle;
mod metrics;
mod tasks;
