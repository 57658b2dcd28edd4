//! `equipoise trace generate`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use equipoise_trace::{
    Arrivals, LengthSource, ReadOptions, ServeGenOptions, Synthesis, WorkloadFormat, WorkloadGenerator, WorkloadReader,
    sample_lengths,
};

use super::output::Output;
use super::say_notes;
use crate::terminal::say;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Process {
    /// Independent of one another.
    Poisson,
    /// Gaps of a Gamma distribution; --cv.
    Gamma,
    /// Gaps of a Weibull distribution; --cv.
    Weibull,
    /// A rate that is high and low in turns; --swing, --period.
    Square,
    /// A rate that follows a sine; --swing, --period.
    Diurnal,
}

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where it goes.
    output: PathBuf,
    /// How requests come.
    #[arg(long, value_enum, default_value = "poisson", conflicts_with = "clients")]
    arrivals: Process,
    /// Mean requests per second. Default: 5; with --clients as recorded.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Coefficient of variation of the gaps (gamma, weibull): 1 as Poisson, above it bursty. Default: 3.
    #[arg(long, conflicts_with = "clients")]
    cv: Option<f64>,
    /// How far the rate goes up and down (square, diurnal), as a share of its mean, 0 to 1. Default: 0.5.
    #[arg(long, conflicts_with = "clients")]
    swing: Option<f64>,
    /// Seconds from one rise to the next. Default: 60 (square), 86400 (diurnal).
    #[arg(long, value_name = "S", conflicts_with = "clients")]
    period: Option<f64>,
    /// So many requests at most.
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// None later than this, seconds.
    #[arg(long, value_name = "S")]
    duration: Option<f64>,
    /// Draw lengths from the pairs of another trace. Default: log-normal, as below.
    #[arg(long, value_name = "FILE", conflicts_with = "clients")]
    lengths: Option<PathBuf>,
    #[command(flatten)]
    log_normal: LogNormal,
    /// Let recorded clients send, each with its own rate, bursts and lengths: a ServeGen folder or archive.
    #[arg(long, value_name = "PATH")]
    clients: Option<PathBuf>,
    /// With --clients: where in the recorded time to begin, seconds.
    #[arg(long, value_name = "S", requires = "clients", default_value_t = 0.0)]
    start: f64,
    /// Same seed, same trace.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The format to write: parquet or jsonl. Default: as the extension says.
    #[arg(long, value_name = "FORMAT")]
    to: Option<WorkloadFormat>,
}

/// Lengths that are log-normal, tokens. The defaults are those of Azure's conversation trace of 2023.
#[derive(Debug, Args)]
struct LogNormal {
    /// Mean prompt length, tokens. Default: 1155.
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["clients", "lengths"])]
    prompt_mean: Option<f64>,
    /// Standard deviation of its logarithm. Default: 0.81.
    #[arg(long, value_name = "X", conflicts_with_all = ["clients", "lengths"])]
    prompt_sigma: Option<f64>,
    /// Mean answer length, tokens. Default: 211.
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["clients", "lengths"])]
    output_mean: Option<f64>,
    /// Standard deviation of its logarithm. Default: 0.68.
    #[arg(long, value_name = "X", conflicts_with_all = ["clients", "lengths"])]
    output_sigma: Option<f64>,
}

impl LogNormal {
    fn source(&self) -> anyhow::Result<LengthSource> {
        // Cut where they would matter to nobody's context.
        const MOST_TOKENS: u32 = 1_000_000;
        let WorkloadGenerator {
            mut prompt, mut output, ..
        } = WorkloadGenerator::default();
        for (lengths, mean, sigma, name) in [
            (&mut prompt, self.prompt_mean, self.prompt_sigma, "prompt"),
            (&mut output, self.output_mean, self.output_sigma, "output"),
        ] {
            if mean.is_some() || sigma.is_some() {
                lengths.most = MOST_TOKENS;
            }
            lengths.mean = mean.unwrap_or(lengths.mean);
            lengths.sigma = sigma.unwrap_or(lengths.sigma);
            if !(1.0..=f64::from(MOST_TOKENS)).contains(&lengths.mean) {
                bail!(
                    "--{name}-mean is {}; it must be from 1 to {MOST_TOKENS} tokens",
                    lengths.mean
                );
            }
            if !(0.0..=5.0).contains(&lengths.sigma) {
                bail!("--{name}-sigma is {}; it must be from 0 to 5", lengths.sigma);
            }
        }
        Ok(LengthSource::LogNormal { prompt, output })
    }
}

fn arrivals(options: &Options) -> anyhow::Result<Arrivals> {
    const HOW: &str = "say --arrivals gamma or weibull for --cv, square or diurnal for --swing and --period";
    let varies = matches!(options.arrivals, Process::Gamma | Process::Weibull);
    let swings = matches!(options.arrivals, Process::Square | Process::Diurnal);
    if (options.cv.is_some() && !varies) || ((options.swing.is_some() || options.period.is_some()) && !swings) {
        bail!("--arrivals {:?} has no such parameter; {HOW}", options.arrivals);
    }
    let cv = options.cv.unwrap_or(3.0);
    let swing = options.swing.unwrap_or(0.5);
    let period_s = |default_s| options.period.unwrap_or(default_s);
    Ok(match options.arrivals {
        Process::Poisson => Arrivals::Poisson,
        Process::Gamma => Arrivals::Gamma { cv },
        Process::Weibull => Arrivals::Weibull { cv },
        Process::Square => Arrivals::Square {
            swing,
            period_s: period_s(60.0),
        },
        Process::Diurnal => Arrivals::Diurnal {
            swing,
            period_s: period_s(86_400.0),
        },
    })
}

fn lengths_of(path: &Path, seed: u64) -> anyhow::Result<LengthSource> {
    /// Eight megabytes.
    const MOST_PAIRS: usize = 1_000_000;
    let reader = WorkloadReader::open(path, &ReadOptions::default())?;
    let pairs = sample_lengths(reader, MOST_PAIRS, seed).with_context(|| format!("--lengths {}", path.display()))?;
    Ok(LengthSource::Empirical(pairs.into()))
}

fn synthetic(options: &Options) -> anyhow::Result<u64> {
    let synthesis = Synthesis {
        arrivals: arrivals(options)?,
        rate_per_s: options.rate.unwrap_or(5.0),
        lengths: match &options.lengths {
            Some(path) => lengths_of(path, options.seed)?,
            None => options.log_normal.source()?,
        },
        requests: options.requests,
        duration_s: options.duration,
        seed: options.seed,
    };
    let requests = synthesis
        .requests()
        .context("--requests, --duration and --rate say how much")?;
    let mut output = Output::create(&options.output, options.to)?;
    for record in requests {
        output.write(record?)?;
    }
    output.finish()
}

fn recorded(options: &Options, clients: &Path) -> anyhow::Result<u64> {
    let reading = ReadOptions {
        format: Some(WorkloadFormat::ServeGen),
        limit: options
            .requests
            .map(|requests| usize::try_from(requests).unwrap_or(usize::MAX)),
        serve_gen: ServeGenOptions {
            start_s: options.start,
            duration_s: options.duration,
            rate_per_s: options.rate,
            seed: options.seed,
        },
        ..ReadOptions::default()
    };
    let mut reader = WorkloadReader::open(clients, &reading)?;
    let mut output = Output::create(&options.output, options.to)?;
    for record in reader.by_ref() {
        output.write(record?)?;
    }
    say_notes(&reader.notes());
    output.finish()
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let written = match &options.clients {
        Some(clients) => recorded(options, clients)?,
        None => synthetic(options)?,
    };
    say(&format!("{}: {written} requests", options.output.display()));
    Ok(())
}
