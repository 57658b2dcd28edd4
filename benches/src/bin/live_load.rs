//! An open-loop load generator for any OpenAI-compatible server.

use std::time::Duration;

use clap::Parser;
use equipoise_benches::{Arrivals, Load, LoadReport, say, table};

/// Sends chat requests at a fixed rate and prints latencies, errors and the share of each instance.
#[derive(Parser)]
struct Options {
    /// Base URLs, with or without /v1, taken in turn.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:8080")]
    url: Vec<String>,
    /// The model to ask for.
    #[arg(long, default_value = "auto")]
    model: String,
    /// Requests per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Seconds that requests are sent.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Poisson arrivals instead of even ones.
    #[arg(long)]
    poisson: bool,
    /// Whole answers instead of streams.
    #[arg(long)]
    no_stream: bool,
    /// Prompt tokens, at four characters each.
    #[arg(long, default_value_t = 100)]
    prompt_tokens: usize,
    /// Most answer tokens; the server's own limit by default.
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Seconds after which a request counts as failed.
    #[arg(long, default_value_t = 120.0)]
    timeout: f64,
    /// Requests that may be out at once; more are counted as errors and not sent.
    #[arg(long, default_value_t = 4096)]
    in_flight_limit: usize,
    /// Seed of Poisson arrivals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for (name, value) in [
        ("rate", options.rate),
        ("seconds", options.seconds),
        ("timeout", options.timeout),
    ] {
        anyhow::ensure!(
            value.is_finite() && value > 0.0,
            "--{name} is {value}; it must be above zero"
        );
    }
    anyhow::ensure!(
        !options.model.contains(['"', '\\']) && !options.model.chars().any(char::is_control),
        "--model holds a character that no model's name has"
    );
    let load = Load {
        urls: options.url,
        rate_per_s: options.rate,
        span: Duration::try_from_secs_f64(options.seconds)?,
        arrivals: if options.poisson {
            Arrivals::Poisson(options.seed)
        } else {
            Arrivals::Even
        },
        model: options.model,
        stream: !options.no_stream,
        prompt_chars: options.prompt_tokens * 4,
        max_tokens: options.max_tokens,
        timeout: Duration::try_from_secs_f64(options.timeout)?,
        in_flight_limit: options.in_flight_limit,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    print(&load, &runtime.block_on(load.run())?);
    Ok(())
}

fn print(load: &Load, report: &LoadReport) {
    say(&format!(
        "{} of {} requests answered, {} of them within {:?} ({:.1}/s)\n",
        report.finished,
        report.offered,
        report.finished_in_span,
        load.span,
        report.finished_in_span as f64 / load.span.as_secs_f64()
    ));
    let percents = [50.0, 90.0, 99.0, 99.9, 100.0];
    let mut rows = vec![["ms", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned).to_vec()];
    for (name, latencies) in [("TTFT", &report.ttft), ("E2E", &report.e2e)] {
        if latencies.count() > 0 {
            rows.push([vec![name.to_owned()], latencies.in_ms(&percents)].concat());
        }
    }
    say(&table(&rows));
    if !report.by_instance.is_empty() {
        let mut rows = vec![["instance", "answers", "share %"].map(str::to_owned).to_vec()];
        for (name, count) in &report.by_instance {
            let share = format!("{:.1}", report.share(name) * 100.0);
            rows.push(vec![name.clone(), count.to_string(), share]);
        }
        say(&format!("\n{}", table(&rows)));
    }
    if !report.errors.is_empty() {
        let mut rows = vec![["error", "requests"].map(str::to_owned).to_vec()];
        rows.extend(
            report
                .errors
                .iter()
                .map(|(error, count)| vec![error.clone(), count.to_string()]),
        );
        say(&format!("\n{}", table(&rows)));
    }
}
