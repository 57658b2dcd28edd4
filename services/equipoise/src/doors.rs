//! A router's doors, from the fleet file and the command line.

use anyhow::Context as _;
use equipoise_config::{PiiSettings, TlsSettings};
use equipoise_router::{RouterConfig, RunningRouter};

use crate::cli::Doors;
use crate::terminal;

/// Tells a router who may see what.
pub(crate) fn set(
    config: &mut RouterConfig,
    options: &Doors,
    pii: Option<PiiSettings>,
    tls: Option<TlsSettings>,
) -> anyhow::Result<()> {
    config.admin_listen = match options.admin_listen.as_str() {
        "off" => None,
        addr => Some(addr.parse().with_context(|| {
            format!("--admin-listen: `{addr}` is no address such as 127.0.0.1:8081, and not `off`")
        })?),
    };
    config.public_metrics = options.public_metrics;
    config.pii = pii;
    config.tls = tls;
    Ok(())
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
