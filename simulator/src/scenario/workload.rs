//! The requests of a cell.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use equipoise_config::{
    ArrivalsConfig, DataPath, GeneratorConfig, LengthsConfig, TraceConfig, TraceScaling, WorkloadSource,
};
use equipoise_trace::{
    Arrivals, GeneratorError, LengthSource, Lengths, ReadOptions, Scaled, Scaling, Synthesis, TraceError, Workload,
    WorkloadFormat, WorkloadGenerator, WorkloadRecord,
};
use equipoise_types::Timestamp;

use super::{Scenario, ScenarioCell, ScenarioError};

/// The requests of a cell, by arrival, one at a time.
pub(super) type Requests<'a> = Box<dyn Iterator<Item = Result<WorkloadRecord, TraceError>> + 'a>;

/// Copies of a trace's requests arrive within so many seconds after their original.
const SPREAD_S: f64 = 1.0;

fn path(written: &DataPath, data: Option<&Path>) -> Result<PathBuf, ScenarioError> {
    match (written, data) {
        (DataPath::File(path), _) => Ok(path.clone()),
        (DataPath::Data(path), Some(data)) => Ok(data.join(path)),
        (DataPath::Data(path), None) => Err(ScenarioError::NoData(path.clone())),
    }
}

/// The segment of a trace that a scenario asks for, from time zero on.
pub(super) fn segment(
    trace: &TraceConfig,
    requests: Option<usize>,
    data: Option<&Path>,
) -> Result<Arc<[WorkloadRecord]>, ScenarioError> {
    let path = path(&trace.path, data)?;
    let format = match &trace.format {
        Some(name) => Some(WorkloadFormat::from_str(name).map_err(|_| ScenarioError::Format(name.clone()))?),
        None => None,
    };
    // A segment may begin beyond the first so many requests of the file.
    let limit = requests.filter(|_| trace.from_s == 0.0);
    let options = ReadOptions {
        format,
        limit,
        ..ReadOptions::default()
    };
    let mut records = Workload::load(&path, &options)?.records;
    let (from, to) = (
        Timestamp::from_secs_f64(trace.from_s),
        trace.to_s.map(Timestamp::from_secs_f64),
    );
    records.retain(|record| record.arrival >= from && to.is_none_or(|to| record.arrival < to));
    records.truncate(requests.unwrap_or(usize::MAX));
    for record in &mut records {
        record.arrival = Timestamp::ZERO + record.arrival.since(from);
    }
    if records.is_empty() {
        return Err(ScenarioError::EmptySegment(path));
    }
    Ok(records.into())
}

impl Scenario {
    /// The requests of a cell, by arrival.
    pub(super) fn workload(&self, cell: &ScenarioCell) -> Result<Requests<'_>, ScenarioError> {
        match (&self.config.workload.source, &self.trace) {
            (WorkloadSource::Trace(trace), Some(records)) => scaled(trace, records, cell),
            (WorkloadSource::Generated(generator), _) => {
                generated(generator, self.config.workload.requests, cell.rate_per_s, cell.seed)
            }
            (WorkloadSource::Trace(_), None) => Ok(Box::new(std::iter::empty())),
        }
    }
}

/// The trace at the rate that is asked for.
fn scaled<'a>(
    trace: &TraceConfig,
    records: &'a [WorkloadRecord],
    cell: &ScenarioCell,
) -> Result<Requests<'a>, ScenarioError> {
    let whole = records.iter().cloned().map(Ok);
    let Some(wanted) = cell.rate_per_s.or(trace.rate_per_s) else {
        return Ok(Box::new(whole));
    };
    let Some(rate) = mean_rate(records) else {
        let (DataPath::File(path) | DataPath::Data(path)) = &trace.path;
        return Err(ScenarioError::NoRate(path.clone()));
    };
    let scaling = match trace.scaling {
        TraceScaling::Time => Scaling::Time { factor: rate / wanted },
        TraceScaling::Rate => Scaling::Rate {
            factor: wanted / rate,
            spread_s: SPREAD_S,
        },
    };
    Ok(Box::new(Scaled::new(whole, scaling, cell.seed)?))
}

/// Mean arrivals per second between the first and the last; `None` if they have no distance.
fn mean_rate(records: &[WorkloadRecord]) -> Option<f64> {
    let (first, last) = (records.first()?, records.last()?);
    let span_s = last.arrival.secs_since(first.arrival);
    (span_s > 0.0).then(|| (records.len() - 1) as f64 / span_s)
}

fn named(record: Result<WorkloadRecord, GeneratorError>) -> Result<WorkloadRecord, TraceError> {
    record.map_err(|source| TraceError::Generator {
        origin: "[workload]".to_owned(),
        source,
    })
}

fn generated(
    generator: &GeneratorConfig,
    requests: Option<usize>,
    rate_per_s: Option<f64>,
    seed: u64,
) -> Result<Requests<'static>, ScenarioError> {
    let rate_per_s = rate_per_s.unwrap_or(generator.rate_per_s);
    let usual = WorkloadGenerator::default();
    let lengths = |given: Option<LengthsConfig>, usual: Lengths| {
        given.map_or(usual, |given| Lengths {
            mean: given.mean,
            sigma: given.sigma,
            most: given.most,
        })
    };
    let synthesis = Synthesis {
        arrivals: match generator.arrivals {
            ArrivalsConfig::Poisson => Arrivals::Poisson,
            ArrivalsConfig::Gamma { cv } => Arrivals::Gamma { cv },
            ArrivalsConfig::Square { swing, period_s } => Arrivals::Square { swing, period_s },
            ArrivalsConfig::Diurnal { swing, period_s } => Arrivals::Diurnal { swing, period_s },
        },
        rate_per_s,
        lengths: LengthSource::LogNormal {
            prompt: lengths(generator.prompt_tokens, usual.prompt),
            output: lengths(generator.output_tokens, usual.output),
        },
        requests: requests.map(|requests| requests as u64),
        duration_s: generator.duration_s,
        seed: generator.seed.unwrap_or(seed),
    };
    if !generator.exact_rate {
        return Ok(Box::new(synthesis.requests()?.map(named)));
    }
    // Generated twice, first to know when the last comes: none is kept.
    let (mut count, mut last_s) = (0_u64, 0.0);
    for record in synthesis.requests()? {
        count += 1;
        last_s = record?.arrival.as_secs_f64();
    }
    let factor = if last_s > 0.0 {
        count as f64 / rate_per_s / last_s
    } else {
        1.0
    };
    let stretched = move |record: Result<WorkloadRecord, GeneratorError>| {
        named(record).map(|record| WorkloadRecord {
            arrival: Timestamp::from_secs_f64(record.arrival.as_secs_f64() * factor),
            ..record
        })
    };
    Ok(Box::new(synthesis.requests()?.map(stretched)))
}
