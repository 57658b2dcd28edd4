//! Registering, streaming, and what happens when either side goes away.

use crate::control::Control;
use crate::{config, engine, eventually, instance};
use equipoise_agent::{Agent, AgentConfig, AgentError};
use equipoise_proto::v1::EngineSample;
use http::StatusCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BUSY: &str = "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_waiting{engine=\"0\"} 2\n\
                    vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:generation_tokens_total{engine=\"0\"} 77\n";

fn latest(control: &Control, name: &str) -> Option<EngineSample> {
    let batches = control.memory.batches.lock().expect("whole");
    batches
        .iter()
        .rev()
        .flat_map(|batch| &batch.engines)
        .find(|sample| sample.instance == name)
        .cloned()
}

#[tokio::test]
async fn it_registers_streams_and_gives_the_lease_back() {
    let control = Control::start();
    let (endpoint, script) = engine::start().await;
    script.set("/metrics", StatusCode::OK, BUSY);
    let agent = Agent::start(config(&control.uri(), vec![instance("a", &endpoint, &[])]))
        .await
        .expect("starts");
    // Twenty batches: the control plane's 50 ms rule, not the configured hour.
    eventually("batches flow", || control.memory.batch_count() >= 20).await;
    let sample = latest(&control, "a").expect("sampled");
    assert_eq!((sample.healthy, sample.running, sample.waiting), (true, 3, 2));
    assert_eq!((sample.kv_usage, sample.generation_tokens_total), (0.5, 77));
    agent.shutdown().await;

    let registered = control.memory.registered.lock().expect("whole").clone();
    assert_eq!(registered.len(), 1);
    assert_eq!(
        (registered[0].node.as_str(), registered[0].lease_ttl_ms),
        ("node-1", 5_000)
    );
    assert_eq!(registered[0].instances[0].node, "node-1");
    assert!(!registered[0].agent.is_empty());
    assert_eq!(*control.memory.deregistered.lock().expect("whole"), [1]);
    let batches = control.memory.batches.lock().expect("whole");
    assert!(
        batches
            .iter()
            .zip(1..)
            .all(|(batch, sequence)| batch.sequence == sequence && batch.lease_id == 1)
    );
}

#[tokio::test]
async fn it_waits_for_a_control_plane_that_comes_later_or_again() {
    let mut control = Control::start();
    control.kill();
    let agent = Agent::start(config(&control.uri(), vec![]))
        .await
        .expect("starts without a control plane");
    tokio::time::sleep(Duration::from_millis(200)).await;
    control.memory.refusing.store(true, Ordering::SeqCst);
    control.revive();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(control.memory.registrations(), 0);
    control.memory.refusing.store(false, Ordering::SeqCst);
    for life in 1..4 {
        eventually("it registers in every life", || control.memory.registrations() == life).await;
        let before = control.memory.batch_count();
        eventually("and streams", || control.memory.batch_count() > before + 2).await;
        control.kill();
        control.revive();
    }
    agent.shutdown().await;
}

#[tokio::test]
async fn a_lost_lease_is_taken_anew() {
    let control = Control::start();
    let agent = Agent::start(config(&control.uri(), vec![])).await.expect("starts");
    for lease in 1..4 {
        eventually("it registers anew", || control.memory.registrations() == lease).await;
        let before = control.memory.batch_count();
        eventually("and streams under the new lease", || {
            control.memory.batch_count() > before + 2
        })
        .await;
        control.memory.forget_lease();
    }
    agent.shutdown().await;
    let another = Agent::start(config(&control.uri(), vec![])).await.expect("starts");
    eventually("a second process registers", || control.memory.registrations() == 4).await;
    another.shutdown().await;
    let agents: Vec<String> = {
        let registered = control.memory.registered.lock().expect("whole");
        registered.iter().map(|request| request.agent.clone()).collect()
    };
    assert!(agents[..3].iter().all(|agent| *agent == agents[0]), "{agents:?}");
    assert_ne!(agents[3], agents[0], "each process has its own id");
}

#[tokio::test]
async fn an_engine_that_goes_away_is_unhealthy_and_heals_when_it_is_back() {
    let control = Control::start();
    let (endpoint, script) = engine::start().await;
    script.set("/metrics", StatusCode::OK, BUSY);
    let (well, _) = engine::start().await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    };
    let instances = vec![
        instance("ill", &endpoint, &[]),
        instance("well", &well, &[]),
        instance("gone", &gone, &[]),
    ];
    let agent = Agent::start(config(&control.uri(), instances)).await.expect("starts");
    let verdict = |name: &str| latest(&control, name).map(|sample| (sample.healthy, sample.running));
    eventually("the engine is healthy", || verdict("ill") == Some((true, 3))).await;
    eventually("so is one without metrics", || verdict("well") == Some((true, 0))).await;
    eventually("one that is not there is not", || verdict("gone") == Some((false, 0))).await;
    script.set("/health", StatusCode::INTERNAL_SERVER_ERROR, "");
    eventually("it falls ill and shows no load", || verdict("ill") == Some((false, 0))).await;
    assert_eq!(verdict("well"), Some((true, 0)));
    script.set("/health", StatusCode::OK, "");
    eventually("it heals", || verdict("ill") == Some((true, 3))).await;
    agent.shutdown().await;
}

#[tokio::test]
async fn addresses_that_cannot_work_are_refused_at_the_start() {
    for control in ["control:8090", "https://control:8090", "not a uri", ""] {
        let error = Agent::start(config(control, vec![])).await.expect_err(control);
        assert!(matches!(error, AgentError::Control { .. }), "{control}: {error}");
        assert_eq!(
            error.to_string().contains("TLS"),
            control.starts_with("https"),
            "{error}"
        );
    }
    let error = Agent::start(config("http://127.0.0.1:1", vec![instance("a", "engine", &[])])).await;
    let error = error.expect_err("no URL");
    assert!(error.to_string().contains("instance `a`"), "{error}");
}

/// The answer to a GET, head and body.
async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answers");
    answer
}

#[tokio::test]
async fn its_own_metrics_are_served_where_it_is_told_to() {
    let control = Control::start();
    let exposed = |metrics_addr: std::net::SocketAddr| AgentConfig {
        metrics_addr: Some(metrics_addr),
        ..config(&control.uri(), vec![])
    };
    let agent = Agent::start(exposed(([127, 0, 0, 1], 0).into())).await.expect("starts");
    let address = agent.metrics_addr().expect("served");
    eventually("it streams", || control.memory.batch_count() > 1).await;
    let metrics = get(address, "/metrics").await;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.contains("_registrations_total 1"),
        "{metrics}"
    );
    assert!(get(address, "/health").await.ends_with("ok\n"));
    let error = Agent::start(exposed(address)).await.expect_err("taken").to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("metrics"),
        "{error}"
    );
    agent.shutdown().await;
    tokio::net::TcpStream::connect(address)
        .await
        .expect_err("closed with the agent");
    let silent = Agent::start(config(&control.uri(), vec![])).await.expect("starts");
    assert_eq!(silent.metrics_addr(), None);
}
