//! The gRPC health checking protocol, with the service names that the endpoint picker protocol asks for.

use std::sync::Arc;
use std::time::Duration;

use equipoise_proto::health::health_check_response::ServingStatus;
use equipoise_proto::health::health_server::Health;
use equipoise_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::server::State;

/// How late a watcher hears of a change.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The service.
pub(crate) struct GrpcHealth(pub(crate) Arc<State>);

/// `None` for a service that is not here.
fn status(state: &State, service: &str) -> Option<ServingStatus> {
    match service {
        // The process answers: that is all there is to being alive.
        "liveness" => Some(ServingStatus::Serving),
        "" | "readiness" | "envoy.service.ext_proc.v3.ExternalProcessor" | "equipoise.v1.RouteService" => {
            let knows_fleet = state
                .driver
                .with_scheduler(|scheduler| scheduler.fleet().iter().any(|instance| instance.present));
            Some(if knows_fleet {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            })
        }
        _ => None,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for GrpcHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status(&self.0, &service) {
            Some(status) => Ok(Response::new(response(status))),
            None => Err(Status::not_found(format!("there is no service `{service}` here"))),
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let state = Arc::clone(&self.0);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut said = None;
            loop {
                let now = status(&state, &service).unwrap_or(ServingStatus::ServiceUnknown);
                if said.replace(now) != Some(now) && sender.send(Ok(response(now))).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(WATCH_INTERVAL) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
