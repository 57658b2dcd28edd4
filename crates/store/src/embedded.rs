//! The embedded store: a thread that owns the database and answers one command at a time.
//!
//! redb blocks, so it lives on a thread of its own. Commands come through a bounded channel; the thread also wakes
//! for leases that end.

mod leases;
mod state;

use self::state::State;
use crate::store::{check_entry, check_key};
use crate::{Lease, LeaseId, Listing, Precondition, Revision, Store, StoreError, StoreFuture, Versioned, Watch};
use bytes::Bytes;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the thread.
const COMMAND_QUEUE: usize = 256;

/// How long the thread waits when a lease could not be ended because the database failed.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Command {
    Get {
        key: String,
        reply: Reply<Option<Versioned>>,
    },
    List {
        prefix: String,
        reply: Reply<Listing>,
    },
    Put {
        key: String,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
        reply: Reply<Revision>,
    },
    Delete {
        key: String,
        precondition: Precondition,
        reply: Reply<bool>,
    },
    Grant {
        ttl: Duration,
        reply: Reply<Lease>,
    },
    KeepAlive {
        lease: LeaseId,
        reply: Reply<()>,
    },
    Revoke {
        lease: LeaseId,
        reply: Reply<()>,
    },
    Watch {
        prefix: String,
        after: Revision,
        reply: Reply<Watch>,
    },
    Close {
        reply: Reply<()>,
    },
}

/// A handle to the thread. The database is closed by `close`, or soon after the last handle is dropped.
#[derive(Debug)]
pub(crate) struct EmbeddedStore {
    commands: mpsc::Sender<Command>,
}

impl EmbeddedStore {
    /// Opens the file, or a database in memory. Its leases get their full life anew.
    pub(crate) async fn open(path: Option<&Path>) -> Result<Self, StoreError> {
        let place = path.map(Path::to_path_buf);
        let shown = place.clone().unwrap_or_else(|| "in memory".into());
        let cannot_open = move |reason: String| StoreError::CannotOpen {
            path: shown.clone(),
            reason,
        };
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (opened, outcome) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| cannot_open(error.to_string()))?;
        std::thread::Builder::new()
            .name("embedded-store".to_owned())
            .spawn(move || match State::open(place.as_deref(), Instant::now()) {
                Ok(state) => {
                    if opened.send(Ok(())).is_ok() {
                        runtime.block_on(run(state, receiver));
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            })
            .map_err(|error| cannot_open(error.to_string()))?;
        outcome
            .await
            .map_err(|_| cannot_open("its thread ended".to_owned()))??;
        Ok(Self { commands })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

async fn run(mut state: State, mut commands: mpsc::Receiver<Command>) {
    let mut retry_at = None;
    loop {
        let deadline = state
            .next_deadline()
            .map(|deadline| retry_at.map_or(deadline, |retry| deadline.max(retry)));
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Leases first: a key whose lease has ended must not be seen by the next command.
            () = expiry => {
                retry_at = state.expire(Instant::now()).err().map(|error| {
                    tracing::warn!(%error, "cannot end leases");
                    Instant::now() + EXPIRY_RETRY
                });
            }
            command = commands.recv() => match command {
                None => return,
                Some(Command::Close { reply }) => {
                    commands.close();
                    drop(state);
                    drop(reply.send(Ok(())));
                    return;
                }
                Some(command) => answer(&mut state, command),
            }
        }
    }
}

/// Carries one command out. A caller that has gone away is no error: the command stands.
fn answer(state: &mut State, command: Command) {
    let now = Instant::now();
    match command {
        Command::Get { key, reply } => drop(reply.send(state.get(&key))),
        Command::List { prefix, reply } => drop(reply.send(state.list(&prefix))),
        Command::Put {
            key,
            value,
            precondition,
            lease,
            reply,
        } => {
            drop(reply.send(state.put(&key, value, precondition, lease)));
        }
        Command::Delete {
            key,
            precondition,
            reply,
        } => drop(reply.send(state.delete(&key, precondition))),
        Command::Grant { ttl, reply } => drop(reply.send(state.grant(ttl, now))),
        Command::KeepAlive { lease, reply } => drop(reply.send(state.keep_alive(lease, now))),
        Command::Revoke { lease, reply } => drop(reply.send(state.revoke(lease))),
        Command::Watch { prefix, after, reply } => drop(reply.send(state.watch(&prefix, after))),
        Command::Close { reply } => drop(reply.send(Ok(()))),
    }
}

impl Store for EmbeddedStore {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(async move {
            check_key(key)?;
            self.ask(|reply| Command::Get {
                key: key.to_owned(),
                reply,
            })
            .await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        Box::pin(self.ask(|reply| Command::List {
            prefix: prefix.to_owned(),
            reply,
        }))
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        precondition: Precondition,
        lease: Option<LeaseId>,
    ) -> StoreFuture<'a, Revision> {
        Box::pin(async move {
            check_entry(key, &value)?;
            self.ask(|reply| Command::Put {
                key: key.to_owned(),
                value,
                precondition,
                lease,
                reply,
            })
            .await
        })
    }

    fn delete<'a>(&'a self, key: &'a str, precondition: Precondition) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            check_key(key)?;
            self.ask(|reply| Command::Delete {
                key: key.to_owned(),
                precondition,
                reply,
            })
            .await
        })
    }

    fn grant_lease(&self, ttl: Duration) -> StoreFuture<'_, Lease> {
        Box::pin(self.ask(move |reply| Command::Grant { ttl, reply }))
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(self.ask(move |reply| Command::KeepAlive { lease, reply }))
    }

    fn revoke_lease(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(self.ask(move |reply| Command::Revoke { lease, reply }))
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        Box::pin(self.ask(move |reply| Command::Watch {
            prefix: prefix.to_owned(),
            after,
            reply,
        }))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            match self.ask(|reply| Command::Close { reply }).await {
                Ok(()) | Err(StoreError::Closed) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}
