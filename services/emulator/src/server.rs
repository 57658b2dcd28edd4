//! The listener, its connections, and their end.

use crate::config::EmulatorConfig;
use crate::engine_task::EngineTask;
use crate::handler::Instance;
use http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// For a client to send the head of a request; idle connections are closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// For answers to finish after [`RunningEmulator::shutdown`].
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no file descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts emulated instances.
#[derive(Clone, Copy, Debug)]
pub struct Emulator;

/// An emulated instance that runs. Dropped, it ends at once, like a process that is killed.
#[derive(Debug)]
pub struct RunningEmulator {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    engine: JoinHandle<()>,
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {addr}: {source}; free that port, choose another, or use port 0 for any")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// No model name.
    #[error("model_name is empty: give the name that clients will put in `model`")]
    ModelName,
    /// Lengths that no distribution has.
    #[error(
        "output_lengths: mean_tokens is {mean_tokens} and sigma is {sigma}; both must be finite, the mean above 0 and sigma at least 0"
    )]
    OutputLengths {
        /// Mean, tokens.
        mean_tokens: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
}

impl Emulator {
    /// Starts an instance on the current tokio runtime; it serves when this returns.
    ///
    /// # Errors
    /// The configuration makes no sense, or the address is taken.
    pub async fn start(config: EmulatorConfig) -> Result<RunningEmulator, StartError> {
        if config.model_name.is_empty() {
            return Err(StartError::ModelName);
        }
        let (mean_tokens, sigma) = (config.output_lengths.mean_tokens, config.output_lengths.sigma);
        if !(mean_tokens.is_finite() && mean_tokens > 0.0 && sigma.is_finite() && sigma >= 0.0) {
            return Err(StartError::OutputLengths { mean_tokens, sigma });
        }
        let failed = |source| StartError::Listen {
            addr: config.addr,
            source,
        };
        let listener = TcpListener::bind(config.addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (task, handle) = EngineTask::new(config.step_model.clone(), config.max_model_len(), config.max_waiting);
        let instance = Arc::new(Instance::new(&config, handle));
        let (stop, stopped) = oneshot::channel();
        let engine = tokio::spawn(task.run());
        let server = tokio::spawn(serve(listener, instance, stopped));
        tracing::info!(%addr, model = %config.model_name, "emulator serves");
        Ok(RunningEmulator {
            addr,
            stop: Some(stop),
            server,
            engine,
        })
    }
}

impl RunningEmulator {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, lets answers finish (ten seconds at most), then stops the engine.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // The server is gone already if nobody listens.
            let _: Result<(), ()> = stop.send(());
        }
        let ended = (&mut self.server).await.and((&mut self.engine).await);
        if let Err(error) = ended {
            tracing::warn!(addr = %self.addr, %error, "emulator ended badly");
        }
    }
}

impl Drop for RunningEmulator {
    fn drop(&mut self) {
        self.server.abort();
        self.engine.abort();
    }
}

async fn serve(listener: TcpListener, instance: Arc<Instance>, mut stopped: oneshot::Receiver<()>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, Arc::clone(&instance), &graceful);
                    connections.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    if timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("answers were cut off at shutdown");
    }
    connections.shutdown().await;
}

fn serve_connection(
    stream: TcpStream,
    instance: Arc<Instance>,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let service = service_fn(move |request| {
        let instance = Arc::clone(&instance);
        async move {
            let mut response = instance.answer(request).await;
            response
                .headers_mut()
                .insert(header::SERVER, HeaderValue::from_static("equipoise-emulator"));
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let watched = graceful.watch(connection);
    async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended");
        }
    }
}
