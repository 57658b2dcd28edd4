//! `equipoise control-plane`.

use anyhow::Context as _;
use equipoise_control_plane::{ControlPlane, ControlPlaneConfig, RunningControlPlane};

use equipoise_store::SharedStore;

use crate::{cli, signal, terminal};

pub(crate) async fn run(options: cli::ControlPlane) -> anyhow::Result<()> {
    let page_addr = match options.page_listen.as_str() {
        "off" => None,
        addr => Some(
            addr.parse()
                .with_context(|| format!("--page-listen `{addr}` is not an address; write 127.0.0.1:8091, or `off`"))?,
        ),
    };
    let config = ControlPlaneConfig {
        name: options.name,
        grpc_addr: options.listen,
        page_addr,
        ..ControlPlaneConfig::default()
    };
    let store = equipoise_store::open(&options.store).await?;
    let plane = ControlPlane::start(config, store.clone()).await?;
    terminal::complain(&format!(
        "control plane: gRPC on {}, state in {}",
        plane.grpc_addr(),
        options.store
    ));
    if let Some(page) = plane.page_addr() {
        terminal::complain(&format!("fleet page:    http://{page}/"));
    }
    signal::then(stop(plane, store)).await;
    Ok(())
}

/// Stops the control plane and closes its store; what the store refuses at the last moment is said.
pub(crate) async fn stop(plane: RunningControlPlane, store: SharedStore) {
    if let Err(error) = plane.shutdown().await {
        terminal::complain(&format!("warning: the last energy rows are not in the store: {error}"));
    }
    if let Err(error) = store.close().await {
        terminal::complain(&format!("warning: the store did not close well: {error}"));
    }
}
