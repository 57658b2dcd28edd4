//! Nonsense by the thousand against a router in this process, with an engine behind it: every request gets an answer that an
//! OpenAI client understands, nothing panics, and afterwards nothing is left in flight.
//!
//! Seeded: `EQUIPOISE_FUZZ_SEED` repeats a run, `EQUIPOISE_FUZZ_REQUESTS` sets its length.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says with which seed, its plain functions too"
)]

#[path = "fuzz/nonsense.rs"]
mod nonsense;
#[path = "fuzz/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use equipoise_agent::{Agent, AgentConfig, NvmlMode, RunningAgent};
use equipoise_config::PiiSettings;
use equipoise_control_plane::{ControlPlane, ControlPlaneConfig, RunningControlPlane};
use equipoise_emulator::{Emulator, EmulatorConfig, RunningEmulator};
use equipoise_engine::{EngineLimits, StepModel};
use equipoise_proto::v1;
use equipoise_router::{RouterConfig, RunningRouter};
use equipoise_types::RandomStream;

use nonsense::{Nonsense, Request};
use wire::Connection;

const REQUESTS: usize = 2_000;
const CLIENTS: usize = 8;
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn number(name: &str, otherwise: usize) -> usize {
    let asked = std::env::var(name).ok();
    asked.map_or(otherwise, |text| text.parse().expect("a number"))
}

struct Product {
    router: RunningRouter,
    _others: (RunningControlPlane, RunningAgent, RunningEmulator),
}

async fn product() -> Product {
    let limits = EngineLimits {
        max_num_seqs: 64,
        ..EngineLimits::default()
    };
    let emulator = Emulator::start(EmulatorConfig::new("m", StepModel::fixed(1e-6, limits)));
    let emulator = emulator.await.expect("an engine");
    let store = equipoise_store::open("embedded").await.expect("a store");
    let plane = ControlPlaneConfig {
        grpc_addr: ANY,
        page_addr: None,
        ..ControlPlaneConfig::default()
    };
    let plane = ControlPlane::start(plane, store).await.expect("a control plane");
    let control = format!("http://{}", plane.grpc_addr());
    let instance = v1::Instance {
        name: "only".to_owned(),
        pool: "only".to_owned(),
        model: Some(v1::Model {
            name: "m".to_owned(),
            ..v1::Model::default()
        }),
        endpoint: format!("http://{}", emulator.addr()),
        labels: [("residency".to_owned(), "local".to_owned())].into(),
        ..v1::Instance::default()
    };
    let mut agent = AgentConfig::new(&control, "node", vec![instance]);
    agent.nvml = NvmlMode::Off;
    let agent = Agent::start(agent).await.expect("an agent");
    let mut config = RouterConfig::new("router", ANY, &control);
    config.admin_listen = Some(ANY);
    config.max_body_bytes = 64 << 10;
    config.body_timeout = Duration::from_secs(2);
    config.head_timeout = Duration::from_secs(2);
    config.pii = Some(PiiSettings {
        labels: BTreeMap::from([("residency".to_owned(), "local".to_owned())]),
        ..PiiSettings::default()
    });
    let router = equipoise_router::start(config).await.expect("a router");
    for _ in 0..2_000 {
        if router.available_instances() == 1 {
            return Product {
                router,
                _others: (plane, agent, emulator),
            };
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the engine never became available");
}

/// What was answered how often.
type Counts = BTreeMap<u16, usize>;

async fn client(addr: SocketAddr, seed: u64, index: usize, left: Arc<AtomicUsize>) -> Counts {
    let mut random = RandomStream::new(seed).derive(&format!("client {index}"));
    let mut counts = Counts::new();
    let mut connection: Option<Connection> = None;
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok()
    {
        let request = Nonsense(&mut random).request();
        let status = if request.well_framed {
            let kept = match connection.take() {
                Some(kept) => kept,
                None => Connection::to(addr).await,
            };
            let (answer, again) = kept.exchange(addr, &request).await;
            connection = again;
            check(seed, index, &request, &answer);
            answer.status
        } else {
            let answer = Connection::to(addr).await.last(&request).await;
            if let Some(answer) = &answer {
                check(seed, index, &request, answer);
            }
            answer.map_or(0, |answer| answer.status)
        };
        *counts.entry(status).or_default() += 1;
    }
    counts
}

/// Whatever was asked: one of the statuses that say something of the request, and an error in OpenAI's form. Where HTTP
/// itself was broken there is no body.
fn check(seed: u64, index: usize, request: &Request, answer: &wire::Answer) {
    let shown = || {
        let (sent, got) = (
            String::from_utf8_lossy(&request.bytes),
            String::from_utf8_lossy(&answer.body),
        );
        format!(
            "seed {seed}, client {index}: {} for\n{sent:.2000}\n{got:.2000}",
            answer.status
        )
    };
    const EXPECTED: [u16; 12] = [200, 400, 401, 403, 404, 405, 408, 413, 414, 415, 429, 431];
    assert!(EXPECTED.contains(&answer.status), "{}", shown());
    if answer.status >= 400 && !answer.body.is_empty() {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let says = body["error"]["message"]
            .as_str()
            .is_some_and(|message| !message.is_empty());
        assert!(says && body["error"]["type"].is_string(), "{}", shown());
    }
    if answer.status == 405 {
        assert!(answer.head.to_ascii_lowercase().contains("allow: "), "{}", shown());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_sent_is_answered_and_nothing_panics() {
    let panics = Arc::new(AtomicUsize::new(0));
    let (seen, before) = (Arc::clone(&panics), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        seen.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let seed = number("EQUIPOISE_FUZZ_SEED", 1) as u64;
    let requests = number("EQUIPOISE_FUZZ_REQUESTS", REQUESTS);
    let product = product().await;
    let left = Arc::new(AtomicUsize::new(requests));
    let addr = product.router.addr();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| tokio::spawn(client(addr, seed, index, Arc::clone(&left))))
        .collect();
    let mut counts = Counts::new();
    for client in clients {
        let of_client = client.await.unwrap_or_else(|_| panic!("a client failed; seed {seed}"));
        for (status, count) in of_client {
            *counts.entry(status).or_default() += count;
        }
    }
    eprintln!("{requests} requests with seed {seed}, by status (0: closed without a word): {counts:?}");
    assert_eq!(counts.values().sum::<usize>(), requests);
    assert!(
        counts.contains_key(&200) && counts.contains_key(&400),
        "both sides are tried: {counts:?}"
    );
    assert_eq!(panics.load(Ordering::Relaxed), 0, "seed {seed}");

    let admin = product.router.admin_addr().expect("listens");
    let mut in_flight = None;
    for _ in 0..200 {
        let page = Connection::to(admin).await.get("/debug/state").await;
        in_flight = page["in_flight"].as_u64();
        if in_flight == Some(0) && page["queued"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(in_flight, Some(0), "nothing is left in flight");
    product.router.shutdown().await;
}
