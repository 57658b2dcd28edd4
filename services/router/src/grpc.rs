//! The router's own gRPC listener, where one is asked for.

use std::sync::Arc;
use std::time::Duration;

use equipoise_proto::v1::feedback_service_server::FeedbackServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;

use crate::feedback::Feedback;
use crate::server::{State, asked_to_stop};

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A piece of feedback is a name and a number.
const LIMIT_MESSAGE_BYTES: usize = 64 << 10;

/// Serves until asked to stop.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, mut stopping: watch::Receiver<bool>) {
    let feedback = FeedbackServiceServer::new(Feedback(state)).max_decoding_message_size(LIMIT_MESSAGE_BYTES);
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .timeout(REQUEST_TIMEOUT)
        .add_service(feedback)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            asked_to_stop(&mut stopping).await;
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}
