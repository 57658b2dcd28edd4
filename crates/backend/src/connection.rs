//! One kept connection to an engine, driven by whoever waits for its answer.
//!
//! hyper's client hands every connection to a task of its own; each request then crosses to that task and back, which
//! costs two wake-ups and, on a busy machine, two changes of core. A proxy waits for one answer on one connection
//! anyway, so here the task that waits polls the connection itself. Nobody polls one that idles: whether the engine has
//! closed it meanwhile is found out by one poll when it is taken up again.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::BoxBody;
use crate::pool::Pool;
use crate::socket::Socket;

/// A connection that serves one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<BoxBody>,
    /// Gone once it has ended.
    driver: Option<Box<http1::Connection<TokioIo<Socket>, BoxBody>>>,
}

/// A request that got no answer.
pub(crate) struct NotAnswered {
    pub(crate) error: hyper::Error,
    /// The request, where not a byte of it was written.
    pub(crate) unsent: Option<Request<BoxBody>>,
}

impl Connection {
    /// Over a socket that is connected.
    pub(crate) async fn over(socket: Socket) -> hyper::Result<Self> {
        let (sender, driver) = http1::handshake(TokioIo::new(socket)).await?;
        let mut connection = Self {
            sender,
            driver: Some(Box::new(driver)),
        };
        // A first look tells the sender that the connection is ready.
        connection.is_usable();
        Ok(connection)
    }

    /// Whether it can take a request; one that the engine has closed cannot.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Lets the connection read and write what it can.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(context).is_ready()
        {
            // How it ended is told to whoever waits for a head or a body.
            self.driver = None;
        }
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn exchange(&mut self, request: Request<BoxBody>) -> Result<Response<Incoming>, NotAnswered> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        let answered = poll_fn(|context| {
            if let Poll::Ready(answered) = answer.as_mut().poll(context) {
                return Poll::Ready(answered);
            }
            if let Some(running) = driver
                && Pin::new(running).poll(context).is_ready()
            {
                *driver = None;
            }
            // What the connection has just read is here without another wake-up.
            answer.as_mut().poll(context)
        });
        answered.await.map_err(|mut failed| NotAnswered {
            unsent: failed.take_message(),
            error: failed.into_error(),
        })
    }
}

/// The body of an engine's response. At its end the connection goes back to its pool; dropped before, it is closed, which
/// cancels the work in vLLM.
#[derive(Debug)]
pub struct EngineBody {
    incoming: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl EngineBody {
    pub(crate) fn new(incoming: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        Self {
            incoming,
            connection: Some(connection),
            pool,
        }
    }

    fn give_back(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.give_back(connection);
        }
    }
}

impl Body for EngineBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let mut next = Pin::new(&mut this.incoming).poll_frame(context);
        if next.is_pending()
            && let Some(connection) = &mut this.connection
        {
            connection.drive(context);
            next = Pin::new(&mut this.incoming).poll_frame(context);
        }
        match &next {
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Err(_))) => this.connection = None,
            _ => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for EngineBody {
    fn drop(&mut self) {
        // Whoever knows the length, or that there is nothing, does not ask for the end.
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}
