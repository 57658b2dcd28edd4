//! Agents: registration and telemetry.

use super::Services;
use crate::plane::{Plane, unix_ns};
use crate::validate;
use equipoise_proto::v1::agent_service_server::AgentService;
use equipoise_proto::v1::{
    DeregisterRequest, DeregisterResponse, RegisterRequest, RegisterResponse, TelemetryAck, TelemetryBatch,
};
use equipoise_store::LeaseId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Acknowledgements that an agent may leave unread.
const ACK_QUEUE: usize = 16;

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[tonic::async_trait]
impl AgentService for Services {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let request = request.into_inner();
        let wanted = Duration::from_millis(request.lease_ttl_ms.into());
        let agent = request.agent.clone();
        let (node, instances) = validate::registration(request)?;
        let lease = self.0.register(&node, &agent, &instances, wanted).await?;
        tracing::info!(node, instances = instances.len(), lease = %lease.id, "registered");
        Ok(Response::new(RegisterResponse {
            lease_id: lease.id.0,
            lease_ttl_ms: milliseconds(lease.ttl),
            telemetry_interval_ms: milliseconds(self.0.config.telemetry_interval),
        }))
    }

    type StreamTelemetryStream = ReceiverStream<Result<TelemetryAck, Status>>;

    async fn stream_telemetry(
        &self,
        request: Request<Streaming<TelemetryBatch>>,
    ) -> Result<Response<Self::StreamTelemetryStream>, Status> {
        let (acks, receiver) = mpsc::channel(ACK_QUEUE);
        tokio::spawn(take_batches(Arc::clone(&self.0), request.into_inner(), acks));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn deregister(&self, request: Request<DeregisterRequest>) -> Result<Response<DeregisterResponse>, Status> {
        self.0.deregister(LeaseId(request.into_inner().lease_id)).await?;
        Ok(Response::new(DeregisterResponse {}))
    }
}

/// Takes batches until the agent ends the stream, its lease is gone or this process shuts down.
async fn take_batches(
    plane: Arc<Plane>,
    mut batches: Streaming<TelemetryBatch>,
    acks: mpsc::Sender<Result<TelemetryAck, Status>>,
) {
    loop {
        let batch = tokio::select! {
            () = plane.shutdown.cancelled() => Err(Status::unavailable("the control plane is shutting down")),
            batch = batches.message() => batch,
        };
        let answer = match batch {
            Ok(None) => return,
            Ok(Some(batch)) => take_batch(&plane, batch).await,
            Err(status) => Err(status),
        };
        let ended = answer.is_err();
        if acks.send(answer).await.is_err() || ended {
            return;
        }
    }
}

async fn take_batch(plane: &Plane, batch: TelemetryBatch) -> Result<TelemetryAck, Status> {
    let lease = LeaseId(batch.lease_id);
    let node = plane.holder(lease).await?;
    let now = Instant::now();
    let mut metered = Vec::with_capacity(batch.energy.len());
    let mut turned = false;
    {
        let fleet = &mut plane.routing.lock().fleet;
        for sample in batch.engines {
            turned |= fleet.sampled_health(&sample.instance) != Some(sample.healthy);
            if !fleet.take_sample(&node, sample, now) {
                tracing::debug!(node, "left out a sample of an instance that the node does not have");
            }
        }
        for gpu in batch.gpus {
            fleet.take_gpu(&node, gpu);
        }
        for energy in batch.energy {
            if let Some(instance) = fleet
                .instance(&energy.instance)
                .filter(|instance| instance.node == node)
                .cloned()
            {
                fleet.take_energy(&energy, now);
                metered.push((instance, energy));
            } else {
                plane.metrics.rejected_energy.inc();
            }
        }
    }
    if turned {
        // Who is down or back must not wait for a tick.
        plane.changed.notify_one();
    }
    {
        let mut accounting = plane.accounting.lock();
        for (instance, energy) in &metered {
            accounting.take_energy(instance, energy, unix_ns());
        }
    }
    plane.metrics.telemetry_batches.inc();
    plane.renew(lease).await?;
    Ok(TelemetryAck {
        sequence: batch.sequence,
    })
}
