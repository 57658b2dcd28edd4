//! What do several routers cost beside one, live? Six equal boxes behind one control plane, real HTTP, the same load
//! through one router and spread over several, in turn. Every router is a process of its own.

use std::time::Duration;

use clap::Parser;
use equipoise_benches::{
    Arrivals, Latencies, Load, LoadReport, LocalFleet, OpaqueBox, RouterProcess, RouterRole, say, table,
};
use equipoise_scheduler::SchedulerConfig;

const MODEL: &str = "small";
const NAMES: [&str; 6] = ["box-0", "box-1", "box-2", "box-3", "box-4", "box-5"];

/// Runs six boxes of 50 ms with 4 slots each behind one router and behind several, live.
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
    #[command(flatten)]
    role: RouterRole,
}

/// One number of routers under one policy.
#[derive(Default)]
struct Arm {
    routers: usize,
    times: Latencies,
    /// Of each run, milliseconds.
    p99_ms: Vec<f64>,
    ages: Latencies,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if options.role.control.is_some() {
        // Several of them share the machine.
        runtime.worker_threads(2);
    }
    runtime.enable_all().build()?.block_on(async {
        match &options.role.control {
            Some(control) => options.role.play(control).await,
            None => run(&options).await,
        }
    })
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let arrivals = if options.even { "even" } else { "Poisson" };
    say(&format!(
        "6 boxes of 50 ms, 4 slots each, declared; {} requests/s ({arrivals}) for {} s, {} run(s) of each arm in turn; routers are processes\n",
        options.rate, options.seconds, options.repeat
    ));
    let head = [
        "policy",
        "routers",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "p99 of the runs",
        "growth of p99 %, median",
        "of the runs",
        "state's age ms, p50",
        "p99",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for policy in &options.policy {
        let mut arms = [1, options.routers].map(|routers| Arm {
            routers,
            ..Arm::default()
        });
        for seed in 0..options.repeat {
            for arm in &mut arms {
                let report = once(options, policy, arm.routers, seed, &mut arm.ages).await?;
                for (error, count) in &report.errors {
                    say(&format!(
                        "{policy}, {} router(s): {count} requests: {error}",
                        arm.routers
                    ));
                }
                arm.p99_ms.push(1e3 * report.e2e.percentile(99.0).as_secs_f64());
                arm.times.merge(&report.e2e);
            }
        }
        let [alone, several] = &arms;
        let pairs = several.p99_ms.iter().zip(&alone.p99_ms);
        let mut growths: Vec<f64> = pairs.map(|(several, alone)| 100.0 * (several / alone - 1.0)).collect();
        growths.sort_by(f64::total_cmp);
        for arm in &arms {
            let mut row = vec![policy.clone(), arm.routers.to_string()];
            row.extend(arm.times.in_ms(&[50.0, 90.0, 99.0, 99.9]));
            let runs: Vec<String> = arm.p99_ms.iter().map(|ms| format!("{ms:.1}")).collect();
            row.push(runs.join(" "));
            if arm.routers > 1 {
                let each: Vec<String> = growths.iter().map(|growth| format!("{growth:+.1}")).collect();
                row.push(
                    growths
                        .get(growths.len() / 2)
                        .map_or_else(String::new, |growth| format!("{growth:+.1}")),
                );
                row.push(each.join(" "));
                row.extend(arm.ages.in_ms(&[50.0, 99.0]));
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
    let fleet = LocalFleet::of_boxes(MODEL, &boxes, 0, &SchedulerConfig::default()).await?;
    let control = fleet.control_url();
    let start = |index: usize| {
        let role = RouterRole {
            control: Some(control.clone()),
            name: format!("router-{index}"),
            policy: policy.to_owned(),
            seed: seed * 1000 + index as u64,
            instances: NAMES.len(),
        };
        tokio::task::spawn_blocking(move || RouterProcess::start(&role))
    };
    let mut running = Vec::with_capacity(routers);
    for index in 0..routers {
        running.push(start(index).await??);
    }
    let load = Load {
        urls: running.iter().map(|router| router.url().to_owned()).collect(),
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
    let report = load.run().await?;
    for router in running {
        // A router says good-bye to the control plane in this process: that must be able to answer.
        let mut noted = Latencies::default();
        let ended = tokio::task::spawn_blocking(move || router.shutdown(&mut noted).map(|()| noted));
        ages.merge(&ended.await??);
    }
    fleet.shutdown().await?;
    Ok(report)
}
