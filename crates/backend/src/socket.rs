//! What a connection to an engine goes over: TCP, or TLS on it.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Hands a call to whichever it is.
macro_rules! either {
    ($socket:expr, $socket_name:ident => $call:expr) => {
        match $socket.get_mut() {
            Self::Plain($socket_name) => {
                let $socket_name = Pin::new($socket_name);
                $call
            }
            Self::Secured($socket_name) => {
                let $socket_name = Pin::new(&mut **$socket_name);
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        either!(self, socket => socket.poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize>> {
        either!(self, socket => socket.poll_write(context, content))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        content: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        either!(self, socket => socket.poll_write_vectored(context, content))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Secured(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self, socket => socket.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        either!(self, socket => socket.poll_shutdown(context))
    }
}
