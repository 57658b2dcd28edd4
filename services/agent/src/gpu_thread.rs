//! The thread on which the driver is called: a sick board can hold a call for seconds, which no async task may wait for.

use crate::config::{AgentError, NvmlMode};
use crate::shared::Shared;
use equipoise_device::{DeviceError, GpuIdentity, GpuReading, GpuSource, Nvml};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Time that loading the driver may take: with persistence mode off it wakes every board.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that one round of readings may take before the agent goes on without it.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);

/// One reading of every GPU, in the order of [`GpuThread::gpus`].
pub(crate) type Round = Vec<Result<GpuReading, DeviceError>>;

/// The handle to the thread; dropping it ends the thread after the call it is in.
#[derive(Debug)]
pub(crate) struct GpuThread {
    gpus: Vec<GpuIdentity>,
    wanted: mpsc::Sender<oneshot::Sender<Round>>,
    /// The round that was asked for and has not come yet.
    pending: Option<oneshot::Receiver<Round>>,
}

impl GpuThread {
    /// Starts the thread and loads the driver on it; `None` if there is to be no GPU telemetry.
    pub(crate) async fn start(mode: NvmlMode, shared: Arc<Shared>) -> Result<Option<Self>, AgentError> {
        let (path, required) = match mode {
            NvmlMode::Off => return Ok(None),
            NvmlMode::Auto => (None, false),
            NvmlMode::Path(path) => (Some(path), true),
        };
        let (wanted, requests) = mpsc::channel(1);
        let (found, opened) = oneshot::channel();
        let body = move || match Nvml::open(path.as_deref()) {
            Ok(mut nvml) => {
                if found.send(Ok(nvml.gpus().to_vec())).is_ok() {
                    serve(&mut nvml, requests, &shared);
                }
            }
            Err(error) => {
                // Nobody listens only if the agent is gone already.
                drop(found.send(Err(error)));
            }
        };
        std::thread::Builder::new()
            .name("gpu-telemetry".to_owned())
            .spawn(body)
            .map_err(|error| AgentError::GpuThread(error.to_string()))?;
        match timeout(OPEN_TIMEOUT, opened).await {
            Ok(Ok(Ok(gpus))) => {
                tracing::info!(gpus = gpus.len(), "GPU telemetry is on");
                Ok(Some(Self {
                    gpus,
                    wanted,
                    pending: None,
                }))
            }
            Ok(Ok(Err(error))) if required => Err(error.into()),
            Ok(Ok(Err(error))) => {
                tracing::info!(%error, "no GPU telemetry");
                Ok(None)
            }
            Ok(Err(_)) => Err(AgentError::GpuThread("its thread ended".to_owned())),
            Err(_) if required => Err(AgentError::GpuThread(format!("not within {OPEN_TIMEOUT:?}"))),
            Err(_) => {
                tracing::warn!("the GPU driver did not load within {OPEN_TIMEOUT:?}: no GPU telemetry");
                Ok(None)
            }
        }
    }

    pub(crate) fn gpus(&self) -> &[GpuIdentity] {
        &self.gpus
    }

    /// Reads every GPU once. `None` if the driver is too slow now: its round is given to a later call, and until then
    /// no other is asked for.
    pub(crate) async fn round(&mut self) -> Option<Round> {
        let pending = match &mut self.pending {
            Some(pending) => pending,
            empty => {
                let (answer, pending) = oneshot::channel();
                // Full or closed: the thread is busy or gone.
                self.wanted.try_send(answer).ok()?;
                empty.insert(pending)
            }
        };
        let round = timeout(ROUND_TIMEOUT, pending).await.ok()?;
        self.pending = None;
        round.ok()
    }
}

fn serve(source: &mut dyn GpuSource, mut requests: mpsc::Receiver<oneshot::Sender<Round>>, shared: &Shared) {
    while let Some(answer) = requests.blocking_recv() {
        // Whoever asked may have gone since; then the agent has too.
        drop(answer.send(source.sample(&|| shared.clock.now())));
    }
}
