//! `equipoise control-plane`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use equipoise_control_plane::{ControlPlane, ControlPlaneConfig, RunningControlPlane};

use equipoise_store::SharedStore;

use crate::doors::address_or_off;
use crate::{cli, scheduling, secured, signal, terminal};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8090);
const PAGE_LISTEN: &str = "127.0.0.1:8091";
const STORE: &str = "embedded";
const NAME: &str = "control-plane";

pub(crate) async fn run(options: cli::ControlPlane) -> anyhow::Result<()> {
    let section = scheduling::config(options.config.as_deref())?.services.control_plane;
    let page_listen = options.page_listen.or(section.page_listen);
    let page_addr = address_or_off("--page-listen", page_listen.as_deref().unwrap_or(PAGE_LISTEN))?;
    let config = ControlPlaneConfig {
        name: options.name.or(section.name).unwrap_or(NAME.to_owned()),
        grpc_addr: options
            .listen
            .or(section.listen.map(|listen| listen.0))
            .unwrap_or(LISTEN),
        page_addr,
        tls: section.tls.as_ref().map(secured::control_plane).transpose()?,
        ..ControlPlaneConfig::default()
    };
    let store_url = options.store.or(section.store).unwrap_or(STORE.to_owned());
    let store = equipoise_store::open(&store_url).await?;
    let plane = ControlPlane::start(config, store.clone()).await?;
    terminal::complain(&format!(
        "control plane: gRPC on {}, state in {}",
        plane.grpc_addr(),
        store_url
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
