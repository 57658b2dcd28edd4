//! The page and its JSON.

use crate::harness::{Clients, PATIENCE, instance, sample, soon, start, unix_ns};
use equipoise_proto::v1::{EnergySample, EnergySource, EngineSample, TelemetryBatch};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The status and the body of a GET.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.expect("reads");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, body.to_owned())
}

async fn fleet(address: SocketAddr) -> serde_json::Value {
    let (status, body) = get(address, "/api/fleet").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).expect("is JSON")
}

#[tokio::test]
async fn the_page_and_its_data_answer() {
    let plane = start().await;
    let page = plane.page_addr().expect("is served");
    let empty = fleet(page).await;
    assert_eq!(
        (
            empty["summary"]["instances"].as_u64(),
            empty["energy"]["measured_mj"].as_u64()
        ),
        (Some(0), Some(0))
    );

    let mut clients = Clients::of(&plane).await;
    let lease = clients
        .register("n1", vec![instance("a", "p"), instance("b", "p")], 30_000)
        .await
        .expect("registers");
    let mut telemetry = clients.telemetry(lease.lease_id).await;
    let end_unix_ns = unix_ns();
    let energy = EnergySample {
        instance: "a".to_owned(),
        start_unix_ns: end_unix_ns - 500_000_000,
        end_unix_ns,
        measured_mj: 100_000,
        idle_mj: 40_000,
        source: EnergySource::Modelled.into(),
        flaws: Vec::new(),
    };
    let sick = EngineSample {
        healthy: false,
        running: 0,
        ..sample("b")
    };
    let batch = TelemetryBatch {
        engines: vec![sample("a"), sick],
        energy: vec![energy],
        ..TelemetryBatch::default()
    };
    telemetry.send(batch).await.expect("takes");

    let seen = fleet(page).await;
    assert_eq!(seen["summary"]["healthy"], 1);
    assert_eq!(seen["summary"]["running"], 3);
    assert_eq!(seen["summary"]["modelled_watts"], 200.0);
    assert_eq!(seen["instances"][0]["watts"], 200.0);
    assert_eq!(seen["instances"][1]["health"], "unhealthy");
    assert_eq!(
        seen["instances"][1]["running"],
        serde_json::Value::Null,
        "not zero: it is not known"
    );
    let deadline = Instant::now() + PATIENCE;
    while fleet(page).await["energy"]["measured_mj"] != 100_000 {
        assert!(Instant::now() < deadline, "the energy is settled after its grace");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, body) = get(page, "/api/energy?by=pool").await;
    let report: serde_json::Value = serde_json::from_str(&body).expect("is JSON");
    assert_eq!((status, report["rows"][0]["key"].as_str()), (200, Some("p")));
    assert_eq!(report["total"]["unattributed_mj"], 60_000);
    let (status, body) = get(page, "/api/energy?by=colour").await;
    assert!(status == 400 && body.contains("pool, model, gpu or tenant"), "{body}");

    let (status, html) = get(page, "/").await;
    assert!(status == 200 && html.contains("<title>"));
    for address in ["http://", "https://"] {
        let outside: Vec<_> = html
            .match_indices(address)
            .filter(|(at, _)| !html[*at..].starts_with("http://www.w3.org/2000/svg"))
            .collect();
        assert!(outside.is_empty(), "the page asks nobody else: {outside:?}");
    }
    assert_eq!(get(page, "/health").await, (200, "ok\n".to_owned()));
    let (_, metrics) = get(page, "/metrics").await;
    assert!(metrics.contains("equipoise_control_instances 2"), "{metrics}");
    assert!(
        metrics.contains(r#"equipoise_control_energy_millijoules_total{instance="a",cause="idle"} 40000"#),
        "{metrics}"
    );
    soon(plane.shutdown()).await.expect("drains");
}
