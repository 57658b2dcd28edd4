//! The product as users run it: real processes on free ports of the loopback interface, talked to over HTTP and the
//! command line.
//!
//! Every test has processes of its own, so tests run beside one another. They wait for what must become so, within
//! bounds that only a hang exceeds; none asserts how fast anything is. A failing test prints what its processes said.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what its processes said, its plain functions too"
)]

mod client;
mod cluster;
mod load;
mod process;

mod api;
mod bad_input;
mod cascade;
mod command_line;
mod control_plane_loss;
mod endpoints;
mod energy;
mod engine_loss;
mod failover;
mod feedback;
mod forecasts;
mod hedging;
mod http2;
mod observing;
mod operator;
mod overload;
mod real_vllm;
mod reload;
mod replay;
mod secured;
mod security;
mod simulate;
mod soak;
mod streams;
mod trace;
mod wishes;

use std::time::Duration;

/// Longest wait for anything. It fails a test that hangs, it measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `so` answers something, and gives that back.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut so: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = so().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("it never came to this: {what}"))
}
