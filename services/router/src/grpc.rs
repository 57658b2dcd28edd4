//! The router's own gRPC listener, where one is asked for.

use std::sync::Arc;
use std::time::Duration;

use equipoise_proto::ext_proc::external_processor_server::ExternalProcessorServer;
use equipoise_proto::health::health_server::HealthServer;
use equipoise_proto::v1::feedback_service_server::FeedbackServiceServer;
use equipoise_proto::v1::route_service_server::RouteServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;

use crate::ext_proc::ExtProc;
use crate::feedback::Feedback;
use crate::grpc_health::GrpcHealth;
use crate::route::{OpenPicks, Route};
use crate::server::{State, asked_to_stop};

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What a call may take beyond the time that a request may wait at the router. Of a stream it bounds the opening.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A piece of feedback is a name and a number.
const LIMIT_FEEDBACK_BYTES: usize = 64 << 10;
/// What may be around a body in its message.
const AROUND_BODY_BYTES: usize = 256 << 10;

/// Serves until asked to stop.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, mut stopping: watch::Receiver<bool>) {
    let longest_wait_s = state
        .driver
        .with_scheduler(|scheduler| scheduler.config().queue_timeout_s);
    let longest_wait = Duration::try_from_secs_f64(longest_wait_s).unwrap_or_default();
    let limit = state.max_body_bytes.saturating_add(AROUND_BODY_BYTES);
    let feedback = FeedbackServiceServer::new(Feedback(Arc::clone(&state)));
    let open = Arc::new(OpenPicks::default());
    let route = RouteServiceServer::new(Route::new(Arc::clone(&state), Arc::clone(&open)));
    let ext_proc = ExternalProcessorServer::new(ExtProc(Arc::clone(&state)));
    let health = HealthServer::new(GrpcHealth(Arc::clone(&state)));
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .timeout(longest_wait.saturating_add(ANSWER_TIMEOUT))
        .add_service(feedback.max_decoding_message_size(LIMIT_FEEDBACK_BYTES))
        .add_service(route.max_decoding_message_size(limit))
        .add_service(ext_proc.max_decoding_message_size(limit))
        .add_service(health)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            asked_to_stop(&mut stopping).await;
        });
    let served = tokio::select! {
        served = served => served,
        () = open.keep_time(state) => return,
    };
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}
