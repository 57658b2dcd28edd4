//! Metrics of what the router tells of itself beside metrics: settings taken over, the access log, spans.

use crate::catalogue;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What became of settings that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReloadOutcome {
    /// They hold.
    Applied,
    /// They make no sense: the old ones hold.
    Refused,
}

impl EncodeLabelValue for ReloadOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

/// What became of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanOutcome {
    /// The collector took them.
    Exported,
    /// The queue was full.
    Dropped,
    /// The collector could not be reached, or refused them.
    Failed,
}

impl EncodeLabelValue for SpanOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Exported => "exported",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabel {
    outcome: ReloadOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabel {
    outcome: SpanOutcome,
}

/// Handles to the metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct ObservingMetrics {
    /// Lines of the access log that were not written, for it could not keep up.
    pub access_log_dropped: Counter,
    reloads: Family<ReloadLabel, Counter>,
    spans: Family<SpanLabel, Counter>,
}

impl ObservingMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            access_log_dropped: catalogue::ROUTER_ACCESS_LOG_DROPPED.register(registry, Counter::default()),
            reloads: catalogue::ROUTER_CONFIG_RELOADS.register(registry, Family::default()),
            spans: catalogue::ROUTER_SPANS.register(registry, Family::default()),
        }
    }

    /// Counts settings that changed.
    pub fn count_reload(&self, outcome: ReloadOutcome) {
        self.reloads.get_or_create(&ReloadLabel { outcome }).inc();
    }

    /// Counts spans.
    pub fn count_spans(&self, outcome: SpanOutcome, spans: u64) {
        self.spans.get_or_create(&SpanLabel { outcome }).inc_by(spans);
    }
}
