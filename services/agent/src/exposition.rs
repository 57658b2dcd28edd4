//! The agent's own metrics over HTTP, for whoever scrapes them: `/metrics` and `/health`.

use crate::config::AgentError;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use equipoise_telemetry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// A listener on `address` and where it is (port 0 takes any free one).
pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AgentError> {
    let failed = |source| AgentError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, registry: Registry) {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .with_state(Arc::new(registry));
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the agent's metrics are served no more");
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Result<Response, (StatusCode, String)> {
    let text = equipoise_telemetry::exposition(&registry)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))?;
    let kind = [(header::CONTENT_TYPE, equipoise_telemetry::EXPOSITION_CONTENT_TYPE)];
    Ok((kind, text).into_response())
}
