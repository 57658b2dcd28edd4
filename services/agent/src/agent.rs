//! Starting and stopping an agent.

use crate::backoff::Backoff;
use crate::config::{AgentConfig, AgentError};
use crate::exposition;
use crate::replacement::Watches;
use crate::session::Session;
use crate::shared::Shared;
use equipoise_backend::{EngineClient, EngineClientConfig, EngineTls};
use equipoise_proto::v1::Instance;
use equipoise_telemetry::{AgentMetrics, Registry};
use equipoise_types::RandomStream;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{ClientTlsConfig, Endpoint};

/// The node agent.
#[derive(Debug)]
pub struct Agent;

/// An agent that runs until [`RunningAgent::shutdown`]. Dropping it stops it at once, as a crash would: the lease then
/// ends by itself.
#[derive(Debug)]
pub struct RunningAgent {
    shared: Arc<Shared>,
    node: String,
    watches: Watches,
    registered: watch::Sender<Vec<Instance>>,
    tasks: JoinSet<()>,
    session: JoinSet<()>,
    /// Serves the metrics as long as the agent lives.
    exposition: JoinSet<()>,
    metrics_addr: Option<SocketAddr>,
}

impl Agent {
    /// Starts an agent. It returns once the GPU driver is loaded or found absent; the control plane and the engines need
    /// not be there yet.
    ///
    /// # Errors
    /// [`AgentError`] if the configuration cannot work, the metrics' port is taken, or the NVML library that it names cannot
    /// be loaded.
    pub async fn start(config: AgentConfig) -> Result<RunningAgent, AgentError> {
        config.check()?;
        let AgentConfig {
            control,
            node,
            mut instances,
            telemetry_interval,
            nvml,
            engine_tls,
            control_tls,
            lease_ttl,
            metrics_addr,
        } = config;
        let endpoint = control_endpoint(control, control_tls)?;
        let exposed = match metrics_addr {
            Some(address) => Some(exposition::listen(address).await?),
            None => None,
        };
        let mut registry = Registry::default();
        let shared = Arc::new(Shared::new(telemetry_interval, AgentMetrics::new(&mut registry)));
        for instance in &mut instances {
            instance.node.clone_from(&node);
        }
        let mut tasks = JoinSet::new();
        let mut watches = Watches::new(nvml, engine_tls);
        watches.set(&instances, &mut tasks, &shared).await?;
        let (registered, registrations) = watch::channel(instances);
        let backoff = Backoff::new(RandomStream::new(0).derive("reconnect").derive(&node));
        let mut session = JoinSet::new();
        let talking = Session::new(
            endpoint,
            node.clone(),
            registrations,
            lease_ttl,
            backoff,
            Arc::clone(&shared),
        );
        session.spawn(talking.run());
        let mut exposition = JoinSet::new();
        let metrics_addr = exposed.map(|(listener, address)| {
            exposition.spawn(exposition::serve(listener, registry));
            tracing::info!(%address, "serving metrics");
            address
        });
        Ok(RunningAgent {
            shared,
            node,
            watches,
            registered,
            tasks,
            session,
            exposition,
            metrics_addr,
        })
    }
}

fn control_endpoint(control: String, tls: Option<ClientTlsConfig>) -> Result<Endpoint, AgentError> {
    let reason = match Endpoint::from_shared(control.clone()) {
        Ok(endpoint) if endpoint.uri().scheme_str() == Some("http") => return Ok(endpoint),
        Ok(endpoint) if endpoint.uri().scheme_str() == Some("https") => match tls.map(|tls| endpoint.tls_config(tls)) {
            Some(Ok(endpoint)) => return Ok(endpoint),
            Some(Err(error)) => error.to_string(),
            None => "it speaks TLS, and it is not said whose certificates are believed".to_owned(),
        },
        Ok(_) => "it must begin with http:// or https://".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(AgentError::Control { control, reason })
}

pub(crate) fn engine_client(instance: &Instance, tls: Option<&EngineTls>) -> Result<EngineClient, AgentError> {
    let config = EngineClientConfig {
        tls: tls.cloned(),
        ..EngineClientConfig::default()
    };
    EngineClient::new(&instance.endpoint, config).map_err(|source| AgentError::Endpoint {
        instance: instance.name.clone(),
        source,
    })
}

impl RunningAgent {
    /// Where `/metrics` and `/health` are served, if they are.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Serves these instances from now on. The node registers again with them, in one step: who stays is never away. An
    /// engine that is left out is not touched; what runs there may end.
    ///
    /// # Errors
    /// As of [`Agent::start`]; then nothing has changed.
    pub async fn replace_instances(&mut self, mut instances: Vec<Instance>) -> Result<(), AgentError> {
        for instance in &mut instances {
            instance.node.clone_from(&self.node);
        }
        self.watches.set(&instances, &mut self.tasks, &self.shared).await?;
        // What is watched no longer has ended its task, which is not of interest.
        while self.tasks.try_join_next().is_some() {}
        self.registered.send_replace(instances);
        Ok(())
    }

    /// Stops: sends what was measured, gives the lease back, and returns when all has ended (a few seconds at most).
    pub async fn shutdown(mut self) {
        // Samplers first: what they are at goes out with the last batches.
        self.shared.drain();
        join(&mut self.tasks).await;
        self.shared.stop();
        join(&mut self.session).await;
        self.exposition.shutdown().await;
        if !self.shared.outbox.lock().is_drained() {
            tracing::warn!("stopped without a control plane: energy that was measured meanwhile is not accounted");
        }
    }
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && !error.is_cancelled()
        {
            tracing::error!(%error, "a task of the agent failed");
        }
    }
}
