//! The fleet page: one self-contained HTML file, and the JSON it polls.

mod api;

use crate::plane::Plane;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::TcpListener;

const PAGE: &str = include_str!("page/fleet.html");

/// The page may run its own script and style, fetch from its own server, and nothing else.
const POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// Serves until shutdown.
pub(crate) async fn serve(plane: Arc<Plane>, listener: TcpListener) {
    let shutdown = plane.shutdown.clone();
    let app = Router::new()
        .route("/", get(page))
        .route("/api/fleet", get(fleet))
        .route("/api/energy", get(energy))
        .route("/health", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .with_state(plane);
    if let Err(error) = axum::serve(listener, app)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
    {
        tracing::error!(%error, "the page server ended");
    }
}

async fn page() -> Response {
    let mut response = Html(PAGE).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

async fn fleet(State(plane): State<Arc<Plane>>) -> Response {
    let body = api::fleet(&plane);
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn energy(
    State(plane): State<Arc<Plane>>,
    Query(parameters): Query<BTreeMap<String, String>>,
) -> Result<Response, (StatusCode, String)> {
    let by = parameters.get("by").map_or("pool", String::as_str);
    let grouping = crate::accounting::grouping_named(by).ok_or_else(|| {
        (
            StatusCode::BAD_REQUEST,
            format!("by={by:?} is not known: use pool, model, gpu or tenant\n"),
        )
    })?;
    let report = crate::accounting::report(&plane, grouping, 0, 0)
        .await
        .map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")))?;
    Ok((
        [(header::CACHE_CONTROL, "no-store")],
        Json(api::EnergyBody::from(&report)),
    )
        .into_response())
}

async fn metrics(State(plane): State<Arc<Plane>>) -> Result<Response, (StatusCode, String)> {
    let text = equipoise_telemetry::exposition(&plane.registry)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))?;
    Ok((
        [(header::CONTENT_TYPE, equipoise_telemetry::EXPOSITION_CONTENT_TYPE)],
        text,
    )
        .into_response())
}
