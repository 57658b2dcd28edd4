//! TLS between the services: a control plane that lets in who has a certificate, and nobody else.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::client::Client;
use crate::cluster::FleetFile;
use crate::eventually;
use crate::process::{Process, run};

/// An authority, and what it has signed for the name of this machine, in files.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "operators");
        let authority = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, authority).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &authority).expect("signed");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
        write("ca.pem", authority.pem());
        write("cert.pem", cert.pem());
        write("key.pem", key.serialize_pem());
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }
}

fn quoted(path: &str) -> String {
    format!("\"{}\"", Path::new(path).display())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_talk_over_tls_and_strangers_are_kept_out() {
    let own = Certificates::new();
    let (ca, cert, key) = (own.path("ca.pem"), own.path("cert.pem"), own.path("key.pem"));
    let config = FleetFile::new(&format!(
        "[control_plane]\npage_listen = \"off\"\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {}, key = {}, client_ca = {} }}\n",
        quoted(&cert),
        quoted(&key),
        quoted(&ca)
    ));
    let mut plane = Process::start(&["control-plane", "--config", config.path()]);
    let line = plane.line_with("control plane: gRPC on").await;
    let address = line
        .split_whitespace()
        .find_map(|word| word.strip_suffix(','))
        .expect("an address");
    let control = format!("https://{address}");
    let known = ["--control-ca", &ca, "--control-cert", &cert, "--control-key", &key];
    let fleet = FleetFile::quick("box", 1);
    let with = |usual: &[&str]| Process::start(&[usual, &known].concat());
    let mut agent = with(&[
        "agent",
        "--control",
        &control,
        "--node",
        "n",
        "--fleet",
        fleet.path(),
        "--nvml",
        "off",
    ]);
    agent.line_with("agent: node").await;
    let mut router = with(&[
        "router",
        "--control",
        &control,
        "--listen",
        "127.0.0.1:0",
        "--name",
        "r",
    ]);
    let line = router.line_with("router: http").await;
    let base = line
        .split([' ', ','])
        .find(|word| word.starts_with("http://"))
        .expect("a URL");
    let client = Client::new(base.trim_end_matches("/v1"));
    eventually("the router knows the box", || async {
        (client.get("/health").await.json()["available"] == 1).then_some(())
    })
    .await;
    assert_eq!(client.chat("gemma-2-2b", 2, &[]).await.status, 200);

    let list = ["fleet", "list", "--control", &control];
    let said = run(&[&list[..], &known].concat()).await;
    assert!(said.code == Some(0) && said.stdout.contains("box-0"), "{said:?}");
    let said = run(&[&list[..], &known[..2]].concat()).await;
    assert_ne!(said.code, Some(0), "who shows nothing is not let in: {said:?}");
    let said = run(&list).await;
    assert!(said.code != Some(0) && said.stderr.contains("--control-ca"), "{said:?}");
    let plain = control.replace("https", "http");
    assert_ne!(run(&["fleet", "list", "--control", &plain]).await.code, Some(0));
}
