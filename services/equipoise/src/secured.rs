//! TLS between the services and towards engines, from files in PEM.

use std::path::Path;

use anyhow::Context as _;
use equipoise_backend::{EngineTls, EngineTlsFiles};
use equipoise_config::{EngineTlsSettings, TlsSettings};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::cli::ControlTls;

/// How engines are spoken to; nothing where the file says nothing.
pub(crate) fn engines(settings: Option<&EngineTlsSettings>) -> anyhow::Result<Option<EngineTls>> {
    let load = |settings: &EngineTlsSettings| {
        EngineTls::load(&EngineTlsFiles {
            ca: settings.ca.clone(),
            cert: settings.cert.clone(),
            key: settings.key.clone(),
        })
    };
    settings.map(load).transpose().context("[engine_tls]")
}

/// How a control plane at this address is spoken to.
pub(crate) fn control(address: &str, options: &ControlTls) -> anyhow::Result<Option<ClientTlsConfig>> {
    if !address.starts_with("https://") {
        return Ok(None);
    }
    let Some(ca) = &options.control_ca else {
        anyhow::bail!("--control `{address}` speaks TLS: say with --control-ca whose certificates are believed");
    };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    match (&options.control_cert, &options.control_key) {
        (None, None) => {}
        (Some(cert), Some(key)) => config = config.identity(Identity::from_pem(read(cert)?, read(key)?)),
        _ => anyhow::bail!("a certificate for the control plane needs both --control-cert and --control-key"),
    }
    Ok(Some(config))
}

/// How a control plane answers.
pub(crate) fn control_plane(settings: &TlsSettings) -> anyhow::Result<ServerTlsConfig> {
    let identity = Identity::from_pem(read(&settings.cert)?, read(&settings.key)?);
    let config = ServerTlsConfig::new().identity(identity);
    Ok(match &settings.client_ca {
        None => config,
        Some(ca) => config.client_ca_root(Certificate::from_pem(read(ca)?)),
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
