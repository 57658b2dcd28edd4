//! A request as the decision sees it: sizes, wishes and limits, never its text.

use std::collections::{BTreeMap, BTreeSet};

use equipoise_estimate::Bounds;
use equipoise_predict::Forecast;
use equipoise_types::{RequestId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Capability;

/// One client request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Numbered by the driver in order of arrival.
    pub id: RequestId,
    /// What the client asked for in the `model` field.
    pub target: Target,
    /// Who pays; `None`: nobody in particular.
    pub tenant: Option<String>,
    /// Prompt length, tokens (estimated from characters where no tokenizer is at hand).
    pub prompt_tokens: u32,
    /// Most answer tokens the client allows.
    pub max_output_tokens: Option<u32>,
    /// True where tokens come as they are made; else the answer comes in one piece.
    pub streams: bool,
    /// What was predicted from the prompt of the models that are served here; models that are missing are predicted by
    /// their profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// The prompt's blocks, for what is cached of it where.
    #[serde(default, skip_serializing_if = "Prefix::is_empty")]
    pub prefix: Prefix,
    /// What the client wants beyond an answer.
    pub wishes: Wishes,
}

/// A prompt as a chain of block hashes: each stands for its block and all before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// Tokens of a block.
    pub block_tokens: u32,
    /// The chain, from the start of the prompt; the last, incomplete block is left out.
    pub blocks: Vec<u64>,
}

impl Prefix {
    /// True where nothing is known of the prompt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// What the `model` field asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// `auto`: the router picks model and instance together.
    Auto,
    /// A concrete model: balance among its instances only.
    Model(String),
}

/// Per-request wishes (`x-equipoise-*` headers); what is absent falls back to the fleet's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wishes {
    /// Weights of the score.
    pub weights: Option<Weights>,
    /// Least acceptable predicted quality, [0, 1]: a hard constraint.
    pub quality_min: Option<f64>,
    /// Time to first token the client wants, seconds: a hard constraint on the prediction.
    pub ttft_slo_s: Option<f64>,
    /// End-to-end time the client wants, seconds: a hard constraint on the prediction.
    pub e2e_slo_s: Option<f64>,
    /// Probability with which the SLOs must be met, in (0, 1); absent: 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_confidence: Option<f64>,
    /// Most US dollars for this request: a hard constraint on the prediction.
    pub cost_max_usd: Option<f64>,
    /// Labels an instance must carry, with these values.
    pub labels: BTreeMap<String, String>,
    /// Instances that may get it, by name; empty: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub only: BTreeSet<String>,
    /// What the request needs beside text, as its body says.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub needs: BTreeSet<Capability>,
    /// Higher goes first in the queue; 0 is normal.
    pub priority: i32,
    /// Refuse rather than dispatch after this time.
    pub deadline: Option<Timestamp>,
}

impl Wishes {
    /// True with a hard constraint on time.
    #[must_use]
    pub fn has_slo(&self) -> bool {
        self.ttft_slo_s.is_some() || self.e2e_slo_s.is_some()
    }

    /// How much sooner than asked for an answer comes after all that has `waited_s` and stays below `bounds` from now,
    /// seconds; negative where it comes too late. Infinite without an SLO.
    #[must_use]
    pub fn slo_slack_s(&self, waited_s: f64, bounds: &Bounds) -> f64 {
        let slack = |slo: Option<f64>, bound_s: f64| slo.map_or(f64::INFINITY, |slo| slo - waited_s - bound_s);
        slack(self.ttft_slo_s, bounds.ttft_s).min(slack(self.e2e_slo_s, bounds.e2e_s))
    }

    /// True without hard wishes: such a request keeps its place in line. One with an SLO, a floor or a label of its own
    /// may have no use for the room that those before it wait for, so it neither blocks nor is blocked.
    #[must_use]
    pub fn are_plain(&self) -> bool {
        self.quality_min.is_none()
            && self.ttft_slo_s.is_none()
            && self.e2e_slo_s.is_none()
            && self.cost_max_usd.is_none()
            && self.labels.is_empty()
            && self.only.is_empty()
            && self.needs.is_empty()
    }
}

/// How much each force counts in the score of `equipoise` and of RouteBalance. Not negative; any sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of predicted quality.
    pub quality: f64,
    /// Of predicted end-to-end latency.
    pub latency: f64,
    /// Of predicted marginal energy.
    pub energy: f64,
    /// Of predicted price.
    pub cost: f64,
}
