//! One instance: what is declared, asked for and observed of it.

use std::collections::VecDeque;

use equipoise_estimate::{InstanceEstimator, PriceOfTokens};
use equipoise_types::{InstanceId, ModelId, Timestamp};

use crate::peers::Peers;
use crate::prefix::{DEFAULT_BLOCKS, PrefixIndex};
use crate::{Breaker, EngineSample, Health, InstanceSpec};

/// How far back in-flight counts are kept, to compare a telemetry sample with what was out when it was taken.
const HISTORY_S: f64 = 2.0;
const HISTORY_ENTRIES: usize = 512;

/// An observed value and when it held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Observed<T> {
    pub(crate) value: T,
    pub(crate) at: Timestamp,
}

/// What other routers mean for a decision on one instance; all zero where this router is alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerView {
    /// Other routers that are alive.
    pub routers: u32,
    /// This router's own requests there.
    pub own_in_flight: u32,
    /// Of the others' requests that were reported there, how many have probably not ended since; newcomers do not count.
    pub staying: u32,
    /// Requests that the others have probably sent there since they last reported.
    pub newcomers: f64,
    /// The instance's congestion price, from 0 to 4: 0.5 makes a predicted time count half as much again.
    pub price: f64,
}

/// The dynamic state of one instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its index in this process.
    pub id: InstanceId,
    /// What is declared.
    pub spec: InstanceSpec,
    /// What it serves.
    pub model: ModelId,
    /// False after it was removed; its bookings may still run.
    pub present: bool,
    /// An operator wants no new work on it.
    pub draining: bool,
    /// Relative share of traffic: 1 is normal, 0 none.
    pub weight: f64,
    /// Probes and failures.
    pub health: Health,
    /// Predicts it, and learns from it.
    pub estimator: InstanceEstimator,
    /// Why its physics is not known although model and GPU are declared, if so.
    pub physics_error: Option<String>,
    /// The index of its tier.
    pub(crate) tier: usize,
    pub(crate) sample: Option<Observed<EngineSample>>,
    pub(crate) peers: Peers,
    /// Requests of unknown origin, by the last sample.
    pub(crate) foreign: u32,
    in_flight_history: VecDeque<(Timestamp, u32)>,
    prefixes: PrefixIndex,
    /// What its model's counts know of it: its model, and whether it is ejected; `None` where it is not among them.
    pub(crate) counted: Option<(ModelId, bool)>,
    /// Listed as changed, and as to be counted again.
    pub(crate) listed: (bool, bool),
}

impl Instance {
    pub(crate) fn new(
        id: InstanceId,
        model: ModelId,
        tier: usize,
        spec: InstanceSpec,
        estimator: InstanceEstimator,
    ) -> Self {
        Self {
            id,
            spec,
            model,
            present: true,
            draining: false,
            weight: 1.0,
            health: Health::default(),
            estimator,
            physics_error: None,
            tier,
            sample: None,
            peers: Peers::default(),
            foreign: 0,
            in_flight_history: VecDeque::from([(Timestamp::ZERO, 0)]),
            prefixes: PrefixIndex::new(DEFAULT_BLOCKS),
            counted: None,
            listed: (false, false),
        }
    }

    /// Whether time alone may change if and how much work it gets: it is or was out lately, or others send to it.
    #[must_use]
    pub fn is_restless(&self, now: Timestamp) -> bool {
        let well = self.health.breaker(now) == Breaker::Closed && self.health.share(now) >= 1.0;
        !well || self.foreign > 0 || self.peers.is_told()
    }

    /// The last telemetry sample and its age in seconds, if there was one.
    #[must_use]
    pub fn sample(&self, now: Timestamp) -> Option<(EngineSample, f64)> {
        self.sample
            .map(|observed| (observed.value, now.secs_since(observed.at)))
    }

    /// True where it may get new work at `now`.
    #[must_use]
    pub fn is_available(&self, now: Timestamp) -> bool {
        self.present && !self.draining && self.weight > 0.0 && self.health.is_available(now)
    }

    /// Requests that it may serve at the same time at `now`: fewer than it can while it comes back from an outage.
    #[must_use]
    pub fn slots(&self, now: Timestamp) -> u32 {
        let slots = self.estimator.slots();
        let share = self.health.share(now);
        if share < 1.0 {
            ((f64::from(slots) * share).ceil() as u32).clamp(1, slots)
        } else {
            slots
        }
    }

    /// Price of its model's tokens.
    #[must_use]
    pub fn price(&self) -> PriceOfTokens {
        self.spec
            .model
            .price
            .map_or_else(PriceOfTokens::default, |price| PriceOfTokens {
                input_usd: price.input_usd_per_mtok / 1e6,
                output_usd: price.output_usd_per_mtok / 1e6,
            })
    }

    /// How many of a prompt's tokens it has probably computed already; never the last one, which must be computed.
    #[must_use]
    pub fn cached_tokens(&self, prompt_tokens: u32, block_tokens: u32, blocks: &[u64]) -> u32 {
        if blocks.is_empty() {
            return 0;
        }
        let matched = u32::try_from(self.prefixes.matched(blocks)).unwrap_or(u32::MAX);
        matched
            .saturating_mul(block_tokens)
            .min(prompt_tokens.saturating_sub(1))
    }

    /// A prompt was sent there.
    pub(crate) fn note_prefix(&mut self, blocks: &[u64]) {
        self.prefixes.note(blocks);
    }

    /// Notes how many of this router's requests are out, after a change.
    pub(crate) fn note_in_flight(&mut self, now: Timestamp, in_flight: u32) {
        while self.in_flight_history.len() >= HISTORY_ENTRIES
            || self
                .in_flight_history
                .get(1)
                .is_some_and(|(at, _)| now.secs_since(*at) > HISTORY_S)
        {
            self.in_flight_history.pop_front();
        }
        self.in_flight_history.push_back((now, in_flight));
    }

    /// How long none of this router's requests has been out, seconds.
    pub(crate) fn idle_seconds(&self, now: Timestamp) -> f64 {
        let last = self.in_flight_history.back().filter(|(_, count)| *count == 0);
        last.map_or(0.0, |(since, _)| now.secs_since(*since))
    }

    /// How many of this router's requests were out at `at`; `None` where that is longer ago than is remembered.
    fn in_flight_at(&self, at: Timestamp) -> Option<u32> {
        self.in_flight_history
            .iter()
            .rev()
            .find(|(since, _)| *since <= at)
            .map(|(_, count)| *count)
    }

    /// Takes a sample in: health, learned limits and power, and requests that this router did not send.
    pub(crate) fn observe_sample(&mut self, now: Timestamp, sample: EngineSample) {
        let at = now - std::time::Duration::try_from_secs_f64(sample.age_s).unwrap_or_default();
        self.health.probed(now, at, sample.healthy);
        if self.sample.is_some_and(|last| last.at > at) {
            return;
        }
        self.sample = Some(Observed { value: sample, at });
        if !sample.healthy {
            return;
        }
        let known = self.in_flight_at(at);
        if let Some(known) = known {
            let unexplained = sample.running.saturating_add(sample.waiting).saturating_sub(known);
            self.peers.sampled(
                now,
                f64::from(sample.running) + f64::from(sample.waiting) - f64::from(known),
            );
            // Halved rather than replaced: a request on its way in or out is counted on one side only for a moment.
            self.foreign = if unexplained == 0 {
                0
            } else {
                self.foreign.midpoint(unexplained)
            };
        }
        let kv_tokens = self
            .estimator
            .kv_capacity_tokens()
            .map_or(0, |capacity| (sample.kv_usage * capacity as f64) as u64);
        self.estimator
            .observe_sample(now, sample.running, sample.waiting, kv_tokens, sample.power);
    }
}
