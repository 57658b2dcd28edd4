//! One router, or several that each see only their own requests.
//!
//! Several stand behind a layer-4 balancer: it spreads requests at random, and each router keeps its own scheduler, the
//! same code with a seed of its own. A router hears at once of what it sent itself; of everything else it hears what the
//! control plane tells: samples of all instances, the others' ledgers and the congestion prices, taken every
//! `state_interval_s` and delivered `state_age_s` later. Does not belong here: engines and the clock.

use equipoise_fleet::{CongestionPrice, EngineSample, FleetDelta, PeerLoad};
use equipoise_policy::SettingsError;
use equipoise_scheduler::{Action, Event, Request, Scheduler, SchedulerConfig, Sight};
use equipoise_types::{InstanceId, RandomStream, Timestamp};
use serde::Serialize;

use crate::feed::{Feed, NoSink, Sink};
use crate::instance::SimulatedInstance;

/// How many routers share the work, and what they know of one another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RouterOptions {
    /// Routers; 1 sees everything at once, as the figures below do not apply to it.
    pub count: u32,
    /// Time between two reports of the fleet's state, seconds.
    pub state_interval_s: f64,
    /// How old a report is when it reaches the routers, seconds.
    pub state_age_s: f64,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            count: 1,
            state_interval_s: 0.1,
            state_age_s: 0.1,
        }
    }
}

/// The fleet's state as it was at one time.
#[derive(Debug)]
pub(crate) struct FleetReport {
    taken_at: Timestamp,
    /// By instance.
    samples: Vec<Option<EngineSample>>,
    /// By instance.
    prices: Vec<f64>,
    /// By router, then by instance.
    ledgers: Vec<Vec<PeerLoad>>,
}

/// All routers of a run. The first one's events can be recorded.
#[derive(Debug)]
pub(crate) struct Routers<S> {
    first: Feed<S>,
    others: Vec<Feed<NoSink>>,
    looked: Looked,
    last_timer: Vec<Option<Timestamp>>,
    spread: RandomStream,
    /// By instance.
    prices: Vec<CongestionPrice>,
    /// By router: its process is gone.
    away: Vec<bool>,
}

/// What is looked at of a decision, beside where it goes. Nobody asks a simulated router why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// Everything.
    All,
    /// No bound of what is promised.
    NoBounds,
    /// Nothing.
    Nothing,
}

fn fresh(config: SchedulerConfig, looked: Looked) -> Result<Scheduler, SettingsError> {
    let scheduler = Scheduler::new(config)?.without_explanations();
    Ok(match looked {
        Looked::All => scheduler,
        Looked::NoBounds => scheduler.without_bounds(),
        Looked::Nothing => scheduler.without_estimates(),
    })
}

impl<S: Sink> Routers<S> {
    pub(crate) fn new(
        config: SchedulerConfig,
        options: RouterOptions,
        bounded: bool,
        sink: S,
    ) -> Result<Self, SettingsError> {
        // What is recorded is recorded whole; and routers tell one another of what they have out.
        let looked = if bounded || S::RECORDS {
            Looked::All
        } else if options.count > 1 {
            Looked::NoBounds
        } else {
            Looked::Nothing
        };
        let seeds = RandomStream::new(config.seed).derive("routers");
        let another = |index: u32| {
            let seed = seeds.derive(&index.to_string()).next_u64();
            let scheduler = fresh(SchedulerConfig { seed, ..config.clone() }, looked)?;
            Ok(Feed {
                scheduler,
                sink: NoSink,
            })
        };
        let others = (1..options.count).map(another).collect::<Result<_, SettingsError>>()?;
        Ok(Self {
            first: Feed {
                scheduler: fresh(config, looked)?,
                sink,
            },
            others,
            looked,
            last_timer: vec![None; options.count as usize],
            spread: seeds.derive("spread"),
            prices: Vec::new(),
            away: vec![false; options.count as usize],
        })
    }

    pub(crate) fn is_away(&self, router: usize) -> bool {
        self.away[router]
    }

    pub(crate) fn set_away(&mut self, router: usize, away: bool) {
        self.away[router] = away;
    }

    /// A new process with the same settings, that knows nothing.
    pub(crate) fn restart(&mut self, router: usize) {
        let fresh = fresh(self.scheduler(router).config().clone(), self.looked);
        self.last_timer[router] = None;
        // Its settings were good before.
        if let Ok(fresh) = fresh {
            match router.checked_sub(1) {
                None => self.first.scheduler = fresh,
                Some(other) => self.others[other].scheduler = fresh,
            }
        }
    }

    /// Requests that all routers together have out on an instance.
    pub(crate) fn in_flight(&self, now: Timestamp, instance: InstanceId) -> u32 {
        let out = |router| self.scheduler(router).fleet().ledger().load(now, instance).in_flight;
        (0..self.len()).map(out).sum()
    }

    pub(crate) fn len(&self) -> usize {
        1 + self.others.len()
    }

    pub(crate) fn first(&self) -> &Scheduler {
        &self.first.scheduler
    }

    /// Whether the first never looks at how answers get on.
    pub(crate) fn looks_at_nothing(&self) -> bool {
        self.first.scheduler.is_blind()
    }

    /// What the first will look at because of an event that follows at once.
    pub(crate) fn foresee(&mut self, now: Timestamp, event: &Event) -> Sight {
        self.first.scheduler.foresee(now, event)
    }

    /// Requests that wait at any of them.
    pub(crate) fn queued(&self) -> usize {
        (0..self.len()).map(|router| self.scheduler(router).queued()).sum()
    }

    pub(crate) fn into_sink(self) -> S {
        self.first.sink
    }

    fn scheduler(&self, router: usize) -> &Scheduler {
        match router.checked_sub(1) {
            None => &self.first.scheduler,
            Some(other) => &self.others[other].scheduler,
        }
    }

    /// Whether a decision may come of any event: requests wait somewhere.
    pub(crate) fn any_queued(&self) -> bool {
        (0..self.len()).any(|router| self.scheduler(router).queued() > 0)
    }

    /// Gives one router an event and appends what it answers to `actions`, which must be empty.
    pub(crate) fn give(&mut self, router: usize, at: Timestamp, event: Event, actions: &mut Vec<Action>) {
        if event == Event::Timer {
            self.last_timer[router] = Some(at);
        }
        match router.checked_sub(1) {
            None => self.first.give(at, event, actions),
            Some(other) => self.others[other].give(at, event, actions),
        }
    }

    /// Who wants to be woken first, and when: later than it was woken last, by `least_sleep`.
    pub(crate) fn wakeup(&self, now: Timestamp, least_sleep: std::time::Duration) -> Option<(Timestamp, usize)> {
        let wanted = |router: usize| {
            let wanted = self.scheduler(router).next_wakeup()?.max(now);
            let at = match self.last_timer[router] {
                Some(last) if wanted <= last => last + least_sleep,
                _ => wanted,
            };
            Some((at, router))
        };
        (0..self.len())
            .filter(|router| !self.away[*router])
            .filter_map(wanted)
            .min()
    }

    /// Spreads a batch over the routers, in order of arrival.
    pub(crate) fn spread(&mut self, batch: Vec<Request>) -> Vec<(usize, Vec<Request>)> {
        if self.others.is_empty() {
            return vec![(0, batch)];
        }
        let mut parts: Vec<(usize, Vec<Request>)> = Vec::new();
        for request in batch {
            let drawn = self.spread.below(self.len());
            // A balancer passes over whoever does not answer.
            let present = (0..self.len()).map(|step| (drawn + step) % self.len());
            let home = present.into_iter().find(|router| !self.away[*router]).unwrap_or(drawn);
            match parts.iter_mut().find(|(router, _)| *router == home) {
                Some((_, part)) => part.push(request),
                None => parts.push((home, vec![request])),
            }
        }
        parts
    }

    /// What the control plane knows now, to be told later.
    pub(crate) fn report(&mut self, now: Timestamp, samples: Vec<Option<EngineSample>>) -> FleetReport {
        self.prices.resize_with(samples.len(), CongestionPrice::default);
        for (price, sample) in self.prices.iter_mut().zip(&samples) {
            if let Some(sample) = sample {
                price.observe(now, sample.running, sample.waiting);
            }
        }
        let ledger_of = |router: usize| {
            let ledger = self.scheduler(router).fleet().ledger();
            let load_of = |index: usize| {
                let load = ledger.load(now, InstanceId(u32::try_from(index).unwrap_or(u32::MAX)));
                PeerLoad {
                    in_flight: load.in_flight,
                    pending_prefill_tokens: load.pending_prefill_tokens,
                    pending_decode_tokens: load.pending_decode_tokens,
                    prefilling: load.prefilling,
                    overdue_s: load.overdue_s,
                    ..PeerLoad::default()
                }
            };
            (0..samples.len()).map(load_of).collect()
        };
        FleetReport {
            taken_at: now,
            prices: self.prices.iter().map(CongestionPrice::get).collect(),
            ledgers: (0..self.len()).map(ledger_of).collect(),
            samples,
        }
    }

    /// What a report tells one router, in the order in which a live router hears it.
    pub(crate) fn deltas(
        &self,
        report: &FleetReport,
        router: usize,
        now: Timestamp,
        instances: &[SimulatedInstance],
    ) -> Vec<FleetDelta> {
        let name = |index: usize| instances[index].spec.name.clone();
        let samples = report.samples.iter().enumerate();
        let samples = samples.filter_map(|(index, sample)| {
            Some(FleetDelta::Sample {
                name: name(index),
                sample: (*sample)?,
            })
        });
        let peers = (0..report.samples.len()).map(|index| {
            let mut load = PeerLoad {
                age_s: now.secs_since(report.taken_at),
                routers: u32::try_from(self.others.len()).unwrap_or(u32::MAX),
                price: report.prices[index],
                ..PeerLoad::default()
            };
            for (_, ledger) in report
                .ledgers
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != router && !self.away[*other])
            {
                load.in_flight += ledger[index].in_flight;
                load.pending_prefill_tokens += ledger[index].pending_prefill_tokens;
                load.pending_decode_tokens += ledger[index].pending_decode_tokens;
                load.prefilling += ledger[index].prefilling;
                load.overdue_s = load.overdue_s.max(ledger[index].overdue_s);
            }
            FleetDelta::Peers {
                name: name(index),
                load,
            }
        });
        samples.chain(peers).collect()
    }
}

#[cfg(test)]
mod tests;
