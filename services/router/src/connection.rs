//! One connection of a client: its socket's options, TLS where the door has it, and HTTP over it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::Watcher;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::server::State;
use crate::tls::{Certificates, HANDSHAKE_TIMEOUT};
use crate::{admin, routes};

/// A client that reads nothing of what was sent to it for this long is let go (the kernel's TCP_USER_TIMEOUT).
const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Who a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Clients.
    Public,
    /// Operators.
    Admin,
}

/// What all connections of one listener share.
pub(crate) struct Door {
    pub(crate) state: Arc<State>,
    pub(crate) side: Side,
    pub(crate) http: auto::Builder<TokioExecutor>,
    pub(crate) tls: Option<Arc<Certificates>>,
}

impl Door {
    /// Serves a connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, socket: TcpStream, watcher: Watcher) {
        // A client that takes nothing for so long holds a slot for nobody.
        if let Err(error) = SockRef::from(&socket).set_tcp_user_timeout(Some(CLIENT_STALL_TIMEOUT)) {
            tracing::debug!("user timeout: {error}");
        }
        // Tokens must not wait for the one before to be acknowledged.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!("nodelay: {error}");
        }
        let door = Arc::clone(&self);
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (state, side) = (Arc::clone(&door.state), door.side);
            async move {
                Ok::<_, Infallible>(match side {
                    Side::Public => routes::respond(state, request).await,
                    Side::Admin => admin::respond(&state, &request),
                })
            }
        });
        let ended = match &self.tls {
            None => {
                let connection = self.http.serve_connection(TokioIo::new(socket), service).into_owned();
                watcher.watch(connection).await
            }
            Some(tls) => {
                let secured = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(socket)).await;
                match secured {
                    Ok(Ok(secured)) => {
                        let connection = self.http.serve_connection(TokioIo::new(secured), service).into_owned();
                        watcher.watch(connection).await
                    }
                    Ok(Err(error)) => return tracing::debug!("no TLS came about: {error}"),
                    Err(_) => return tracing::debug!("no TLS came about within {HANDSHAKE_TIMEOUT:?}"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
    }
}
