//! TLS towards engines: whose certificates are believed, and what is shown of oneself.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pem::{PemError, certificates, private_key};

/// Where systems keep the authorities that they believe: Debian, Fedora, Alpine and openSUSE, in this order.
const SYSTEM_AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];
/// Names another file in their place, as OpenSSL and curl understand it.
const AUTHORITIES_VARIABLE: &str = "SSL_CERT_FILE";

/// Files in PEM; all of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineTlsFiles {
    /// The authorities of engines' certificates; absent: those of the system.
    pub ca: Option<PathBuf>,
    /// A certificate that is shown to engines that ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineTlsError {
    /// One cannot be read, or holds something else.
    #[error("TLS to engines: {0}")]
    File(PemError),
    /// The system has no file of authorities where systems have it.
    #[error(
        "TLS to engines: this system has no authorities in {}; name a file with `ca` or {AUTHORITIES_VARIABLE}",
        SYSTEM_AUTHORITIES.join(", ")
    )]
    NoAuthorities,
    /// A certificate without a key, or a key without a certificate.
    #[error("TLS to engines: a client certificate needs both `cert` and `key`")]
    Half,
    /// Certificate and key do not go together.
    #[error("TLS to engines: the client certificate cannot be shown: {0}")]
    Pair(#[from] rustls::Error),
}

/// How a client speaks TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineTls(Arc<ClientConfig>);

impl EngineTls {
    /// Reads the files; they are not looked at again.
    ///
    /// # Errors
    /// [`EngineTlsError`], with the file's name.
    pub fn load(files: &EngineTlsFiles) -> Result<Self, EngineTlsError> {
        let authorities = match &files.ca {
            Some(path) => path.clone(),
            None => system_authorities().ok_or(EngineTlsError::NoAuthorities)?,
        };
        let mut roots = RootCertStore::empty();
        // A system's collection may hold some that are of no use here.
        if roots
            .add_parsable_certificates(certificates(&authorities).map_err(EngineTlsError::File)?)
            .0
            == 0
        {
            return Err(EngineTlsError::File(PemError {
                path: authorities,
                what: "authority's certificate",
                reason: "none of them can be used".to_owned(),
            }));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match (&files.cert, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let key = private_key(key).map_err(EngineTlsError::File)?;
                let chain = certificates(cert).map_err(EngineTlsError::File)?;
                builder.with_client_auth_cert(chain, key)?
            }
            _ => return Err(EngineTlsError::Half),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with `host`, whose certificate must be for that name or address.
    pub(crate) async fn secure(&self, host: &str, socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, socket).await
    }
}

fn system_authorities() -> Option<PathBuf> {
    let named = std::env::var_os(AUTHORITIES_VARIABLE).map(PathBuf::from);
    named.or_else(|| {
        let usual = SYSTEM_AUTHORITIES.iter().map(PathBuf::from);
        usual.into_iter().find(|path| path.is_file())
    })
}
