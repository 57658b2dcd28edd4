//! TLS for a listener: certificates from files, client certificates where asked for, and both taken over again when
//! the files change. A file that is bad then changes nothing: what was read before stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use equipoise_backend::pem::{PemError, certificates, private_key};
use equipoise_config::TlsSettings;
use parking_lot::{Mutex, RwLock};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Longest handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("[tls]: {0}")]
    File(PemError),
    /// They do not go together.
    #[error("[tls]: the certificate {path} cannot be served: {reason}")]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// What tells that a file has changed.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// The certificates that are served now.
pub(crate) struct Certificates {
    settings: TlsSettings,
    current: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Stamp>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("cert", &self.settings.cert)
            .finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files.
    pub(crate) fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let seen = stamp(settings);
        Ok(Self {
            current: RwLock::new(Arc::new(read(settings)?)),
            settings: settings.clone(),
            seen: Mutex::new(seen),
        })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read()))
    }

    /// Reads the files again where one has changed since, or where `asked`. What is bad is logged, once for each change.
    fn refresh(&self, asked: bool) {
        let now = stamp(&self.settings);
        if *self.seen.lock() == now && !asked {
            return;
        }
        *self.seen.lock() = now;
        match read(&self.settings) {
            Ok(config) => {
                *self.current.write() = Arc::new(config);
                tracing::info!(cert = %self.settings.cert.display(), "certificates were read again");
            }
            Err(error) => tracing::error!("the certificates that were read before stay in use: {error}"),
        }
    }

    /// Follows the files, and SIGHUP; runs until dropped.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let asked = tokio::select! {
                _ = hung_up => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            let certificates = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || certificates.refresh(asked)).await;
            if let Err(error) = looked {
                tracing::error!("certificates could not be looked at: {error}");
            }
        }
    }
}

fn stamp(settings: &TlsSettings) -> Stamp {
    let paths = [Some(&settings.cert), Some(&settings.key), settings.client_ca.as_ref()];
    let of = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.into_iter().flatten().map(of).collect()
}

fn read(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&settings.cert).map_err(TlsError::File)?;
    let key = private_key(&settings.key).map_err(TlsError::File)?;
    let unusable = |reason: String| TlsError::Pair {
        path: settings.cert.clone(),
        reason,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let bad = |reason: String| {
                TlsError::File(PemError {
                    path: path.clone(),
                    what: "certificate authority",
                    reason,
                })
            };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path).map_err(TlsError::File)? {
                roots.add(authority).map_err(|error| bad(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| bad(error.to_string()))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self {
                folder: tempfile::tempdir().expect("a folder"),
            };
            files.renew();
            files
        }

        fn settings(&self) -> TlsSettings {
            TlsSettings {
                cert: self.folder.path().join("cert.pem"),
                key: self.folder.path().join("key.pem"),
                client_ca: None,
            }
        }

        /// A new certificate and key.
        fn renew(&self) -> CertificateDer<'static> {
            let CertifiedKey { cert, signing_key } =
                generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            std::fs::write(self.settings().cert, cert.pem()).expect("written");
            std::fs::write(self.settings().key, signing_key.serialize_pem()).expect("written");
            cert.der().clone()
        }
    }

    /// Which certificate a client is shown that trusts this one.
    fn shown(config: &Arc<ServerConfig>, trusted: &CertificateDer<'static>) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).expect("a certificate");
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = ServerConnection::new(Arc::clone(config)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).expect("memory");
            }
            server.read_tls(&mut wire.as_slice()).expect("memory");
            server.process_new_packets()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).expect("memory");
            }
            client.read_tls(&mut wire.as_slice()).expect("memory");
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn new_files_are_taken_over_and_bad_ones_are_not() {
        let files = Files::new();
        let first = files.renew();
        let certificates = Certificates::load(&files.settings()).expect("sound");
        let current = || Arc::clone(&certificates.current.read());
        assert!(shown(&current(), &first).is_ok());
        let second = files.renew();
        certificates.refresh(true);
        assert!(shown(&current(), &second).is_ok() && shown(&current(), &first).is_err());
        std::fs::write(files.settings().cert, "no certificate").expect("written");
        certificates.refresh(false);
        assert!(shown(&current(), &second).is_ok(), "the old one stays");
        // A key of another certificate.
        let third = files.renew();
        let key = std::fs::read(files.settings().key).expect("a key");
        files.renew();
        std::fs::write(files.settings().key, key).expect("written");
        certificates.refresh(true);
        assert!(shown(&current(), &second).is_ok() && shown(&current(), &third).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_file() {
        let files = Files::new();
        let mut settings = files.settings();
        settings.client_ca = Some(files.folder.path().join("absent.pem"));
        let error = Certificates::load(&settings).expect_err("no such file").to_string();
        assert!(error.contains("absent.pem"), "{error}");
        settings.client_ca = None;
        settings.key.clone_from(&settings.cert);
        let error = Certificates::load(&settings).expect_err("no key").to_string();
        assert!(error.contains("private key"), "{error}");
    }
}
