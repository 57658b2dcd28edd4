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

/// Waits for the first signal, and runs `meanwhile` until then.
pub(crate) async fn asked_to_stop(meanwhile: impl Future<Output = ()>) {
    tokio::select! {
        () = once() => {}
        () = async { meanwhile.await; std::future::pending().await } => {}
    }
}

/// After the first signal: runs `drain`; a second signal cuts it short.
pub(crate) async fn drain(drain: impl Future<Output = ()>) {
    terminal::complain("draining; press Ctrl-C again to stop at once");
    tokio::select! {
        () = drain => {}
        () = once() => terminal::complain("stopped at once"),
    }
}

/// Waits for the first signal, then runs `end`; a second signal cuts it short.
pub(crate) async fn then(end: impl Future<Output = ()>) {
    once().await;
    drain(end).await;
}
