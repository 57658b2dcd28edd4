//! What a router adds: the same requests straight to an engine that answers at once, and through the router.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use equipoise_benches::{
    InstantEngine, Latencies, LocalFleet, chat_body, cpu, http_client, instance, post, say, table,
};
use equipoise_scheduler::SchedulerConfig;
use http::Uri;
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Distinct prompts, as the peers were measured.
const PROMPTS: u64 = 64;
const WARM_UP: Duration = Duration::from_millis(500);

/// Measures requests per second, latency and CPU time, directly and through a router in this process.
#[derive(Parser)]
struct Options {
    /// Policies to measure.
    #[arg(long, value_delimiter = ',', default_value = "round-robin,equipoise")]
    policy: Vec<String>,
    /// Connections, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    connections: Vec<usize>,
    /// Bytes of a prompt.
    #[arg(long, default_value_t = 200)]
    prompt_bytes: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Engines behind the router.
    #[arg(long, default_value_t = 3)]
    engines: usize,
}

struct Measured {
    requests: u64,
    seconds: f64,
    latencies: Latencies,
    router_cpu: Option<Duration>,
}

fn runtime(name: &str, threads: usize) -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()?)
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    ensure!(
        options.seconds.is_finite() && options.seconds > 0.0,
        "--seconds must be above zero"
    );
    // Threads of their own, so that the router's CPU time can be told from the rest; the counts are those of the peers' test.
    let (client, engines, routers) = (runtime("client", 1)?, runtime("engines", 1)?, runtime("router", 2)?);
    let mut running = Vec::new();
    for _ in 0..options.engines {
        running.push(engines.block_on(InstantEngine::start())?);
    }
    let first = running.first().context("--engines must be at least 1")?;
    let direct = format!("http://{}", first.addr());

    let head = [
        "path",
        "conns",
        "req/s",
        "p50 us",
        "p99",
        "added p50 us",
        "x direct p50",
        "router CPU us/req",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut base = Vec::new();
    for &connections in &options.connections {
        let measured = measure(&client, &options, connections, &direct)?;
        rows.push(row("direct", connections, &measured, None));
        base.push(measured.latencies.percentile(50.0));
    }
    for policy in &options.policy {
        let instances = running.iter().enumerate();
        let instances = instances
            .map(|(index, engine)| instance(&format!("engine-{index}"), "bench", format!("http://{}", engine.addr())))
            .collect();
        let scheduler = SchedulerConfig {
            policy: policy.clone(),
            ..SchedulerConfig::default()
        };
        let started = LocalFleet::in_front_of(instances, 1, &scheduler, routers.handle());
        let fleet = engines.block_on(started)?;
        for (&connections, base) in options.connections.iter().zip(&base) {
            let measured = measure(&client, &options, connections, &fleet.urls()[0])?;
            rows.push(row(policy, connections, &measured, Some(*base)));
        }
        engines.block_on(fleet.shutdown())?;
    }
    say(&format!(
        "prompts of {} bytes, answers of 450, {} s a row, client, router and engines on the same cores\n",
        options.prompt_bytes, options.seconds
    ));
    say(&table(&rows));
    Ok(())
}

fn row(path: &str, connections: usize, measured: &Measured, direct: Option<Duration>) -> Vec<String> {
    let p50 = measured.latencies.percentile(50.0);
    let none = || "-".to_owned();
    let per_request = |cpu: Duration| format!("{:.0}", cpu.as_secs_f64() * 1e6 / measured.requests.max(1) as f64);
    let mut row = vec![
        path.to_owned(),
        connections.to_string(),
        format!("{:.0}", measured.requests as f64 / measured.seconds),
    ];
    row.extend(measured.latencies.in_us(&[50.0, 99.0]));
    row.push(direct.map_or_else(none, |direct| {
        format!("{:.0}", p50.saturating_sub(direct).as_secs_f64() * 1e6)
    }));
    row.push(direct.map_or_else(none, |direct| {
        format!("{:.1}", p50.as_secs_f64() / direct.as_secs_f64())
    }));
    let cpu = measured.router_cpu.filter(|_| direct.is_some());
    row.push(cpu.map_or_else(none, per_request));
    row
}

/// Closed loop: every connection sends its next request when it has the answer to the last.
fn measure(client: &Runtime, options: &Options, connections: usize, url: &str) -> anyhow::Result<Measured> {
    let uri: Uri = format!("{url}/v1/chat/completions").parse()?;
    let bodies: Arc<Vec<_>> = Arc::new(
        (0..PROMPTS)
            .map(|index| chat_body("bench", index, options.prompt_bytes, None, false))
            .collect(),
    );
    let span = Duration::try_from_secs_f64(options.seconds)?;
    client.block_on(async {
        let http = http_client();
        let next = Arc::new(AtomicU64::new(0));
        let from = Instant::now() + WARM_UP;
        let until = from + span;
        let mut loops = JoinSet::new();
        for _ in 0..connections {
            let (http, uri, bodies, next) = (http.clone(), uri.clone(), Arc::clone(&bodies), Arc::clone(&next));
            loops.spawn(async move {
                let mut latencies = Latencies::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed) % PROMPTS;
                    let request = post(uri.clone(), bodies[index as usize].clone());
                    let started = Instant::now();
                    if started >= until {
                        return Ok(latencies);
                    }
                    let response = http.request(request).await?;
                    ensure!(response.status().is_success(), "status {}", response.status());
                    response.into_body().collect().await?;
                    if started >= from {
                        latencies.record(started.elapsed());
                    }
                }
            });
        }
        tokio::time::sleep_until(from.into()).await;
        let cpu_before = cpu::of_threads("router");
        tokio::time::sleep_until(until.into()).await;
        let cpu_after = cpu::of_threads("router");
        let mut latencies = Latencies::new();
        while let Some(ended) = loops.join_next().await {
            latencies.merge(&ended??);
        }
        Ok(Measured {
            requests: latencies.count(),
            seconds: span.as_secs_f64(),
            latencies,
            router_cpu: cpu_before
                .zip(cpu_after)
                .map(|(before, after)| after.saturating_sub(before)),
        })
    })
}
