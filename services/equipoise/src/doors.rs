//! A router's doors, from the fleet file and the command line.

use std::net::SocketAddr;

use anyhow::Context as _;
use equipoise_config::FleetConfig;
use equipoise_router::{RouterConfig, RunningRouter};

use crate::cli::Doors;
use crate::{secured, terminal};

/// Tells a router who may see what.
pub(crate) fn set(config: &mut RouterConfig, options: &Doors, fleet: &FleetConfig) -> anyhow::Result<()> {
    config.admin_listen = address_or_off("--admin-listen", &options.admin_listen)?;
    config.public_metrics = options.public_metrics;
    config.pii.clone_from(&fleet.pii);
    config.tls.clone_from(&fleet.tls);
    config.grpc_tls.clone_from(&fleet.grpc_tls);
    config.engine_tls = secured::engines(fleet.engine_tls.as_ref())?;
    Ok(())
}

/// `ip:port`, or `off`.
pub(crate) fn address_or_off(option: &str, text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    let address = text.parse();
    address
        .map(Some)
        .with_context(|| format!("{option}: `{text}` is no address such as 127.0.0.1:8081, and not `off`"))
}

/// The public listener's scheme.
pub(crate) fn scheme(config: &RouterConfig) -> &'static str {
    if config.tls.is_some() { "https" } else { "http" }
}

/// Says where operators look.
pub(crate) fn announce(router: &RunningRouter) {
    if let Some(admin) = router.admin_addr() {
        terminal::complain(&format!("router: admin http://{admin}/metrics"));
    }
}
