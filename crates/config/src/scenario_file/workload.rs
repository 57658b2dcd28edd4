//! `[workload]`: a trace or a generator, never half of each.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::table::{ArrivalsName, LengthsTable, PromptsName, ScaleName, WorkloadTable};
use super::{MOST_SECONDS, checked, number, optional};
use crate::error::Source;
use crate::{
    ArrivalsConfig, ConfigError, DataPath, GeneratorConfig, LengthsConfig, PromptsConfig, TraceConfig, TraceScaling,
    WorkloadConfig, WorkloadSource,
};

const MOST_REQUESTS: u64 = 100_000_000;
const RATES: (f64, f64) = (1e-6, 1e6);
/// Sigma where only the mean of a length is given: that of Azure's prompts of 2023.
const SIGMA: f64 = 0.8;

pub(super) fn workload(source: &Source<'_>, section: &Spanned<WorkloadTable>) -> Result<WorkloadConfig, ConfigError> {
    let table = section.get_ref();
    let requests = match &table.requests {
        Some(requests) if !(1..=MOST_REQUESTS).contains(requests.get_ref()) => {
            let problem = format!(
                "requests is {}; it must be from 1 to {MOST_REQUESTS}",
                requests.get_ref()
            );
            return Err(source.invalid(requests.span(), problem));
        }
        Some(requests) => usize::try_from(*requests.get_ref()).ok(),
        None => None,
    };
    let from = match (&table.trace, &table.arrivals) {
        (Some(trace), None) => WorkloadSource::Trace(self::trace(source, table, trace)?),
        (None, Some(arrivals)) => WorkloadSource::Generated(generator(source, section, arrivals)?),
        (Some(_), Some(arrivals)) => {
            let problem = "[workload] has both `trace` and `arrivals`: keep one of them";
            return Err(source.invalid(arrivals.span(), problem));
        }
        (None, None) => {
            let problem = "[workload] has neither `trace = \"FILE\"` nor `arrivals` (poisson, gamma, square, diurnal)";
            return Err(source.invalid(section.span(), problem));
        }
    };
    Ok(WorkloadConfig {
        source: from,
        requests,
        prompts: table.prompts.map(|PromptsName::ZeroEval| PromptsConfig::ZeroEval),
    })
}

/// Refuses keys that belong to the other kind of workload.
fn refuse<T>(source: &Source<'_>, what: &str, name: &str, value: Option<&Spanned<T>>) -> Result<(), ConfigError> {
    value.map_or(Ok(()), |value| {
        Err(source.invalid(value.span(), format!("`{name}` is nothing for {what}: take it out")))
    })
}

fn trace(source: &Source<'_>, table: &WorkloadTable, trace: &Spanned<String>) -> Result<TraceConfig, ConfigError> {
    let what = "a trace";
    refuse(source, what, "cv", table.cv.as_ref())?;
    refuse(source, what, "swing", table.swing.as_ref())?;
    refuse(source, what, "period_s", table.period_s.as_ref())?;
    refuse(source, what, "duration_s", table.duration_s.as_ref())?;
    refuse(source, what, "exact_rate", table.exact_rate.as_ref())?;
    refuse(source, what, "seed", table.seed.as_ref())?;
    let lengths = [
        ("prompt_tokens", &table.prompt_tokens),
        ("output_tokens", &table.output_tokens),
    ];
    for (name, lengths) in lengths {
        refuse(source, what, name, lengths.as_ref().map(|lengths| &lengths.mean))?;
    }
    let from_s = number(source, "from_s", &table.from_s, (0.0, MOST_SECONDS), 0.0)?;
    let to_s = optional(source, "to_s", &table.to_s, (0.0, MOST_SECONDS))?;
    if let Some((to_s, to)) = to_s.zip(table.to_s.as_ref())
        && to_s <= from_s
    {
        return Err(source.invalid(
            to.span(),
            format!("to_s is {to_s}: it must be later than from_s, {from_s}"),
        ));
    }
    Ok(TraceConfig {
        path: path(source, trace)?,
        format: table.format.as_ref().map(|format| format.get_ref().clone()),
        from_s,
        to_s,
        rate_per_s: optional(source, "rate_per_s", &table.rate_per_s, RATES)?,
        scaling: match table.scale.as_ref().map(Spanned::get_ref) {
            Some(ScaleName::Rate) => TraceScaling::Rate,
            Some(ScaleName::Time) | None => TraceScaling::Time,
        },
    })
}

/// `data:PATH`, or a path beside the scenario file.
fn path(source: &Source<'_>, written: &Spanned<String>) -> Result<DataPath, ConfigError> {
    let text = written.get_ref();
    let (text, in_data) = match text.strip_prefix("data:") {
        Some(rest) => (rest, true),
        None => (text.as_str(), false),
    };
    if text.is_empty() || text.contains('\0') {
        return Err(source.invalid(
            written.span(),
            "the path is empty: name a file, or `data:FILE` in the data folder",
        ));
    }
    Ok(if in_data {
        DataPath::Data(PathBuf::from(text))
    } else {
        DataPath::File(Path::new(source.origin).parent().unwrap_or(Path::new("")).join(text))
    })
}

fn generator(
    source: &Source<'_>,
    section: &Spanned<WorkloadTable>,
    name: &Spanned<ArrivalsName>,
) -> Result<GeneratorConfig, ConfigError> {
    let table = section.get_ref();
    let what = "generated arrivals";
    refuse(source, what, "format", table.format.as_ref())?;
    refuse(source, what, "from_s", table.from_s.as_ref())?;
    refuse(source, what, "to_s", table.to_s.as_ref())?;
    refuse(source, what, "scale", table.scale.as_ref())?;
    if table.requests.is_none() && table.duration_s.is_none() {
        let problem = "a workload without end: say `requests`, `duration_s` or both";
        return Err(source.invalid(section.span(), problem));
    }
    let Some(rate) = &table.rate_per_s else {
        return Err(source.invalid(
            section.span(),
            "[workload] has no `rate_per_s`: mean requests per second",
        ));
    };
    if let Some(exact) = table.exact_rate.as_ref().filter(|exact| *exact.get_ref())
        && table.requests.is_none()
    {
        let problem = "exact_rate needs `requests`: the last of them ends the workload";
        return Err(source.invalid(exact.span(), problem));
    }
    Ok(GeneratorConfig {
        arrivals: arrivals(source, table, name)?,
        rate_per_s: checked(source, "rate_per_s", *rate.get_ref(), rate.span(), RATES)?,
        duration_s: optional(source, "duration_s", &table.duration_s, (1e-3, MOST_SECONDS))?,
        prompt_tokens: lengths(source, table.prompt_tokens.as_ref())?,
        output_tokens: lengths(source, table.output_tokens.as_ref())?,
        exact_rate: table.exact_rate.as_ref().is_some_and(|exact| *exact.get_ref()),
        seed: table.seed.as_ref().map(|seed| *seed.get_ref()),
    })
}

fn arrivals(
    source: &Source<'_>,
    table: &WorkloadTable,
    name: &Spanned<ArrivalsName>,
) -> Result<ArrivalsConfig, ConfigError> {
    let name = *name.get_ref();
    let what = format!("{name:?} arrivals").to_lowercase();
    let swings = matches!(name, ArrivalsName::Square | ArrivalsName::Diurnal);
    if name != ArrivalsName::Gamma {
        refuse(source, &what, "cv", table.cv.as_ref())?;
    }
    if !swings {
        refuse(source, &what, "swing", table.swing.as_ref())?;
        refuse(source, &what, "period_s", table.period_s.as_ref())?;
    }
    let swing = number(source, "swing", &table.swing, (0.0, 1.0), 0.5)?;
    let period_s = |default| number(source, "period_s", &table.period_s, (1e-3, 1e9), default);
    Ok(match name {
        ArrivalsName::Poisson => ArrivalsConfig::Poisson,
        ArrivalsName::Gamma => ArrivalsConfig::Gamma {
            cv: number(source, "cv", &table.cv, (0.01, 100.0), 3.0)?,
        },
        ArrivalsName::Square => ArrivalsConfig::Square {
            swing,
            period_s: period_s(60.0)?,
        },
        ArrivalsName::Diurnal => ArrivalsConfig::Diurnal {
            swing,
            period_s: period_s(86_400.0)?,
        },
    })
}

fn lengths(source: &Source<'_>, table: Option<&LengthsTable>) -> Result<Option<LengthsConfig>, ConfigError> {
    let Some(table) = table else { return Ok(None) };
    let most = table.most.as_ref().map_or(1_000_000, |most| *most.get_ref());
    if let Some(given) = table.most.as_ref().filter(|_| most == 0) {
        return Err(source.invalid(given.span(), "most is 0: a length is at least 1 token"));
    }
    Ok(Some(LengthsConfig {
        mean: checked(source, "mean", *table.mean.get_ref(), table.mean.span(), (1.0, 1e6))?,
        sigma: number(source, "sigma", &table.sigma, (0.0, 5.0), SIGMA)?,
        most,
    }))
}
