//! TLS on the public listener: who is let in, over which protocol, and that new files are taken over.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use equipoise_config::TlsSettings;
use equipoise_proto::v1::feedback_service_client::FeedbackServiceClient;
use equipoise_router::{PredictorSource, RouterConfig, RunningRouter, StartError, start};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Issued {
    cert: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.0).expect("signed");
        Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

struct Files(TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

fn settings(files: &Files, client_ca: Option<&Authority>) -> TlsSettings {
    TlsSettings {
        cert: files.path("cert.pem"),
        key: files.path("key.pem"),
        client_ca: client_ca.map(|authority| files.write("clients.pem", &authority.pem())),
    }
}

fn plain() -> RouterConfig {
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut config = RouterConfig::new("router-a", any, "http://127.0.0.1:9");
    config.predictor = PredictorSource::Off;
    config
}

async fn router(files: &Files, client_ca: Option<&Authority>) -> Result<RunningRouter, StartError> {
    let mut config = plain();
    config.tls = Some(settings(files, client_ca));
    start(config).await
}

/// Asks for `/v1/models` and gives the answer's first line.
async fn ask(router: &RunningRouter, trusted: &Authority, own: Option<&Issued>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.pem().as_bytes()).expect("PEM");
    roots.add(root).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let cert = CertificateDer::from_pem_slice(own.cert.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let socket = TcpStream::connect(router.addr()).await?;
    let name = ServerName::try_from("router.example").expect("a name");
    let mut secured = TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    secured
        .write_all(b"GET /v1/models HTTP/1.1\r\nhost: router.example\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    secured.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn issue_for_router(files: &Files, authority: &Authority) {
    let issued = authority.issue("router.example");
    files.write("cert.pem", &issued.cert);
    files.write("key.pem", &issued.key);
}

#[tokio::test]
async fn clients_with_the_right_certificates_are_let_in() {
    let (servers, clients, strangers) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("others"),
    );
    let files = Files(tempfile::tempdir().expect("a folder"));
    issue_for_router(&files, &servers);
    let open = router(&files, None).await.expect("sound");
    assert_eq!(ask(&open, &servers, None).await.expect("let in"), "HTTP/1.1 200 OK");
    assert!(ask(&open, &strangers, None).await.is_err(), "the client trusts others");
    // Plain HTTP gets nowhere.
    let mut plain = TcpStream::connect(open.addr()).await.expect("connects");
    plain.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.expect("writes");
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.expect("let go");
    assert!(!answer.starts_with(b"HTTP/"));
    open.shutdown().await;

    let mutual = router(&files, Some(&clients)).await.expect("sound");
    let known = clients.issue("client.example");
    assert_eq!(
        ask(&mutual, &servers, Some(&known)).await.expect("let in"),
        "HTTP/1.1 200 OK"
    );
    let unknown = strangers.issue("client.example");
    for own in [None, Some(&unknown)] {
        let answer = ask(&mutual, &servers, own).await;
        assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
    }
    mutual.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_served_is_said_at_the_start() {
    let files = Files(tempfile::tempdir().expect("a folder"));
    issue_for_router(&files, &Authority::new("servers"));
    files.write("key.pem", &Authority::new("others").issue("router.example").key);
    let error = router(&files, None).await.expect_err("not the certificate's key");
    assert!(matches!(error, StartError::Tls(_)), "{error}");
    assert!(error.to_string().contains("cert.pem"), "{error}");
}

/// What a gateway is told that gives feedback on nothing, or why it is told nothing.
async fn call(router: &RunningRouter, trusted: &Authority, own: Option<&Issued>) -> Result<tonic::Code, String> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.pem()))
        .domain_name("router.example");
    if let Some(own) = own {
        tls = tls.identity(Identity::from_pem(&own.cert, &own.key));
    }
    let url = format!("https://{}", router.grpc_addr().expect("listens"));
    let endpoint = Endpoint::from_shared(url)
        .expect("a URL")
        .tls_config(tls)
        .expect("sound");
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let mut client = FeedbackServiceClient::new(channel);
    let asked = client.give(equipoise_proto::v1::GiveFeedbackRequest::default());
    let status = asked.await.expect_err("it names no decision");
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown => Err(status.to_string()),
        code => Ok(code),
    }
}

#[tokio::test]
async fn gateways_with_the_right_certificates_are_let_in() {
    let (servers, gateways) = (Authority::new("servers"), Authority::new("gateways"));
    let files = Files(tempfile::tempdir().expect("a folder"));
    issue_for_router(&files, &servers);
    let mut config = plain();
    config.grpc_listen = Some(config.listen);
    config.grpc_tls = Some(settings(&files, Some(&gateways)));
    let router = start(config).await.expect("sound");
    let known = gateways.issue("gateway.example");
    assert_eq!(
        call(&router, &servers, Some(&known)).await.expect("let in"),
        tonic::Code::InvalidArgument
    );
    call(&router, &servers, None).await.expect_err("shows nothing");
    let unknown = servers.issue("gateway.example");
    call(&router, &servers, Some(&unknown)).await.expect_err("of others");
    call(&router, &gateways, Some(&known))
        .await
        .expect_err("the gateway trusts others");
    router.shutdown().await;
}
