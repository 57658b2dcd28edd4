//! What must never happen, under many streams at once: lost requests, leaked places, memory that grows. A small dose by
//! default; `EQUIPOISE_SOAK=1` is the full one, for an optimised build (`cargo test --release -p equipoise-tests --test
//! end_to_end soak -- --test-threads=1 --nocapture`), which prints what it measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::client::{CHAT, Client, complete_tokens, streamed_chat};
use crate::cluster::{ControlPlane, Engines, FleetFile, agent, available, router_under, router_with, settled};
use crate::eventually;
use crate::process::Process;

const MODEL: &str = "Llama-3.1-70B";
const HEAD: &str = "[[model]]\nname = \"Llama-3.1-70B\"\narchitecture = \"Llama-3.1-70B\"\n";
/// Some tens of tokens a second for each stream.
const POOL: &str =
    "model = \"Llama-3.1-70B\"\ngpu = \"A100-80G\"\ntensor_parallel = 4\nlimits = { max_num_seqs = 512 }";

fn is_full() -> bool {
    std::env::var("EQUIPOISE_SOAK").is_ok_and(|value| value == "1")
}

/// Engines, control plane, agent and router, all processes.
struct Fleet {
    engines: Engines,
    _plane: ControlPlane,
    _agent: Process,
    router: Process,
    client: Client,
}

impl Fleet {
    async fn start(engines: usize) -> Self {
        let engines = Engines::start(HEAD, POOL, engines).await;
        let plane = ControlPlane::start("embedded").await;
        let (agent, (router, client)) = tokio::join!(
            agent(&plane.url, "node-a", &engines.real),
            // A policy that saves energy would leave engines asleep that others can do without.
            router_with(&plane.url, "router-a", "least-requests")
        );
        settled(&plane.url, engines.addresses.len(), "router-a").await;
        available(&client, engines.addresses.len() as u64).await;
        Self {
            engines,
            _plane: plane,
            _agent: agent,
            router,
            client,
        }
    }

    async fn nothing_is_left(&self) {
        for name in ["equipoise_router_in_flight", "equipoise_router_queue_length"] {
            eventually(&format!("{name} is zero"), || async {
                (self.client.metric(name, "").await == Some(0.0)).then_some(())
            })
            .await;
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Complete,
    /// With an error event, after it had begun.
    ErrorEvent,
}

/// One stream to its end: when it began, how long its first token took, and how it ended. An error is a request that
/// was lost.
async fn stream(client: &Client, tokens: u32) -> Result<(Instant, Duration, End), String> {
    let started = Instant::now();
    let mut stream = client.try_stream(CHAT, &[], &streamed_chat(MODEL, tokens)).await?;
    if stream.status != 200 {
        let said = stream.rest().await;
        return Err(format!("{}: {said:?}", stream.status));
    }
    let first = stream.next().await?.ok_or("an empty stream")?;
    let ttft = started.elapsed();
    let mut events = vec![first];
    events.extend(stream.rest().await?);
    if complete_tokens(&events) == Some(tokens as usize) {
        return Ok((started, ttft, End::Complete));
    }
    let last = events.last().map(String::as_str).unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).map_err(|_| format!("it ended with {last}"))?;
    match last["error"]["message"].as_str() {
        Some(_) => Ok((started, ttft, End::ErrorEvent)),
        None => Err(format!("it ended early, after {}", events.len())),
    }
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// Streams all the time; one of four engines is killed in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_an_engine_under_streams() {
    let (streams, span) = if is_full() { (1000, 60) } else { (40, 8) };
    let span = Duration::from_secs(span);
    let mut fleet = Fleet::start(4).await;
    let stop = Arc::<AtomicBool>::default();
    let begun = Instant::now();
    let work = |number: usize| {
        let (client, stop) = (fleet.client.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            // Not all at once: a rush on an idle fleet says nothing of the fleet at work.
            tokio::time::sleep(span / 8 * u32::try_from(number % 16).unwrap_or(0) / 16).await;
            let mut ends = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                ends.push(stream(&client, 40 + (number as u32 * 7) % 80).await);
            }
            ends
        })
    };
    let clients: Vec<_> = (0..streams).map(work).collect();
    tokio::time::sleep(span / 2).await;
    let killed = Instant::now();
    fleet.engines.processes[2].kill();
    tokio::time::sleep(span / 2).await;
    stop.store(true, Ordering::Relaxed);
    let (mut ends, mut lost) = (Vec::new(), Vec::new());
    for client in clients {
        for end in client.await.expect("a client ends well") {
            match end {
                Ok(end) => ends.push(end),
                Err(problem) => lost.push(problem),
            }
        }
    }
    assert!(
        lost.is_empty(),
        "{} requests were lost: {:?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    let broken = ends.iter().filter(|(.., end)| *end == End::ErrorEvent).count();
    assert!(broken > 0 && broken <= streams, "{broken} were cut off");
    fleet.nothing_is_left().await;
    let failed = fleet
        .client
        .metric("equipoise_router_requests_total", "outcome=\"failed\"")
        .await;
    assert_eq!(failed, Some(broken as f64), "each is accounted for");
    let ttft = |from: Instant, until: Instant| {
        let inside = ends.iter().filter(|(at, ..)| *at >= from && *at < until);
        p99(inside.map(|(_, ttft, _)| *ttft).collect())
    };
    let (before, after) = (ttft(begun + span / 4, killed), ttft(killed, killed + span));
    eprintln!(
        "{streams} streams over four engines, one killed: {} ended, {broken} with an error event, none lost; \
         p99 TTFT {before:?} before and {after:?} after ({:.2} times)",
        ends.len(),
        after.as_secs_f64() / before.as_secs_f64()
    );
}

/// Clients that hang up, before the head, after it, or somewhere in the stream.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_at_random_leak_nothing() {
    let (clients, at_once) = if is_full() { (10_000, 200) } else { (400, 40) };
    let fleet = Fleet::start(2).await;
    let (places, done) = (Arc::new(Semaphore::new(at_once)), Arc::<AtomicUsize>::default());
    let mut resident = Vec::new();
    let mut leaving = Vec::new();
    for number in 0..clients {
        let place = Arc::clone(&places).acquire_owned().await.expect("it stays open");
        if number % (clients / 12) == 0 {
            resident.extend(fleet.router.resident_kib());
        }
        let (client, done) = (fleet.client.clone(), Arc::clone(&done));
        leaving.push(tokio::spawn(async move {
            let _place = place;
            // A cheap generator is random enough.
            let draw = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let patience = Duration::from_micros(draw % 400_000);
            let asking = async {
                let mut stream = client.try_stream(CHAT, &[], &streamed_chat(MODEL, 200)).await?;
                while stream.next().await?.is_some() {}
                Ok::<(), String>(())
            };
            // Dropped where it is.
            drop(tokio::time::timeout(patience, asking).await);
            done.fetch_add(1, Ordering::Relaxed);
        }));
    }
    for client in leaving {
        client.await.expect("a client ends well");
    }
    assert_eq!(done.load(Ordering::Relaxed), clients);
    fleet.nothing_is_left().await;
    resident.extend(fleet.router.resident_kib());
    let third = resident.len() / 3;
    let (before, after) = (resident[..=third].iter().max(), resident[third..].iter().max());
    eprintln!("{clients} clients left at random; the router's memory, KiB: {resident:?}");
    if let (Some(before), Some(after)) = (before, after) {
        // Allocators keep what they once had; a leak of a request would be some KiB each.
        let allowed = before + before / 10 + 2048;
        assert!(*after <= allowed, "{before} KiB in the first third, {after} KiB later");
    }
    for engine in 0..2 {
        let engine = fleet.engines.client(engine);
        eventually("the engines have nothing to do", || async {
            (engine.metric("vllm:num_requests_running", "").await == Some(0.0)).then_some(())
        })
        .await;
    }
}

/// From a client's disconnect to the engine's abort.
#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_reaches_the_engine() {
    let fleet = Fleet::start(1).await;
    let engine = fleet.engines.client(0);
    let mut delays = Vec::new();
    for _ in 0..if is_full() { 100 } else { 10 } {
        let mut stream = fleet.client.stream(CHAT, &[], &streamed_chat(MODEL, 4000)).await;
        stream.next().await.expect("flows").expect("has begun");
        let left = Instant::now();
        drop(stream);
        while engine.metric("vllm:num_requests_running", "").await != Some(0.0) {
            assert!(left.elapsed() < crate::PATIENCE, "it is still at work");
        }
        delays.push(left.elapsed());
    }
    delays.sort_unstable();
    eprintln!(
        "from disconnect to an idle engine: median {:?}, longest {:?}",
        delays[delays.len() / 2],
        delays[delays.len() - 1]
    );
}

/// While it drains, a router takes no new connection, and ends when its streams have.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_drains_takes_no_new_work() {
    let mut fleet = Fleet::start(1).await;
    let mut running = fleet.client.stream(CHAT, &[], &streamed_chat(MODEL, 60)).await;
    let first = running.next().await.expect("flows").expect("has begun");
    fleet.router.terminate();
    fleet.router.line_with("draining").await;
    // Connections of its own: the one that streams is in use.
    eventually("nobody new is let in", || async {
        let other = Client::new(fleet.client.base());
        let asked = other.try_stream(CHAT, &[], &streamed_chat(MODEL, 1)).await;
        asked.is_err().then_some(())
    })
    .await;
    let mut events = vec![first];
    events.extend(running.rest().await.expect("it is not cut off"));
    assert_eq!(complete_tokens(&events), Some(60));
    assert!(fleet.router.ended().await.success());
}

/// A stream that never ends is cut off when the time to drain is over, and its client hears why.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_end_is_cut_off_at_the_deadline() {
    let settings = FleetFile::new("[router]\ndrain_timeout_s = 1\n");
    let (engines, plane) = tokio::join!(Engines::start(HEAD, POOL, 1), ControlPlane::start("embedded"));
    let (_agent, (mut router, client)) = tokio::join!(
        agent(&plane.url, "node-a", &engines.real),
        router_under(&plane.url, "router-a", &settings)
    );
    settled(&plane.url, 1, "router-a").await;
    available(&client, 1).await;
    let mut running = client.stream(CHAT, &[], &streamed_chat(MODEL, 100_000)).await;
    running.next().await.expect("flows").expect("has begun");
    router.terminate();
    let events = running.rest().await.expect("it ends in good order");
    let last = events.last().expect("a last word");
    assert!(last.contains("shutting down") && last.contains("error"), "{last}");
    assert!(router.ended().await.success());
    let engine = engines.client(0);
    eventually("the engine has nothing to do", || async {
        (engine.metric("vllm:num_requests_running", "").await == Some(0.0)).then_some(())
    })
    .await;
}
