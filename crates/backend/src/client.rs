//! The client of one engine: a pool of HTTP/1.1 connections, proxying and probes.

use crate::connection::{Connection, EngineBody, NotAnswered};
use crate::pool::Pool;
use crate::socket::Socket;
use crate::{BackendError, Endpoint, EngineMetrics, EngineTls, EngineTlsFiles, strip_hop_by_hop};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, LengthLimitError, Limited};
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

/// Finds a peer that vanished without a FIN while a long answer is awaited.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Any error that a request's body may end with.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// The body of a request to an engine: whole or streamed.
pub type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body without content.
#[must_use]
pub fn empty_body() -> BoxBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is known in full.
#[must_use]
pub fn full_body(content: impl Into<Bytes>) -> BoxBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Limits of an engine's client.
#[derive(Clone, Debug)]
pub struct EngineClientConfig {
    /// Longest wait for a connection (all addresses of the name together).
    pub connect_timeout: Duration,
    /// Longest wait of [`EngineClient::send`] for the head of the response; an engine sends it with the first token at the latest.
    pub response_head_timeout: Duration,
    /// How long an idle connection is kept. Below the 5 s after which uvicorn (vLLM) closes one, so that the race
    /// between our next request and its close is rare.
    pub pool_idle_timeout: Duration,
    /// Most idle connections kept; those in use are not bounded here.
    pub pool_max_idle: usize,
    /// Largest response that a probe reads, bytes.
    pub probe_limit: usize,
    /// For `https://`; absent: the system's authorities, and nothing shown of oneself.
    pub tls: Option<EngineTls>,
}

impl Default for EngineClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            response_head_timeout: Duration::from_secs(600),
            pool_idle_timeout: Duration::from_secs(4),
            pool_max_idle: 1024,
            probe_limit: 4 << 20,
            tls: None,
        }
    }
}

/// One model that an engine says it serves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServedModel {
    /// The name clients ask for.
    pub id: String,
    /// Longest prompt plus answer, tokens (vLLM's field); absent in other engines.
    #[serde(default)]
    pub max_model_len: Option<u64>,
}

/// The client of one engine. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct EngineClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    name: String,
    pool: Arc<Pool>,
    /// For a secure endpoint.
    tls: Option<EngineTls>,
    config: EngineClientConfig,
}

impl EngineClient {
    /// A client of the engine at `endpoint` (`http://host[:port][/base]` or `https://`). Connects on first use.
    ///
    /// # Errors
    /// [`BackendError::Endpoint`] if the URL is unusable, or is secure on a system that believes nobody.
    pub fn new(endpoint: &str, config: EngineClientConfig) -> Result<Self, BackendError> {
        let endpoint = Endpoint::parse(endpoint)?;
        let tls = match (&config.tls, endpoint.is_secure()) {
            (_, false) => None,
            (Some(tls), true) => Some(tls.clone()),
            (None, true) => {
                let system = EngineTls::load(&EngineTlsFiles::default());
                Some(system.map_err(|error| BackendError::Endpoint {
                    endpoint: endpoint.to_string(),
                    reason: error.to_string(),
                })?)
            }
        };
        let pool = Pool::new(config.pool_idle_timeout, config.pool_max_idle);
        let name = endpoint.to_string();
        Ok(Self {
            inner: Arc::new(Inner {
                endpoint,
                name,
                pool,
                tls,
                config,
            }),
        })
    }

    /// The engine's base URL.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.inner.name
    }

    /// Passes a request on: its path and query go under the endpoint, `Host` is set, headers that concern one
    /// connection are removed; everything else, the body streamed, goes as it is. Returns at the head of the response;
    /// the body streams. Dropping this future or the response closes the connection, which cancels the work in vLLM.
    ///
    /// # Errors
    /// Every error is before the response ([`BackendError::before_response`]); later ones come from the body, see
    /// [`Self::body_error`]. A status of the engine, whatever it is, is no error here.
    pub async fn send(&self, request: Request<BoxBody>) -> Result<Response<EngineBody>, BackendError> {
        let deadline = tokio::time::Instant::now() + self.inner.config.response_head_timeout;
        self.send_until(request, deadline, self.inner.config.response_head_timeout)
            .await
    }

    async fn send_until(
        &self,
        mut request: Request<BoxBody>,
        deadline: tokio::time::Instant,
        allowed: Duration,
    ) -> Result<Response<EngineBody>, BackendError> {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = self.inner.endpoint.target(request.uri().path_and_query())?;
        *request.version_mut() = http::Version::HTTP_11;
        request.extensions_mut().clear();
        strip_hop_by_hop(request.headers_mut());
        request
            .headers_mut()
            .insert(header::HOST, self.inner.endpoint.host_header().clone());
        match timeout_at(deadline, self.exchange(request, &path)).await {
            Ok(answered) => answered,
            Err(_) => Err(BackendError::Timeout {
                endpoint: self.endpoint().to_owned(),
                path,
                timeout: allowed,
            }),
        }
    }

    /// On a kept connection, or on a new one. A request that found a kept connection closed before a byte was written
    /// goes out again on the next.
    async fn exchange(&self, mut request: Request<BoxBody>, path: &str) -> Result<Response<EngineBody>, BackendError> {
        loop {
            let kept = self.inner.pool.take();
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match connection.exchange(request).await {
                Ok(response) => {
                    let (head, incoming) = response.into_parts();
                    let body = EngineBody::new(incoming, connection, Arc::clone(&self.inner.pool));
                    return Ok(Response::from_parts(head, body));
                }
                Err(NotAnswered {
                    unsent: Some(unsent), ..
                }) if !is_new => request = unsent,
                Err(failed) => return Err(self.classify(path, failed.error)),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, BackendError> {
        let failed = |source: BoxError| BackendError::Connect {
            endpoint: self.endpoint().to_owned(),
            source,
        };
        let connecting = self.open();
        let socket = match timeout(self.inner.config.connect_timeout, connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(failed(error.into())),
            Err(_) => {
                return Err(failed(
                    format!("nothing came back within {:?}", self.inner.config.connect_timeout).into(),
                ));
            }
        };
        Connection::over(socket).await.map_err(|error| failed(error.into()))
    }

    /// A socket, and the handshake where the endpoint is secure.
    async fn open(&self) -> std::io::Result<Socket> {
        let address = self.inner.endpoint.address();
        let socket = TcpStream::connect(address).await?;
        let options = SockRef::from(&socket);
        // Tokens must not wait for the one before to be acknowledged.
        options.set_tcp_nodelay(true)?;
        options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(match &self.inner.tls {
            None => Socket::Plain(socket),
            Some(tls) => Socket::Secured(Box::new(tls.secure(address.0, socket).await?)),
        })
    }

    fn classify(&self, path: &str, error: hyper::Error) -> BackendError {
        let (endpoint, path) = (self.endpoint().to_owned(), path.to_owned());
        let source: BoxError = error.into();
        let cause = source.downcast_ref::<hyper::Error>();
        match cause {
            Some(cause) if cause.is_user() => BackendError::RequestBody { endpoint, source },
            Some(cause) if cause.is_parse() => BackendError::Protocol { endpoint, path, source },
            _ => BackendError::Closed { endpoint, path, source },
        }
    }

    /// Names an error that the body of a response ended with.
    #[must_use]
    pub fn body_error(&self, path: &str, error: hyper::Error) -> BackendError {
        BackendError::Body {
            endpoint: self.endpoint().to_owned(),
            path: path.to_owned(),
            source: error.into(),
        }
    }

    /// Gets `path` whole, within `timeout` for all of it and within the probe limit; any status.
    ///
    /// # Errors
    /// Those of [`Self::send`], a body that breaks off, one that is too large.
    pub async fn get(&self, path: &str, timeout: Duration) -> Result<Response<Bytes>, BackendError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let target: PathAndQuery = path
            .parse()
            .map_err(|error: http::uri::InvalidUri| self.malformed(path, format!("the path is unusable: {error}")))?;
        let mut request = Request::new(empty_body());
        *request.uri_mut() = target.into();
        let (head, body) = self.send_until(request, deadline, timeout).await?.into_parts();
        let limit = self.inner.config.probe_limit;
        let endpoint = || self.endpoint().to_owned();
        match timeout_at(deadline, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(Response::from_parts(head, body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BackendError::TooLarge {
                endpoint: endpoint(),
                path: path.to_owned(),
                limit,
            }),
            Ok(Err(source)) => Err(BackendError::Body {
                endpoint: endpoint(),
                path: path.to_owned(),
                source,
            }),
            Err(_) => Err(BackendError::Timeout {
                endpoint: endpoint(),
                path: path.to_owned(),
                timeout,
            }),
        }
    }

    /// Asks whether the engine is well: `/health` answers 200, or, where there is no `/health`, `/v1/models` does.
    ///
    /// # Errors
    /// Whatever went wrong; [`BackendError::Status`] if it answered unhealthy.
    pub async fn probe_health(&self, timeout: Duration) -> Result<(), BackendError> {
        let health = self.get("/health", timeout).await?;
        match health.status() {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                self.get_ok("/v1/models", timeout).await.map(drop)
            }
            _ => self.check("/health", health).map(drop),
        }
    }

    /// Reads `/metrics`.
    ///
    /// # Errors
    /// Whatever went wrong; [`BackendError::Status`] 404 from an engine that has no metrics.
    pub async fn scrape(&self, timeout: Duration) -> Result<EngineMetrics, BackendError> {
        let body = self.get_ok("/metrics", timeout).await?;
        Ok(EngineMetrics::from_text(&String::from_utf8_lossy(&body)))
    }

    /// Reads `/v1/models`.
    ///
    /// # Errors
    /// Whatever went wrong; [`BackendError::Malformed`] if the answer is not OpenAI's list.
    pub async fn list_models(&self, timeout: Duration) -> Result<Vec<ServedModel>, BackendError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<ServedModel>,
        }
        let body = self.get_ok("/v1/models", timeout).await?;
        let list: List =
            serde_json::from_slice(&body).map_err(|error| self.malformed("/v1/models", error.to_string()))?;
        Ok(list.data)
    }

    async fn get_ok(&self, path: &str, timeout: Duration) -> Result<Bytes, BackendError> {
        let response = self.get(path, timeout).await?;
        self.check(path, response)
    }

    fn check(&self, path: &str, response: Response<Bytes>) -> Result<Bytes, BackendError> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        Err(BackendError::Status {
            endpoint: self.endpoint().to_owned(),
            path: path.to_owned(),
            status: status.as_u16(),
        })
    }

    fn malformed(&self, path: &str, reason: String) -> BackendError {
        BackendError::Malformed {
            endpoint: self.endpoint().to_owned(),
            path: path.to_owned(),
            reason,
        }
    }
}
