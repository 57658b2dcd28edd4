//! The idle connections of one engine: last in, first out, each for a few seconds.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::connection::Connection;

/// See the module. The lock is held for a push or a pop.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    timeout: Duration,
    most: usize,
}

#[derive(Debug, Default)]
struct Idle {
    /// Oldest first.
    connections: VecDeque<(Instant, Connection)>,
    /// Somebody closes what has idled for too long.
    swept: bool,
}

impl Pool {
    pub(crate) fn new(timeout: Duration, most: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            timeout,
            most,
        })
    }

    /// The connection that was used last, if there is one that the engine has not closed.
    pub(crate) fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.idle.lock().connections.pop_back()?;
            if since.elapsed() < self.timeout && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn give_back(self: &Arc<Self>, mut connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.connections.len() >= self.most {
            idle.connections.pop_front();
        }
        idle.connections.push_back((Instant::now(), connection));
        // Outside of a runtime, which is shutting down then, nothing needs to be swept.
        if !idle.swept
            && let Ok(runtime) = Handle::try_current()
        {
            idle.swept = true;
            drop(idle);
            runtime.spawn(sweep(Arc::downgrade(self), self.timeout));
        }
    }
}

/// Closes what idles for too long, until nothing idles any more.
async fn sweep(pool: Weak<Pool>, timeout: Duration) {
    loop {
        tokio::time::sleep(timeout).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        let is_old = |(since, _): &mut (Instant, Connection)| since.elapsed() >= timeout;
        while idle.connections.pop_front_if(is_old).is_some() {}
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
    }
}
