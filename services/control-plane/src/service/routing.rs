//! Routers: what they watch and what they publish.

use super::Services;
use crate::plane::unix_ns;
use crate::validate;
use equipoise_proto::v1::routing_service_server::RoutingService;
use equipoise_proto::v1::{LedgerReport, PublishLedgerResponse, RoutingUpdate, WatchRequest};
use std::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Routers' names that one stream may use: it speaks for one router.
fn same_router(expected: &mut Option<String>, router: &str) -> bool {
    expected.get_or_insert_with(|| router.to_owned()) == router
}

#[tonic::async_trait]
impl RoutingService for Services {
    type WatchStream = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<RoutingUpdate, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { router, instance } = request.into_inner();
        validate::name("router", &router)?;
        validate::process_id("instance", &instance)?;
        if self.0.shutdown.is_cancelled() {
            return Err(Status::unavailable("the control plane is shutting down"));
        }
        let updates = self.0.routing.lock().watch(router.clone(), instance, Instant::now());
        let Some(updates) = updates else {
            return Err(Status::already_exists(format!(
                "router {router:?} is watching already from another process: give this one its own name with --name, or \
                 stop the other"
            )));
        };
        tracing::info!(router, "watches");
        self.0.changed.notify_one();
        Ok(Response::new(Box::pin(ReceiverStream::new(updates).map(Ok))))
    }

    async fn publish_ledger(
        &self,
        request: Request<Streaming<LedgerReport>>,
    ) -> Result<Response<PublishLedgerResponse>, Status> {
        let mut reports = request.into_inner();
        let mut router = None;
        loop {
            let report = tokio::select! {
                () = self.0.shutdown.cancelled() => {
                    return Err(Status::unavailable("the control plane is shutting down"));
                }
                report = reports.message() => report?,
            };
            let Some(mut report) = report else {
                return Ok(Response::new(PublishLedgerResponse {}));
            };
            validate::name("router", &report.router)?;
            if !same_router(&mut router, &report.router) {
                return Err(Status::invalid_argument("router: one stream speaks for one router"));
            }
            let pushed = report.in_flight_only;
            if !pushed {
                let activity = std::mem::take(&mut report.activity);
                self.0
                    .accounting
                    .lock()
                    .take_activity(&report.router, activity, report.unix_ns, unix_ns());
            }
            self.0.routing.lock().take_ledger(report, Instant::now());
            if pushed {
                // The other routers decide on it now, not at the next tick.
                self.0.changed.notify_one();
            }
        }
    }
}
