//! Energy: intervals wait for the activity that they are split over, then go into the ledger.
//!
//! An interval is settled once every router that reports has told what it did up to the interval's end, or after a
//! grace. Its energy is never changed after that, and every row adds up: attributed + idle + unattributed = measured.
//! The sums are kept by hour (of the intervals' ends), so reports over a time range are exact to the hour.

mod instance;
mod record;
mod terms;
mod wire;

pub(crate) use record::{persist, report};
pub(crate) use wire::grouping_named;

use self::instance::{InstanceAccount, Slice};
use crate::ControlPlaneConfig;
use crate::plane::{Plane, unix_ns};
use crate::server::StartError;
use equipoise_energy::{EnergyFigures, EnergyLedger, Grouping, IntervalEnergy};
use equipoise_proto::v1::{Activity, EnergyRow, EnergySample, Instance};
use equipoise_store::{Store, StoreError};
use equipoise_telemetry::{ControlMetrics, EnergyCause};
use equipoise_types::MilliJoules;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often intervals are looked at.
const SETTLE_INTERVAL: Duration = Duration::from_millis(250);
/// A router that has not reported for this long is not waited for.
const ROUTER_LIFE_NS: u64 = 3_000_000_000;
/// Activity older than this, whose energy never came, is given up.
const ACTIVITY_LIFE_NS: u64 = 60_000_000_000;
/// Instances that are accounted; more would mean that somebody makes names up.
const LIMIT_INSTANCES: usize = 65_536;
/// Requests whose energy is remembered in case they fail later.
const LIMIT_REQUESTS: usize = 262_144;

const HOUR_NS: u64 = 3_600_000_000_000;

/// Hours that are kept one by one: sixty days. What is older is one sum.
const HOURS_KEPT: u64 = 60 * 24;

/// Hours since the Unix epoch.
pub(crate) type Hour = u64;

/// What a request was charged for so far, in case it turns out to be wasted.
#[derive(Debug)]
struct Charged {
    by_hour: Vec<(Hour, MilliJoules)>,
    last_ns: u64,
}

/// How far a router has reported.
#[derive(Debug, Clone, Copy)]
struct Watermark {
    reported_ns: u64,
    received_ns: u64,
}

/// The energy that this control plane accounts.
#[derive(Debug)]
pub(crate) struct Accounting {
    grace_ns: u64,
    accounts: BTreeMap<String, InstanceAccount>,
    routers: BTreeMap<String, Watermark>,
    hours: BTreeMap<Hour, EnergyLedger>,
    /// All hours together.
    all: EnergyLedger,
    charged: BTreeMap<(String, String), Charged>,
    /// Up to which hour an instance's hours have been folded into one sum.
    folded: BTreeMap<String, Hour>,
    /// Records that differ from the store's.
    dirty: BTreeSet<(Hour, String)>,
    /// Records in the store that count no more.
    garbage: BTreeSet<(Hour, String)>,
    metrics: ControlMetrics,
}

impl Accounting {
    pub(crate) fn new(activity_grace: Duration, metrics: ControlMetrics) -> Self {
        Self {
            grace_ns: u64::try_from(activity_grace.as_nanos()).unwrap_or(u64::MAX),
            accounts: BTreeMap::new(),
            routers: BTreeMap::new(),
            hours: BTreeMap::new(),
            all: EnergyLedger::new(),
            charged: BTreeMap::new(),
            folded: BTreeMap::new(),
            dirty: BTreeSet::new(),
            garbage: BTreeSet::new(),
            metrics,
        }
    }

    /// Reads this control plane's part of the ledger from the store.
    pub(crate) async fn load(
        config: &ControlPlaneConfig,
        store: &dyn Store,
        metrics: ControlMetrics,
    ) -> Result<Self, StartError> {
        let mut accounting = Self::new(config.activity_grace, metrics);
        record::load(&mut accounting, config, store).await?;
        Ok(accounting)
    }

    /// Takes an interval of `instance`. One that overlaps what was taken before is rejected: it was sent twice.
    pub(crate) fn take_energy(&mut self, instance: &Instance, sample: &EnergySample, now_ns: u64) {
        let interval = wire::interval(sample);
        let taken = self
            .account(&instance.name)
            .is_some_and(|account| account.take_interval(instance, interval, now_ns));
        if !taken {
            tracing::debug!(
                instance = instance.name,
                "rejected an energy interval: empty, impossible or sent before"
            );
            self.metrics.rejected_energy.inc();
        }
    }

    /// Takes what a router did up to `reported_ns`.
    pub(crate) fn take_activity(&mut self, router: &str, activity: Vec<Activity>, reported_ns: u64, now_ns: u64) {
        self.routers.insert(
            router.to_owned(),
            Watermark {
                reported_ns,
                received_ns: now_ns,
            },
        );
        let mut dropped = 0;
        for activity in activity {
            let taken = match wire::slice(router, &activity, now_ns) {
                Some(slice) => self
                    .account(&activity.instance)
                    .map_or(1, |account| account.take_slice(slice)),
                None => 1,
            };
            dropped += taken;
        }
        self.metrics.dropped_activity.inc_by(dropped);
    }

    fn account(&mut self, instance: &str) -> Option<&mut InstanceAccount> {
        if !self.accounts.contains_key(instance) {
            if self.accounts.len() >= LIMIT_INSTANCES {
                return None;
            }
            self.accounts.insert(instance.to_owned(), InstanceAccount::default());
        }
        self.accounts.get_mut(instance)
    }

    /// Settles the intervals that need not wait any longer, and gives up what is too old.
    pub(crate) fn settle(&mut self, now_ns: u64) {
        self.routers
            .retain(|_, mark| now_ns.saturating_sub(mark.received_ns) <= ROUTER_LIFE_NS);
        let reported_ns = self.routers.values().map(|mark| mark.reported_ns).min();
        let complete = |interval: &IntervalEnergy| reported_ns.is_some_and(|reported| reported >= interval.end.0);
        let grace_ns = self.grace_ns;
        self.settle_where(|interval, arrived_ns| complete(interval) || now_ns.saturating_sub(arrived_ns) >= grace_ns);
        let mut dropped = 0;
        self.accounts.retain(|_, account| {
            dropped += account.give_up_before(now_ns.saturating_sub(ACTIVITY_LIFE_NS));
            account.is_metered() || !account.is_empty()
        });
        self.metrics.dropped_activity.inc_by(dropped);
        self.fold(now_ns);
        let oldest_ns = now_ns.saturating_sub(10 * ACTIVITY_LIFE_NS);
        self.charged.retain(|_, charged| charged.last_ns >= oldest_ns);
    }

    /// Folds the hours that are too old to be kept one by one into one sum.
    fn fold(&mut self, now_ns: u64) {
        let oldest = (now_ns / HOUR_NS).saturating_sub(HOURS_KEPT);
        let old: Vec<Hour> = self
            .hours
            .range(record::FOLDED + 1..oldest.max(1))
            .map(|(&hour, _)| hour)
            .collect();
        for hour in old {
            let Some(ledger) = self.hours.remove(&hour) else {
                continue;
            };
            for row in ledger.rows() {
                let instance = row.facts.instance;
                self.dirty.remove(&(hour, instance.clone()));
                self.dirty.insert((record::FOLDED, instance.clone()));
                self.garbage.insert((hour, instance.clone()));
                self.folded.insert(instance, hour);
            }
            self.hours.entry(record::FOLDED).or_default().merge(&ledger);
        }
    }

    /// Settles everything that was measured, whatever activity may still come: the process ends.
    pub(crate) fn settle_all(&mut self) {
        self.settle_where(|_, _| true);
    }

    fn settle_where(&mut self, ready: impl Fn(&IntervalEnergy, u64) -> bool) {
        let mut accounts = std::mem::take(&mut self.accounts);
        for (name, account) in &mut accounts {
            while let Some(interval) = account.next_interval(&ready) {
                self.settle_interval(name, account, &interval);
            }
        }
        self.accounts = accounts;
    }

    fn settle_interval(&mut self, name: &str, account: &mut InstanceAccount, interval: &IntervalEnergy) {
        let Some(facts) = account.facts().cloned() else {
            return;
        };
        let (slices, split) = account.split(interval);
        let owners: Vec<_> = slices.iter().map(|slice| slice.owner(interval.end.0)).collect();
        let hour = interval.end.0 / HOUR_NS;
        let folded = self.folded.get(name).is_some_and(|&through| hour <= through);
        let hour = if folded { record::FOLDED } else { hour };
        let recorded = self
            .hours
            .entry(hour)
            .or_default()
            .record(&facts, interval, &split, &owners);
        if let Err(error) = recorded.and_then(|()| self.all.record(&facts, interval, &split, &owners)) {
            tracing::warn!(%error, "an interval was not accounted");
            self.metrics.rejected_energy.inc();
            return;
        }
        self.dirty.insert((hour, name.to_owned()));
        for (cause, energy) in [
            (EnergyCause::Attributed, split.attributed()),
            (EnergyCause::Idle, split.idle),
            (EnergyCause::Unattributed, split.unattributed),
        ] {
            self.metrics.add_energy(name, cause, energy.0);
        }
        let mut charges = vec![MilliJoules::ZERO; slices.len()];
        for &(index, energy) in &split.parts {
            charges[index] = energy;
        }
        for (slice, energy) in slices.iter().zip(charges) {
            self.charge(&facts, slice, hour, energy, slice.is_over(interval.end.0));
        }
        account.forget_until(interval.end.0);
    }

    /// Remembers what a request was charged for, and marks all of it wasted once that is what it was.
    fn charge(
        &mut self,
        facts: &equipoise_energy::InstanceFacts,
        slice: &Slice,
        hour: Hour,
        energy: MilliJoules,
        counted: bool,
    ) {
        let key = (slice.router.clone(), slice.decision.clone());
        if slice.finished && counted {
            let charged = self.charged.remove(&key);
            if slice.wasted {
                for (hour, energy) in charged.map(|charged| charged.by_hour).unwrap_or_default() {
                    if let Some(ledger) = self.hours.get_mut(&hour) {
                        let moved = ledger.mark_wasted(facts, &slice.tenant, energy);
                        self.all.mark_wasted(facts, &slice.tenant, moved);
                        self.dirty.insert((hour, facts.instance.clone()));
                    }
                }
            }
            return;
        }
        // A part of a slice that is known to be wasted has been recorded as wasted.
        let room = self.charged.len() < LIMIT_REQUESTS || self.charged.contains_key(&key);
        if energy > MilliJoules::ZERO && !slice.wasted && room {
            let charged = self.charged.entry(key).or_insert_with(|| Charged {
                by_hour: Vec::new(),
                last_ns: 0,
            });
            charged.last_ns = slice.received_ns;
            match charged.by_hour.last_mut() {
                Some((last, sum)) if *last == hour => *sum += energy,
                _ => charged.by_hour.push((hour, energy)),
            }
        }
    }

    /// The sums of this control plane over all time.
    pub(crate) fn total(&self) -> EnergyRow {
        wire::row("total", &self.figures())
    }

    fn figures(&self) -> EnergyFigures {
        self.all.report(Grouping::Pool).total
    }
}

/// Settles and writes until shutdown; the last settling and writing are the shutdown's.
pub(crate) async fn run(plane: Arc<Plane>) {
    let mut last_written = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = plane.shutdown.cancelled() => return,
            () = tokio::time::sleep(SETTLE_INTERVAL) => {}
        }
        plane.accounting.lock().settle(unix_ns());
        if last_written.elapsed() >= plane.config.ledger_interval {
            last_written = tokio::time::Instant::now();
            if let Err(error) = persist(&plane).await {
                plane.metrics.store_errors.inc();
                tell(&error);
            }
        }
    }
}

fn tell(error: &StoreError) {
    match error {
        StoreError::ValueTooLarge { key, bytes } => tracing::error!(
            key,
            bytes,
            "a record of the energy ledger is too large for the store: its sums are in memory only and a restart would \
             lose them; all other records are written. Shorter names of models, pools and tenants make it smaller"
        ),
        error if error.retryable() => {
            tracing::warn!(%error, "cannot write the energy ledger; it stays in memory until the store is back");
        }
        error => {
            tracing::error!(%error, "cannot write a record of the energy ledger; it stays in memory and is tried again");
        }
    }
}

#[cfg(test)]
mod tests;
