//! Engines behind `https://`: whose certificates are believed, and what is shown of oneself.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use equipoise_backend::{
    BackendError, EngineClient, EngineClientConfig, EngineTls, EngineTlsError, EngineTlsFiles, Retry,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(20);

/// An authority and one certificate of it, for this machine, in files.
struct Files(TempDir);

impl Files {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, authority).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &authority).expect("signed");
        let files = Self(tempfile::tempdir().expect("a folder"));
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("cert.pem", cert.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            std::fs::write(files.path(name), text).expect("written");
        }
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn believed(&self) -> EngineTlsFiles {
        EngineTlsFiles {
            ca: Some(self.path("ca.pem")),
            ..EngineTlsFiles::default()
        }
    }
}

/// An engine that is well, on a secured port; with `clients` only for those who have a certificate of theirs.
async fn engine(own: &Files, clients: Option<&Files>) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            let ca = CertificateDer::from_pem_file(clients.path("ca.pem")).expect("PEM");
            roots.add(ca).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let cert = CertificateDer::from_pem_file(own.path("cert.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(own.path("key.pem")).expect("PEM");
    let config = builder.with_single_cert(vec![cert], key).expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("https://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut secured) = acceptor.accept(socket).await else {
                    return;
                };
                let mut request = vec![0; 4096];
                // Kept open: one answer after the other on the same connection.
                while secured.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if secured.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    endpoint
}

async fn probe(endpoint: &str, files: &EngineTlsFiles) -> Result<(), BackendError> {
    let config = EngineClientConfig {
        tls: Some(EngineTls::load(files).expect("sound")),
        ..EngineClientConfig::default()
    };
    let client = EngineClient::new(endpoint, config).expect("usable");
    client.probe_health(PATIENCE).await?;
    // And on the connection that was kept.
    client.probe_health(PATIENCE).await
}

#[tokio::test]
async fn only_engines_that_are_believed_are_spoken_to() {
    let (own, other) = (Files::new("own"), Files::new("other"));
    let endpoint = engine(&own, None).await;
    probe(&endpoint, &own.believed()).await.expect("believed");
    let stranger = probe(&endpoint, &other.believed()).await.expect_err("a stranger");
    assert!(matches!(stranger, BackendError::Connect { .. }), "{stranger}");
    assert_eq!(stranger.retry(), Retry::Free, "nothing was sent");
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    // Plain HTTP to a secured port is no answer either.
    let plain = EngineClient::new(&endpoint.replace("https", "http"), EngineClientConfig::default()).expect("usable");
    plain.probe_health(PATIENCE).await.expect_err("no HTTP there");
}

#[tokio::test]
async fn an_engine_that_asks_for_a_certificate_is_shown_one() {
    let (own, clients, other) = (Files::new("own"), Files::new("clients"), Files::new("other"));
    let endpoint = engine(&own, Some(&clients)).await;
    let showing = |shown: &Files| EngineTlsFiles {
        cert: Some(shown.path("cert.pem")),
        key: Some(shown.path("key.pem")),
        ..own.believed()
    };
    probe(&endpoint, &showing(&clients)).await.expect("let in");
    for files in [own.believed(), showing(&other)] {
        probe(&endpoint, &files).await.expect_err("kept out");
    }
}

#[test]
fn files_that_cannot_be_used_say_which() {
    let own = Files::new("own");
    let absent = EngineTls::load(&EngineTlsFiles {
        ca: Some(own.path("absent.pem")),
        ..EngineTlsFiles::default()
    });
    assert!(absent.expect_err("no file").to_string().contains("absent.pem"));
    let half = EngineTls::load(&EngineTlsFiles {
        cert: Some(own.path("cert.pem")),
        ..own.believed()
    });
    assert!(matches!(half, Err(EngineTlsError::Half)));
    let no_authority = EngineTls::load(&EngineTlsFiles {
        ca: Some(own.path("key.pem")),
        ..EngineTlsFiles::default()
    });
    assert!(no_authority.expect_err("a key").to_string().contains("certificate"));
}
