//! What do several routers cost beside one, live? Six equal boxes behind one control plane, real HTTP, the same load
//! through one router and spread over several, in turn.

use std::time::Duration;

use clap::Parser;
use equipoise_benches::{Arrivals, Latencies, Load, LoadReport, LocalFleet, OpaqueBox, say, table};
use equipoise_scheduler::SchedulerConfig;

const MODEL: &str = "small";
const NAMES: [&str; 6] = ["box-0", "box-1", "box-2", "box-3", "box-4", "box-5"];
const SAMPLING: Duration = Duration::from_millis(7);

/// Runs six boxes of 50 ms with 4 slots each behind one router and behind several, live and in this process.
#[derive(Parser)]
struct Options {
    /// Policies to run.
    #[arg(long, value_delimiter = ',', default_value = "equipoise,least-requests")]
    policy: Vec<String>,
    /// Routers of the second arm.
    #[arg(long, default_value_t = 4)]
    routers: usize,
    /// Requests per second: 400 are 83 % of what the boxes can do.
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Seconds that requests are sent.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Even arrivals instead of Poisson ones.
    #[arg(long)]
    even: bool,
    /// Runs of each arm, in turn.
    #[arg(long, default_value_t = 3)]
    repeat: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let arrivals = if options.even { "even" } else { "Poisson" };
    say(&format!(
        "6 boxes of 50 ms, 4 slots each, declared; {} requests/s ({arrivals}) for {} s, {} run(s) of each arm in turn\n",
        options.rate, options.seconds, options.repeat
    ));
    let head = [
        "policy",
        "routers",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "growth of p99 %",
        "state's age ms, p50",
        "p99",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for policy in &options.policy {
        let mut arms = [1, options.routers].map(|routers| (routers, Latencies::default(), Latencies::default()));
        for seed in 0..options.repeat {
            for (routers, times, ages) in &mut arms {
                let report = once(options, policy, *routers, seed, ages).await?;
                for (error, count) in &report.errors {
                    say(&format!("{policy}, {routers} router(s): {count} requests: {error}"));
                }
                times.merge(&report.e2e);
            }
        }
        let p99 = |times: &Latencies| times.percentile(99.0).as_secs_f64();
        let growth = 100.0 * (p99(&arms[1].1) / p99(&arms[0].1) - 1.0);
        for (routers, times, ages) in &arms {
            let mut row = vec![policy.clone(), routers.to_string()];
            row.extend(times.in_ms(&[50.0, 90.0, 99.0, 99.9]));
            if *routers == 1 {
                row.extend(["", "", ""].map(str::to_owned));
            } else {
                row.push(format!("{growth:+.1}"));
                row.extend(ages.in_ms(&[50.0, 99.0]));
            }
            rows.push(row);
        }
    }
    say(&table(&rows));
    Ok(())
}

async fn once(
    options: &Options,
    policy: &str,
    routers: usize,
    seed: u64,
    ages: &mut Latencies,
) -> anyhow::Result<LoadReport> {
    let boxes = NAMES.map(|name| OpaqueBox {
        name,
        service: Duration::from_millis(50),
        slots: 4,
        declared: true,
    });
    let scheduler = SchedulerConfig {
        policy: policy.to_owned(),
        seed,
        ..SchedulerConfig::default()
    };
    let fleet = LocalFleet::of_boxes(MODEL, &boxes, routers, &scheduler).await?;
    let load = Load {
        urls: fleet.urls(),
        rate_per_s: options.rate,
        span: Duration::from_secs_f64(options.seconds),
        arrivals: if options.even {
            Arrivals::Even
        } else {
            Arrivals::Poisson(seed)
        },
        model: MODEL.to_owned(),
        stream: false,
        prompt_chars: 200,
        max_tokens: None,
        timeout: Duration::from_secs(60),
        in_flight_limit: 20_000,
    };
    let sampling = async {
        loop {
            tokio::time::sleep(SAMPLING).await;
            for age_s in fleet.peers_ages_s() {
                ages.record(Duration::from_secs_f64(age_s));
            }
        }
    };
    let report = tokio::select! {
        report = load.run() => report?,
        () = sampling => anyhow::bail!("sampling never ends"),
    };
    fleet.shutdown().await?;
    Ok(report)
}
