//! Filters, scores and the choice: every policy a file behind one trait.
//!
//! A policy looks at candidates that passed the hard constraints and names one, or says that waiting is better. It
//! changes nothing but its own memory, does no I/O and draws randomness only from the stream it is given. The
//! scheduler carries the choice out. Does not belong here: queues, retries, the ledger.

mod capability;
mod decoupled;
mod equipoise;
mod filter;
mod least_kv;
mod least_requests;
mod llumnix_minus;
mod load_row;
mod power_of_two;
mod prefix_aware;
mod random;
mod request;
mod round_robin;
mod routebalance;
mod settings;
mod spread;

use std::fmt;

use equipoise_estimate::{Estimate, InstanceLoad, Prediction};
use equipoise_fleet::PeerView;
use equipoise_types::{InstanceId, Joules, ModelId, RandomStream};

pub use self::equipoise::Equipoise;
pub use capability::{CAPABILITIES_LABEL, Capability};
pub use decoupled::Decoupled;
pub use filter::{Constraint, Targeted, Verdicts, check, check_fit, check_instance, check_prediction};
pub use least_kv::LeastKv;
pub use least_requests::LeastRequests;
pub use llumnix_minus::LlumnixMinus;
pub use load_row::LoadRow;
pub use power_of_two::PowerOfTwo;
pub use prefix_aware::PrefixAware;
pub use random::Random;
pub use request::{Prefix, Request, Target, Weights, Wishes};
pub use round_robin::RoundRobin;
pub use routebalance::{BatchOrder, LatencyTerm, QualityNorm, RouteBalance, RouteBalanceSettings, TieBreak};
pub use settings::{PolicySettings, Preset, References, SettingsError};

/// One instance that could take the request: what it is busy with and what is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which instance.
    pub instance: InstanceId,
    /// What it serves.
    pub model: ModelId,
    /// Everybody's work on it.
    pub load: InstanceLoad,
    /// Requests it serves at the same time.
    pub slots: u32,
    /// KV tokens it can hold, where known.
    pub kv_capacity_tokens: Option<u64>,
    /// Prompt tokens it has probably in its prefix cache.
    pub cached_tokens: u32,
    /// Relative share of traffic, above zero.
    pub weight: f64,
    /// Seconds per answer token of a request that is alone there: a constant of its tier.
    pub alone_tpot_s: f64,
    /// What other routers mean for it; all zero where this one is alone.
    pub peers: PeerView,
    /// What would be predicted if all that other routers have probably sent since they last reported, to any candidate of
    /// this request, had gone to this one; `None` where that is less than half a request.
    pub crowded: Option<Crowded>,
    /// The prediction, with what is needed to learn from its outcome.
    pub prediction: Prediction,
}

/// A candidate as it would be if everybody had rushed to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crowded {
    /// How many would have come.
    pub newcomers: f64,
    // Of what would be predicted then, what is not the same as without them.
    e2e_s: f64,
    others_s: f64,
    energy: Joules,
    idle_energy: Joules,
}

impl Crowded {
    /// `estimate`: what would be predicted beside the newcomers.
    #[must_use]
    pub fn of(newcomers: f64, estimate: &Estimate) -> Self {
        Self {
            newcomers,
            e2e_s: estimate.e2e_s,
            others_s: estimate.others_s,
            energy: estimate.energy,
            idle_energy: estimate.idle_energy,
        }
    }

    /// What scores look at, beside the newcomers; `alone` is predicted without them.
    #[must_use]
    pub fn estimate(&self, alone: &Estimate) -> Estimate {
        Estimate {
            e2e_s: self.e2e_s,
            others_s: self.others_s,
            energy: self.energy,
            idle_energy: self.idle_energy,
            ..*alone
        }
    }
}

impl Candidate {
    /// What is predicted.
    #[must_use]
    pub fn estimate(&self) -> &Estimate {
        &self.prediction.estimate
    }

    /// True where one more request would wait inside the engine, as far as that is known: of others' requests only those
    /// count that were reported and have probably not ended since. What they may have sent meanwhile must not hold a
    /// request back, or all would hold back from what is free. This router's own share of the slots, one at least, is its
    /// to use whatever others have there, or those who came first would keep all of them.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        is_saturated(self.load.in_flight, self.slots, &self.peers)
    }
}

/// [`Candidate::is_saturated`] of an instance with so many requests in flight, everybody's.
#[must_use]
pub fn is_saturated(in_flight: u32, slots: u32, peers: &PeerView) -> bool {
    if peers.routers == 0 {
        return in_flight >= slots;
    }
    let share = (slots / peers.routers.saturating_add(1)).max(1);
    peers.own_in_flight >= share && peers.own_in_flight.saturating_add(peers.staying) >= slots
}

/// What a policy says of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Send it to the candidate at this index; the score is for the record, higher is better.
    Take {
        /// Index into the candidates.
        index: usize,
        /// What the policy thought of it, where it scores.
        score: Option<f64>,
    },
    /// Better to wait at the router than to take any of these now.
    Wait,
}

/// When requests are decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batching {
    /// Decide when so many have come...
    pub max_requests: usize,
    /// ...or so long after the first, seconds; zero: at once.
    pub window_s: f64,
}

impl Batching {
    /// Whatever has arrived, without waiting for more.
    pub const AT_ONCE: Self = Self {
        max_requests: usize::MAX,
        window_s: 0.0,
    };
}

/// A rule that picks one instance. One trait for ours and for every baseline.
pub trait Policy: fmt::Debug + Send {
    /// The name it is asked for by.
    fn name(&self) -> &str;

    /// When requests are decided; asked after every batch.
    fn batching(&self) -> Batching {
        Batching::AT_ONCE
    }

    /// A batch begins. `instances` yields the load of every instance that is there, and its slots, in order of their ids;
    /// what is not asked for is not computed.
    fn begin_batch(&mut self, instances: &mut dyn Iterator<Item = (InstanceId, InstanceLoad, u32)>) {
        _ = instances;
    }

    /// The key by which a batch is ordered, highest first; equal keys keep their order of arrival. `lengths` are the
    /// expected answer lengths over the models, tokens.
    fn order_key(&self, lengths: &[f64]) -> f64 {
        _ = lengths;
        0.0
    }

    /// True where candidates without a free slot may be shown: the policy answers [`Choice::Wait`] rather than send
    /// a request to wait inside an engine. Others are shown free instances only, while late binding is on.
    fn binds_late(&self) -> bool {
        false
    }

    /// True where the choice depends on loads, slots and weights alone: then nobody need predict those that it passes over.
    fn looks_at_load_only(&self) -> bool {
        false
    }

    /// For a policy that looks at loads alone: the index of the row that [`Policy::choose`] would take, were these the
    /// candidates, and the same memory of it. `rows` is not empty and in order of instance ids. `None`: it wants to see
    /// candidates.
    fn choose_by_load(&mut self, rows: &[LoadRow], random: &mut RandomStream) -> Option<usize> {
        _ = (rows, random);
        None
    }

    /// The score of one candidate, where it does not depend on the others; for explanations.
    fn score(&self, request: &Request, candidate: &Candidate) -> Option<f64> {
        _ = (request, candidate);
        None
    }

    /// Picks for one request. `candidates` is not empty, passed all hard constraints, and is in order of instance ids.
    fn choose(&mut self, request: &Request, candidates: &[Candidate], random: &mut RandomStream) -> Choice;
}

/// The names of the policies that decide on instances, baselines first. [`all_names`] has the paper's variants and the
/// decoupled ones, too.
#[must_use]
pub fn names() -> &'static [&'static str] {
    &[
        "round-robin",
        "random",
        "least-requests",
        "power-of-two",
        "least-kv",
        "llumnix-minus",
        "prefix-aware",
        "routebalance",
        "equipoise",
    ]
}

/// Every name that [`by_name`] knows, those of [`names`] first. Model routers take a parameter, see [`Decoupled`].
#[must_use]
pub fn all_names() -> Vec<&'static str> {
    let variants = RouteBalance::names()
        .iter()
        .copied()
        .filter(|name| !names().contains(name));
    names()
        .iter()
        .copied()
        .chain(Preset::ALL.map(Preset::policy))
        .chain(variants)
        .chain(Decoupled::names().iter().copied())
        .collect()
}

/// The policy of a name. `equipoise@PRESET` is ours with the weights of a preset, whatever `settings` says.
///
/// # Errors
/// For a name nobody knows, and for settings that make no sense.
pub fn by_name(name: &str, settings: &PolicySettings) -> Result<Box<dyn Policy>, SettingsError> {
    settings.validate()?;
    Ok(match name {
        "round-robin" => Box::new(RoundRobin::default()),
        "random" => Box::new(Random),
        "least-requests" => Box::new(LeastRequests::default()),
        "power-of-two" => Box::new(PowerOfTwo),
        "least-kv" => Box::new(LeastKv::default()),
        "llumnix-minus" => Box::new(LlumnixMinus::default()),
        "prefix-aware" => Box::new(PrefixAware::default()),
        "equipoise" => Box::new(Equipoise::new(settings.weights, settings.references)),
        _ => {
            if let Some(preset) = Preset::ALL.into_iter().find(|preset| preset.policy() == name) {
                return Ok(Box::new(Equipoise::preset(preset, settings.references)));
            }
            if let Some(variant) = RouteBalance::by_name(name, settings.routebalance) {
                return Ok(Box::new(variant));
            }
            match Decoupled::by_name(name)? {
                Some(decoupled) => Box::new(decoupled),
                None => return Err(unknown(name)),
            }
        }
    })
}

fn unknown(name: &str) -> SettingsError {
    SettingsError::UnknownPolicy {
        name: name.to_owned(),
        known: all_names().join(", "),
    }
}
