//! The end of a service: Ctrl-C or SIGTERM; the second one does not wait.

use crate::terminal;

async fn once() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!("SIGTERM cannot be caught: {error}");
            drop(interrupt.await);
        }
    }
}

/// Waits for the first signal, then runs `drain`; a second signal cuts it short.
pub(crate) async fn then(drain: impl Future<Output = ()>) {
    once().await;
    terminal::complain("draining; press Ctrl-C again to stop at once");
    tokio::select! {
        () = drain => {}
        () = once() => terminal::complain("stopped at once"),
    }
}
