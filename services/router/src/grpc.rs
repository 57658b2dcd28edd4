//! The router's own gRPC listener, where one is asked for.

use std::sync::Arc;
use std::time::Duration;

use equipoise_proto::ext_proc::external_processor_server::ExternalProcessorServer;
use equipoise_proto::health::health_server::HealthServer;
use equipoise_proto::v1::feedback_service_server::FeedbackServiceServer;
use equipoise_proto::v1::route_service_server::RouteServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;

use crate::ext_proc::ExtProc;
use crate::feedback::Feedback;
use crate::grpc_health::GrpcHealth;
use crate::route::{OpenPicks, Route};
use crate::server::{State, asked_to_stop};
use crate::tls::{Certificates, HANDSHAKE_TIMEOUT};

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// What a call may take beyond the time that a request may wait at the router. Of a stream it bounds the opening.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A piece of feedback is a name and a number.
const LIMIT_FEEDBACK_BYTES: usize = 64 << 10;
/// Handshakes at a time: gateways keep their connections.
const MOST_HANDSHAKES: usize = 64;
/// What may be around a body in its message.
const AROUND_BODY_BYTES: usize = 256 << 10;

/// Serves until asked to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Certificates>>,
    state: Arc<State>,
    mut stopping: watch::Receiver<bool>,
) {
    let longest_wait_s = state
        .driver
        .with_scheduler(|scheduler| scheduler.config().queue_timeout_s);
    let longest_wait = Duration::try_from_secs_f64(longest_wait_s).unwrap_or_default();
    let limit = state.max_body_bytes.saturating_add(AROUND_BODY_BYTES);
    let feedback = FeedbackServiceServer::new(Feedback(Arc::clone(&state)));
    let open = Arc::new(OpenPicks::default());
    let route = RouteServiceServer::new(Route::new(Arc::clone(&state), Arc::clone(&open)));
    let ext_proc = ExternalProcessorServer::new(ExtProc(Arc::clone(&state)));
    let health = HealthServer::new(GrpcHealth::new(Arc::clone(&state), stopping.clone()));
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .timeout(longest_wait.saturating_add(ANSWER_TIMEOUT))
        .add_service(feedback.max_decoding_message_size(LIMIT_FEEDBACK_BYTES))
        .add_service(route.max_decoding_message_size(limit))
        .add_service(ext_proc.max_decoding_message_size(limit))
        .add_service(health);
    let stop = async move { asked_to_stop(&mut stopping).await };
    let served = async {
        match tls {
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                router.serve_with_incoming_shutdown(incoming, stop).await
            }
            Some(tls) => {
                let incoming = ReceiverStream::new(secured(listener, tls));
                router.serve_with_incoming_shutdown(incoming, stop).await
            }
        }
    };
    let served = tokio::select! {
        served = served => served,
        () = open.keep_time(state) => return,
    };
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}

/// Connections whose handshake is done, whichever is first: who is slow at it delays nobody. Ends with its receiver.
fn secured(listener: TcpListener, tls: Arc<Certificates>) -> mpsc::Receiver<std::io::Result<TlsStream<TcpStream>>> {
    let (done, incoming) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = done.closed() => return,
            };
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!("nodelay: {error}");
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (done, acceptor) = (done.clone(), tls.acceptor());
            tokio::spawn(async move {
                let _place = place;
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
                    // Nobody takes it where the server has ended.
                    Ok(Ok(secured)) => drop(done.send(Ok(secured)).await),
                    Ok(Err(error)) => tracing::debug!("no TLS came about: {error}"),
                    Err(_) => tracing::debug!("no TLS came about within {HANDSHAKE_TIMEOUT:?}"),
                }
            });
        }
    });
    incoming
}
