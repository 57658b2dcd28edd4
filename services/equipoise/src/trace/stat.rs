//! `equipoise trace stat`.

use std::path::PathBuf;

use clap::Args;
use equipoise_trace::{CountSummary, TokenSummary, WorkloadFormat, WorkloadStatistics, WorkloadSummary};

use super::{Reading, say_notes, say_progress};
use crate::terminal::{say, table};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The trace.
    file: PathBuf,
    #[command(flatten)]
    reading: Reading,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let mut reader = options.reading.open(&options.file)?;
    let mut statistics = WorkloadStatistics::default();
    for record in reader.by_ref() {
        statistics.observe(&record?);
        say_progress(statistics.requests());
    }
    say_notes(&reader.notes());
    anyhow::ensure!(
        statistics.requests() > 0,
        "{}: no request in it",
        options.file.display()
    );
    let summary = statistics.summary();
    if options.json {
        say(&serde_json::to_string_pretty(&summary)?);
    } else {
        say(&text(&summary, reader.format()));
    }
    Ok(())
}

fn text(summary: &WorkloadSummary, format: WorkloadFormat) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let mut lines = vec![
        format!("format      {format}"),
        format!("requests    {}", summary.requests),
        format!("span        {}", span(summary.span_s)),
        format!(
            "rate        {} /s, gaps with cv {}",
            number(summary.rate_per_s),
            number(summary.gap_cv)
        ),
    ];
    for CountSummary {
        window_s,
        peak_per_s,
        dispersion,
    } in &summary.counts
    {
        lines.push(format!(
            "per {:<8}peak {peak_per_s:.2} /s, index of dispersion {}",
            format!("{window_s} s"),
            number(*dispersion)
        ));
    }
    if summary.tenants > 0 {
        lines.push(format!("tenants     {}", summary.tenants));
    }
    if let Some(prefix) = &summary.prefix {
        let how = if prefix.sampled_share < 1.0 {
            format!(", estimated on {:.1} % of them", 100.0 * prefix.sampled_share)
        } else {
            String::new()
        };
        lines.push(format!(
            "prefixes    {} blocks of {} requests, {:.1} % came before{how}",
            prefix.blocks,
            prefix.requests,
            100.0 * prefix.reuse_share
        ));
    }
    let row = |name: &str, tokens: &TokenSummary| {
        let mut row = vec![name.to_owned(), format!("{:.1}", tokens.mean)];
        row.extend([tokens.p50, tokens.p90, tokens.p99, tokens.max].map(|value| value.to_string()));
        row
    };
    let head = ["tokens", "mean", "p50", "p90", "p99", "max"]
        .map(str::to_owned)
        .to_vec();
    lines.push(String::new());
    lines.push(table(&[
        head,
        row("prompt", &summary.prompt_tokens),
        row("output", &summary.output_tokens),
    ]));
    lines.join("\n")
}

/// Seconds, and hours or days where they say more.
fn span(seconds: f64) -> String {
    const HOUR_S: f64 = 3600.0;
    match seconds {
        _ if seconds >= 48.0 * HOUR_S => format!("{seconds:.0} s ({:.1} days)", seconds / (24.0 * HOUR_S)),
        _ if seconds >= 2.0 * HOUR_S => format!("{seconds:.0} s ({:.1} h)", seconds / HOUR_S),
        _ => format!("{seconds:.1} s"),
    }
}
