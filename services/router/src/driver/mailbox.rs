//! Where the verdicts on one request arrive. A channel would reserve room for dozens of messages for every request; here
//! are one allocation and a place for what is outstanding, which is one dispatch and at most a last word.

use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::Verdict;

/// More than this is never outstanding: a request has at most one dispatch out, and a refusal or a delivery ends it.
const MOST: usize = 4;

#[derive(Debug, Default)]
struct State {
    verdicts: SmallVec<[Verdict; 1]>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

/// The driver's end.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

/// The request's end.
#[derive(Debug)]
pub(crate) struct Mailbox(Arc<Shared>);

pub(super) fn mailbox() -> (Sender, Mailbox) {
    let shared = Arc::<Shared>::default();
    (Sender(Arc::clone(&shared)), Mailbox(shared))
}

impl Sender {
    pub(super) fn send(&self, verdict: Verdict) {
        let mut state = self.0.state.lock();
        if state.verdicts.len() < MOST {
            state.verdicts.push(verdict);
        }
        drop(state);
        self.0.arrived.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.arrived.notify_one();
    }
}

impl Mailbox {
    /// The next verdict, if it is there.
    #[cfg(test)]
    pub(crate) fn try_recv(&mut self) -> Option<Verdict> {
        let mut state = self.0.state.lock();
        (!state.verdicts.is_empty()).then(|| state.verdicts.remove(0))
    }

    /// The next verdict; `None` where no more will come. Dropped while it waits, it loses none.
    pub(crate) async fn recv(&mut self) -> Option<Verdict> {
        loop {
            {
                let mut state = self.0.state.lock();
                if !state.verdicts.is_empty() {
                    return Some(state.verdicts.remove(0));
                }
                if state.closed {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }
}
