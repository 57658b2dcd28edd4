//! The agent's side of the conversation with the control plane: connect, register, stream, and again for ever.

use crate::backoff::Backoff;
use crate::complaint::Complaint;
use crate::shared::Shared;
use equipoise_proto::v1::agent_service_client::AgentServiceClient;
use equipoise_proto::v1::{
    DeregisterRequest, EnergySample, Instance, RegisterRequest, RegisterResponse, TelemetryAck, TelemetryBatch,
};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Time that connecting, registering, opening the stream and giving the lease back may take, each.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A control plane that acknowledges nothing for so long is taken for gone.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Batches sent and not yet acknowledged.
const IN_FLIGHT: usize = 32;
/// Time that the last batches have to be acknowledged when the agent stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug)]
enum End {
    Stopped,
    /// The node has other instances now.
    Changed,
    Failed(String),
    /// Trying again will not help before somebody mends something; the control plane's own words.
    Refused(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::Failed("the lease is gone".to_owned()),
            Code::InvalidArgument | Code::AlreadyExists => Self::Refused(status.message().to_owned()),
            Code::Unimplemented => Self::Refused(format!(
                "what answers there is no Equipoise control plane; is it the router's or the page's port? ({})",
                status.message()
            )),
            code => Self::Failed(format!("{code:?}: {}", status.message())),
        }
    }
}

/// The conversation with the control plane.
#[derive(Debug)]
pub(crate) struct Session {
    endpoint: Endpoint,
    node: String,
    /// Tells this process from another that was given the same node name.
    agent: String,
    instances: watch::Receiver<Vec<Instance>>,
    lease_ttl: Duration,
    backoff: Backoff,
    shared: Arc<Shared>,
}

impl Session {
    pub(crate) fn new(
        endpoint: Endpoint,
        node: String,
        instances: watch::Receiver<Vec<Instance>>,
        lease_ttl: Duration,
        backoff: Backoff,
        shared: Arc<Shared>,
    ) -> Self {
        let endpoint = endpoint
            .connect_timeout(CALL_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(ACK_TIMEOUT)
            .keep_alive_timeout(CALL_TIMEOUT);
        Self {
            endpoint,
            node,
            // Keyed from the system's randomness anew.
            agent: format!("{:016x}", RandomState::new().build_hasher().finish()),
            instances,
            lease_ttl,
            backoff,
            shared,
        }
    }

    /// Talks until the agent stops; then gives the lease back.
    pub(crate) async fn run(mut self) {
        let mut complaint = Complaint::default();
        loop {
            let shared = Arc::clone(&self.shared);
            let registered = tokio::select! {
                biased;
                () = shared.stopped() => return,
                registered = self.register() => registered,
            };
            let end = match registered {
                Ok((client, lease)) => {
                    let end = self.stream(client.clone(), &lease).await;
                    shared.metrics.connected.set(0);
                    complaint.settle();
                    match end {
                        End::Stopped => return deregister(client, lease.lease_id).await,
                        // The new registration takes the old one's place.
                        End::Changed => continue,
                        end => end,
                    }
                }
                Err(end) => end,
            };
            let wait = self.backoff.next();
            self.complain(&mut complaint, &end);
            tokio::select! {
                biased;
                () = shared.stopped() => return,
                () = sleep(wait) => {}
            }
        }
    }

    fn complain(&self, complaint: &mut Complaint, end: &End) {
        match end {
            End::Stopped | End::Changed => {}
            End::Failed(reason) if complaint.is_new(reason, Instant::now()) => {
                tracing::warn!(reason, "no control plane; measuring goes on and energy is kept");
            }
            End::Refused(reason) if complaint.is_due(reason, Instant::now()) => tracing::error!(
                reason,
                node = self.node,
                control = %self.endpoint.uri(),
                "the control plane refuses this agent: its instances get no requests until this is mended"
            ),
            // Once a second for as long as it lasts would say nothing new.
            End::Failed(reason) | End::Refused(reason) => tracing::debug!(reason, "still so"),
        }
    }

    async fn register(&mut self) -> Result<(AgentServiceClient<Channel>, RegisterResponse), End> {
        let channel = within("connecting", self.endpoint.connect())
            .await?
            .map_err(|error| End::Failed(format!("cannot connect to {}: {}", self.endpoint.uri(), chain(&error))))?;
        let mut client = AgentServiceClient::new(channel);
        let instances = self.instances.borrow_and_update().clone();
        let count = instances.len();
        let request = RegisterRequest {
            node: self.node.clone(),
            instances,
            lease_ttl_ms: u32::try_from(self.lease_ttl.as_millis()).unwrap_or(u32::MAX),
            agent: self.agent.clone(),
        };
        let lease = within("registering", client.register(request)).await??.into_inner();
        self.shared.metrics.registrations.inc();
        if lease.telemetry_interval_ms > 0 {
            self.shared
                .set_interval(Duration::from_millis(lease.telemetry_interval_ms.into()));
        }
        tracing::info!(
            node = self.node,
            // In the control plane's notation, so that the two logs can be held together.
            lease = format_args!("{:x}", lease.lease_id),
            instances = count,
            "registered"
        );
        Ok((client, lease))
    }

    /// Streams until something ends it. Energy that was not acknowledged goes back to the outbox.
    async fn stream(&mut self, mut client: AgentServiceClient<Channel>, lease: &RegisterResponse) -> End {
        let shared = Arc::clone(&self.shared);
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let mut sent = Sent::new(lease.lease_id, sender);
        // The first batch goes before the stream is open, for the other side may wait for it.
        sent.send(shared.outbox.lock().take());
        let opened = within(
            "opening the stream",
            client.stream_telemetry(ReceiverStream::new(receiver)),
        )
        .await;
        let end = match opened.and_then(|opened| opened.map_err(End::from)) {
            Ok(acks) => self.converse(&mut sent, acks.into_inner()).await,
            Err(end) => end,
        };
        shared.outbox.lock().send_again(sent.unacknowledged());
        end
    }

    async fn converse(&mut self, sent: &mut Sent, mut acks: Streaming<TelemetryAck>) -> End {
        let shared = Arc::clone(&self.shared);
        // A little after the sampling ticks, so that a batch carries what was sampled just now.
        let phase = shared.interval() / 8;
        let mut due = shared.next_tick(phase);
        loop {
            let silent_since = sent.silent_since();
            tokio::select! {
                ack = acks.message() => match ack {
                    Ok(Some(ack)) => {
                        let fresh = sent.acknowledge(ack.sequence);
                        shared.metrics.batches.inc_by(fresh);
                        shared.metrics.connected.set(1);
                        self.backoff.reset();
                    }
                    Ok(None) => return End::Failed("the control plane ended the stream".to_owned()),
                    Err(status) => return status.into(),
                },
                () = sleep_until(silent_since + ACK_TIMEOUT), if sent.awaits_ack() => {
                    return End::Failed(format!("no acknowledgement for {ACK_TIMEOUT:?}"));
                }
                () = sleep_until(due) => {
                    if sent.has_room() {
                        sent.send(shared.outbox.lock().take());
                    }
                    due = shared.next_tick(phase);
                }
                () = shared.news.notified(), if sent.has_room() => sent.send(shared.outbox.lock().take()),
                // The sender goes with the agent; then the session is stopped, too.
                Ok(()) = self.instances.changed() => return End::Changed,
                () = shared.stopped() => return farewell(sent, acks, &shared).await,
            }
        }
    }
}

/// Sends what is left and waits a moment for the acknowledgements.
async fn farewell(sent: &mut Sent, mut acks: Streaming<TelemetryAck>, shared: &Shared) -> End {
    let last_words = async {
        loop {
            while sent.has_room() && !shared.outbox.lock().is_drained() {
                sent.send(shared.outbox.lock().take());
            }
            if !sent.awaits_ack() {
                return;
            }
            let Ok(Some(ack)) = acks.message().await else { return };
            let fresh = sent.acknowledge(ack.sequence);
            shared.metrics.batches.inc_by(fresh);
        }
    };
    if timeout(FAREWELL, last_words).await.is_err() {
        tracing::warn!("the control plane did not acknowledge the last batches in time");
    }
    End::Stopped
}

async fn deregister(mut client: AgentServiceClient<Channel>, lease_id: u64) {
    match within(
        "giving the lease back",
        client.deregister(DeregisterRequest { lease_id }),
    )
    .await
    {
        Ok(Ok(_)) => tracing::info!("deregistered"),
        Ok(Err(status)) => tracing::warn!(%status, "the lease was not given back; it ends by itself"),
        Err(_) => tracing::warn!("giving the lease back took too long; it ends by itself"),
    }
}

/// The batches of one stream: numbers them and keeps their energy until it is acknowledged.
#[derive(Debug)]
struct Sent {
    lease_id: u64,
    sequence: u64,
    sender: mpsc::Sender<TelemetryBatch>,
    waiting: VecDeque<(u64, Vec<EnergySample>)>,
    silent_since: Instant,
}

impl Sent {
    fn new(lease_id: u64, sender: mpsc::Sender<TelemetryBatch>) -> Self {
        Self {
            lease_id,
            sequence: 0,
            sender,
            waiting: VecDeque::new(),
            silent_since: Instant::now(),
        }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < IN_FLIGHT
    }

    fn awaits_ack(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn silent_since(&self) -> Instant {
        self.silent_since
    }

    fn send(&mut self, mut batch: TelemetryBatch) {
        if self.waiting.is_empty() {
            self.silent_since = Instant::now();
        }
        self.sequence += 1;
        self.waiting.push_back((self.sequence, batch.energy.clone()));
        batch.lease_id = self.lease_id;
        batch.sequence = self.sequence;
        // The channel holds as many as may wait. If the stream is gone, its end tells; the energy is kept in any case.
        if let Err(error) = self.sender.try_send(batch) {
            tracing::debug!(%error, "the stream does not take a batch");
        }
    }

    /// Forgets what is acknowledged and says how many batches that was.
    fn acknowledge(&mut self, sequence: u64) -> u64 {
        let before = self.waiting.len();
        self.waiting.retain(|&(number, _)| number > sequence);
        self.silent_since = Instant::now();
        (before - self.waiting.len()) as u64
    }

    fn unacknowledged(&mut self) -> impl DoubleEndedIterator<Item = EnergySample> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .flat_map(|(_, energy)| energy)
    }
}

async fn within<T>(what: &str, call: impl Future<Output = T>) -> Result<T, End> {
    timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| End::Failed(format!("{what} took longer than {CALL_TIMEOUT:?}")))
}

/// The error and its causes on one line: a transport error alone says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
