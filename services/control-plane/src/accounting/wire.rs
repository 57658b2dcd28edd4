//! Between the wire's messages and the energy crate's types.

use super::instance::Slice;
use equipoise_energy::{EnergyFigures, EnergyFlaw, EnergySource, Grouping, IntervalEnergy, Report};
use equipoise_proto::v1 as wire;
use equipoise_types::{MilliJoules, Timestamp};

pub(super) fn interval(sample: &wire::EnergySample) -> IntervalEnergy {
    let source = match sample.source() {
        wire::EnergySource::Counter => EnergySource::Counter,
        wire::EnergySource::Power => EnergySource::Power,
        // The weakest claim for what does not say where it comes from.
        wire::EnergySource::Modelled | wire::EnergySource::Unspecified => EnergySource::Modelled,
    };
    let flaws = sample.flaws().filter_map(|flaw| match flaw {
        wire::EnergyFlaw::Unspecified => None,
        wire::EnergyFlaw::CounterReset => Some(EnergyFlaw::CounterReset),
        wire::EnergyFlaw::CounterFrozen => Some(EnergyFlaw::CounterFrozen),
        wire::EnergyFlaw::GpuLost => Some(EnergyFlaw::GpuLost),
        wire::EnergyFlaw::Disagreement => Some(EnergyFlaw::Disagreement),
    });
    IntervalEnergy {
        start: Timestamp(sample.start_unix_ns),
        end: Timestamp(sample.end_unix_ns),
        measured: MilliJoules(sample.measured_mj),
        idle: MilliJoules(sample.idle_mj),
        source,
        flaws: flaws.collect(),
    }
}

/// `None` for a slice that ends before it begins.
pub(super) fn slice(router: &str, activity: &wire::Activity, now_ns: u64) -> Option<Slice> {
    (activity.end_unix_ns >= activity.start_unix_ns).then(|| Slice {
        router: router.to_owned(),
        decision: activity.decision.clone(),
        tenant: activity.tenant.clone(),
        start_ns: activity.start_unix_ns,
        end_ns: activity.end_unix_ns,
        prefill_tokens: activity.prefill_tokens,
        decode_tokens: activity.decode_tokens,
        // The wire tells the context at the end; on average half of what the slice decoded was not there yet.
        context_tokens: activity.context_tokens.saturating_sub(activity.decode_tokens / 2),
        finished: activity.finished,
        wasted: activity.wasted,
        received_ns: now_ns,
    })
}

pub(super) fn row(key: &str, figures: &EnergyFigures) -> wire::EnergyRow {
    wire::EnergyRow {
        key: key.to_owned(),
        measured_mj: figures.measured_mj,
        attributed_mj: figures.attributed_mj,
        wasted_mj: figures.wasted_mj,
        idle_mj: figures.idle_mj,
        unattributed_mj: figures.unattributed_mj,
        requests: figures.requests,
        prefill_tokens: figures.prefill_tokens,
        decode_tokens: figures.decode_tokens,
        span_ns: figures.span_ns,
        counter_mj: figures.counter_mj,
        power_mj: figures.power_mj,
        modelled_mj: figures.modelled_mj,
        flawed_intervals: figures.flawed_intervals,
    }
}

pub(super) fn report(report: &Report) -> wire::EnergyReport {
    wire::EnergyReport {
        rows: report
            .rows
            .iter()
            .map(|group| row(&group.key, &group.figures))
            .collect(),
        total: Some(row("total", &report.total)),
    }
}

/// The grouping of a name in a URL.
pub(crate) fn grouping_named(name: &str) -> Option<Grouping> {
    Some(match name {
        "pool" => Grouping::Pool,
        "model" => Grouping::Model,
        "gpu" => Grouping::Gpu,
        "tenant" => Grouping::Tenant,
        _ => return None,
    })
}
