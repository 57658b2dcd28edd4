//! Metrics of the router's other doors: decisions for those who send by themselves.

use crate::catalogue;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What became of a request that a gateway asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtProcOutcome {
    /// An instance was named.
    Picked,
    /// The same for a request without a body, which is not booked.
    Bodyless,
    /// The gateway was told what to answer.
    Refused,
    /// The gateway broke the protocol.
    Malformed,
}

impl EncodeLabelValue for ExtProcOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::Picked => "picked",
            Self::Bodyless => "bodyless",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: ExtProcOutcome,
}

/// Handles to the metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    /// Picks of the route service that have not ended.
    pub open_picks: Gauge,
    /// Picks that nobody reported on in time.
    pub expired_picks: Counter,
    /// Open streams of gateways.
    pub ext_proc_streams: Gauge,
    ext_proc: Family<OutcomeLabel, Counter>,
}

impl GatewayMetrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            open_picks: catalogue::ROUTE_OPEN_PICKS.register(registry, Gauge::default()),
            expired_picks: catalogue::ROUTE_EXPIRED_PICKS.register(registry, Counter::default()),
            ext_proc_streams: catalogue::EXT_PROC_STREAMS.register(registry, Gauge::default()),
            ext_proc: catalogue::EXT_PROC_REQUESTS.register(registry, Family::default()),
        }
    }

    /// Counts a request that a gateway asked about.
    pub fn count_ext_proc(&self, outcome: ExtProcOutcome) {
        self.ext_proc.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
