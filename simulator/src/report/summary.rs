//! The figures that every report shows, once for all its tables.

use equipoise_types::Mean;

use super::{Figure, Row, short};
use crate::{RunOutcome, Spread};

/// Whether more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    Neither,
}

/// One column.
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) figure: Figure,
    pub(crate) text: fn(f64) -> String,
}

fn spread(spread: Option<Spread>, pick: fn(&Spread) -> f64) -> Option<f64> {
    spread.as_ref().map(pick)
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn three_digits(value: f64) -> String {
    format!("{value:.3}")
}

fn per_cent(value: f64) -> String {
    format!("{:.1}", 100.0 * value)
}

pub(crate) fn quality(run: &RunOutcome) -> Option<f64> {
    run.figures.quality
}

pub(crate) fn e2e_p95_s(run: &RunOutcome) -> Option<f64> {
    spread(run.figures.e2e_s, |spread| spread.p95)
}

pub(crate) fn ttft_p95_s(run: &RunOutcome) -> Option<f64> {
    spread(run.figures.ttft_s, |spread| spread.p95)
}

pub(crate) fn joules_per_request(run: &RunOutcome) -> Option<f64> {
    run.figures.joules_per_request
}

/// Every column; those without a value in any row are left out of a table.
pub(crate) const COLUMNS: [Column; 16] = [
    Column {
        heading: "done",
        unit: "",
        better: Better::Neither,
        figure: |run| Some(run.figures.finished as f64),
        text: whole,
    },
    Column {
        heading: "not served",
        unit: "%",
        better: Better::Less,
        figure: |run| Some(1.0 - run.figures.finished as f64 / (run.figures.offered as f64).max(1.0)),
        text: per_cent,
    },
    Column {
        heading: "quality",
        unit: "",
        better: Better::More,
        figure: quality,
        text: three_digits,
    },
    Column {
        heading: "TTFT p50",
        unit: "ms",
        better: Better::Less,
        figure: |run| spread(run.figures.ttft_s, |spread| 1e3 * spread.p50),
        text: whole,
    },
    Column {
        heading: "TTFT p95",
        unit: "ms",
        better: Better::Less,
        figure: |run| spread(run.figures.ttft_s, |spread| 1e3 * spread.p95),
        text: whole,
    },
    Column {
        heading: "TPOT p50",
        unit: "ms",
        better: Better::Less,
        figure: |run| spread(run.figures.tpot_s, |spread| 1e3 * spread.p50),
        text: short,
    },
    Column {
        heading: "E2E mean",
        unit: "s",
        better: Better::Less,
        figure: |run| spread(run.figures.e2e_s, |spread| spread.mean),
        text: short,
    },
    Column {
        heading: "E2E p50",
        unit: "s",
        better: Better::Less,
        figure: |run| spread(run.figures.e2e_s, |spread| spread.p50),
        text: short,
    },
    Column {
        heading: "E2E p95",
        unit: "s",
        better: Better::Less,
        figure: e2e_p95_s,
        text: short,
    },
    Column {
        heading: "E2E p99",
        unit: "s",
        better: Better::Less,
        figure: |run| spread(run.figures.e2e_s, |spread| spread.p99),
        text: short,
    },
    Column {
        heading: "energy",
        unit: "J/request",
        better: Better::Less,
        figure: joules_per_request,
        text: short,
    },
    Column {
        heading: "active",
        unit: "J/request",
        better: Better::Less,
        figure: |run| run.figures.joules_per_request_active,
        text: short,
    },
    Column {
        heading: "energy",
        unit: "J/token",
        better: Better::Less,
        figure: |run| run.figures.joules_per_output_token,
        text: short,
    },
    Column {
        heading: "carbon",
        unit: "g/request",
        better: Better::Less,
        figure: |run| {
            let grams = run.figures.facility?.carbon_g?;
            (run.figures.finished > 0).then(|| grams / run.figures.finished as f64)
        },
        text: three_digits,
    },
    Column {
        heading: "cost",
        unit: "USD/1k",
        better: Better::Less,
        figure: |run| run.figures.usd_per_1000_requests,
        text: three_digits,
    },
    Column {
        heading: "in time",
        unit: "%",
        better: Better::More,
        figure: |run| run.figures.slo.map(|slo| slo.goodput_share),
        text: per_cent,
    },
];

impl Column {
    /// Its mean in a row.
    pub(crate) fn mean(&self, row: &Row<'_>) -> Option<Mean> {
        row.mean(self.figure)
    }
}
