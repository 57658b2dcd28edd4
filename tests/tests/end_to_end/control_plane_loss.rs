//! The control plane dies under load. Routers go on with what they knew, and all find one another again afterwards.

use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::client::Client;
use crate::cluster::{ControlPlane, FleetFile, agent, router, settled};
use crate::eventually;
use crate::load::{Asking, Load};
use crate::process::{Process, free_port};

const INSTANCES: usize = 3;
const ASKING: Asking = Asking {
    model: "gemma-2-2b",
    max_tokens: 8,
    streams: true,
    tenants: &[],
};

async fn connected(router: &Client, expected: bool) {
    let expected = Some(f64::from(u8::from(expected)));
    eventually("the router notices", || async {
        (router.metric("equipoise_router_control_plane_connected", "").await == expected).then_some(())
    })
    .await;
}

async fn no_request_is_lost(store: &str) {
    let fleet = FleetFile::quick("pool", INSTANCES);
    let mut plane = ControlPlane::start(store).await;
    let (_agent, (_router, client)) = tokio::join!(agent(&plane.url, "node-a", &fleet), router(&plane.url, "router-a"));
    settled(&plane.url, INSTANCES, "router-a").await;

    let load = Load::start(&client, 8, &ASKING);
    load.more(50).await;
    plane.process.kill();
    connected(&client, false).await;
    load.more(200).await;

    plane.restart().await;
    settled(&plane.url, INSTANCES, "router-a").await;
    connected(&client, true).await;
    load.more(50).await;
    let answered = load.stop_without_loss().await;
    assert!(answered.len() >= 300, "{}", answered.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_costs_no_request_embedded_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.redb");
    no_request_is_lost(&format!("embedded:{}", path.display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_costs_no_request_etcd() {
    let Some(etcd) = Etcd::start().await else { return };
    no_request_is_lost(&etcd.url).await;
}

/// A real etcd of one member.
struct Etcd {
    url: String,
    _process: Process,
    _folder: TempDir,
}

impl Etcd {
    /// `None`, loudly, on a machine without etcd; where `CI` is set that is a failure.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let [client, peer] = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new("etcd");
        command.args(["--name", "test", "--log-level", "error", "--unsafe-no-fsync=true"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("test={peer}")]);
        command
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdout(Stdio::null());
        let process = match Process::spawn("etcd", &mut command) {
            Ok(process) => process,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "CI must have etcd: {error}");
                eprintln!("SKIPPED: no etcd on the PATH ({error}); a cluster on etcd was NOT tested");
                return None;
            }
        };
        let probe = Client::new(&client);
        eventually("etcd is up", || async {
            let answer = probe.exchange(http::Method::GET, "/health", &[], "").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        Some(Self {
            url: client.replacen("http", "etcd", 1),
            _process: process,
            _folder: folder,
        })
    }
}
