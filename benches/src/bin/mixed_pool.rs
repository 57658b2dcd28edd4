//! Two fast boxes and one slow box of unknown speed: how soon does a router learn, and what does the tail pay?

use std::time::Duration;

use clap::Parser;
use equipoise_benches::{Arrivals, Load, LoadReport, LocalFleet, OpaqueBox, say, table};
use equipoise_scheduler::SchedulerConfig;

const MODEL: &str = "small";
const FAST: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(400);
const SLOTS: u32 = 8;

/// The same test with other routers: policy, share to the slow box (%), p50, p90, p99 (ms), finished within 12 s.
const ELSEWHERE: [[&str; 6]; 6] = [
    ["vllm-router 0.1.17 power_of_two", "7.7", "52", "53", "403", "2623"],
    ["sglang-router 0.3.2 cache_aware", "5.9", "52", "53", "403", "2627"],
    ["smg 1.13.0 least_load", "19.2", "52", "66", "7987", "2359"],
    ["smg 1.13.0 cache_aware", "20.4", "52", "73", "7991", "2324"],
    ["vllm-router 0.1.17 round_robin", "33", "52", "1570", "7999", "1985"],
    ["sglang-router 0.3.2 power_of_two", "34", "52", "1643", "8227", "1957"],
];

/// Runs the heterogeneous pool, live and in this process: 2 boxes of 50 ms and 1 of 400 ms, 8 slots each.
#[derive(Parser)]
struct Options {
    /// Policies to run, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "equipoise")]
    policy: Vec<String>,
    /// Requests per second.
    #[arg(long, default_value_t = 220.0)]
    rate: f64,
    /// Seconds that requests are sent.
    #[arg(long, default_value_t = 12.0)]
    seconds: f64,
    /// Poisson arrivals instead of even ones.
    #[arg(long)]
    poisson: bool,
    /// Tell the router how many slots each box has. It is never told how fast they are.
    #[arg(long)]
    declared: bool,
    /// Routers, each with an equal part of the requests.
    #[arg(long, default_value_t = 1)]
    routers: usize,
    /// Runs of each policy, each with a fresh router that knows nothing.
    #[arg(long, default_value_t = 1)]
    repeat: u64,
    /// `max_tokens` of a request; none by default.
    #[arg(long)]
    max_tokens: Option<u32>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let arrivals = if options.poisson { "Poisson" } else { "even" };
    let told = if options.declared {
        "8 slots each are declared"
    } else {
        "nothing is declared"
    };
    say(&format!(
        "2 boxes of 50 ms and 1 of 400 ms, 8 slots each; {told}; {} requests/s ({arrivals}) for {} s, {} router(s)\n",
        options.rate, options.seconds, options.routers
    ));
    let head = [
        "policy",
        "slow box %",
        "p50 ms",
        "p90",
        "p99",
        "max",
        "in time",
        "in all",
        "offered",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for policy in &options.policy {
        for seed in 0..options.repeat {
            let report = once(options, policy, seed).await?;
            for (error, count) in &report.errors {
                say(&format!("{policy}: {count} requests: {error}"));
            }
            rows.push(row(policy, &report));
        }
    }
    let bar = ["(the bar)", "<= 6", "", "", "", "", "<= 403", "", "", "", ""];
    rows.push(bar.map(str::to_owned).to_vec());
    for [router, share, p50, p90, p99, finished] in ELSEWHERE {
        let cells = [
            &format!("[1] {router}"),
            share,
            "",
            "",
            p50,
            p90,
            p99,
            "",
            finished,
            "",
            "2640",
        ];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    say(&table(&rows));
    say(
        "\n[1] measured elsewhere, earlier, on another 2-vCPU machine and with another load generator; for orientation.",
    );
    say(
        "in time: answered before the last second was over; percentiles are over all answers, from the time a request was due.",
    );
    Ok(())
}

async fn once(options: &Options, policy: &str, seed: u64) -> anyhow::Result<LoadReport> {
    let opaque = |name, service| OpaqueBox {
        name,
        service,
        slots: SLOTS,
        declared: options.declared,
    };
    let boxes = [opaque("fast-0", FAST), opaque("fast-1", FAST), opaque("slow-0", SLOW)];
    let scheduler = SchedulerConfig {
        policy: policy.to_owned(),
        seed,
        ..SchedulerConfig::default()
    };
    let fleet = LocalFleet::of_boxes(MODEL, &boxes, options.routers, &scheduler).await?;
    let load = Load {
        urls: fleet.urls(),
        rate_per_s: options.rate,
        span: Duration::from_secs_f64(options.seconds),
        arrivals: if options.poisson {
            Arrivals::Poisson(seed)
        } else {
            Arrivals::Even
        },
        model: MODEL.to_owned(),
        stream: false,
        prompt_chars: 200,
        max_tokens: options.max_tokens,
        timeout: Duration::from_secs(60),
        in_flight_limit: 20_000,
    };
    let report = load.run().await?;
    fleet.shutdown().await?;
    Ok(report)
}

fn row(policy: &str, report: &LoadReport) -> Vec<String> {
    let shares = ["slow-0", "fast-0", "fast-1"].map(|name| format!("{:.2}", report.share(name) * 100.0));
    let mut row = vec![policy.to_owned()];
    row.extend(shares);
    row.extend(report.e2e.in_ms(&[50.0, 90.0, 99.0, 100.0]));
    row.extend([report.finished_in_span, report.finished, report.offered].map(|count| count.to_string()));
    row
}
