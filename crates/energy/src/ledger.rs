//! The sums: who used how much, by instance and tenant.

use crate::interval::{IntervalEnergy, IntervalSplit};
use crate::source::EnergySource;
use equipoise_types::MilliJoules;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::AddAssign;

/// The row of what belongs to no tenant: idle and unattributed energy.
pub const NO_TENANT: &str = "-";

/// The row of the tenants that came when an instance had [`LIMIT_TENANTS`] already. A tenant of that name shares it.
pub const OTHER_TENANTS: &str = "other";

/// Tenants that one ledger tells apart on one instance; those that come later are summed under [`OTHER_TENANTS`].
///
/// Tenants are names that clients choose. A stored row takes up to 1.4 kB (two names of 253 characters, a tenant of 128,
/// thirteen figures), so the rows of an instance stay below a store's 1 MiB per value.
pub const LIMIT_TENANTS: usize = 500;

/// What an instance is; reports group by these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// The instance's name.
    pub instance: String,
    /// Its pool.
    pub pool: String,
    /// The model that it serves.
    pub model: String,
    /// Its GPU type.
    pub gpu: String,
}

/// The figures of a row; the columns of the wire's `EnergyRow`. Energies in millijoules.
///
/// `attributed + idle + unattributed = measured` and `counter + power + modelled = measured`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnergyFigures {
    /// All that was measured.
    pub measured_mj: u64,
    /// Split over requests.
    pub attributed_mj: u64,
    /// Part of `attributed_mj` that went to requests which failed or were cancelled.
    pub wasted_mj: u64,
    /// The idle draw.
    pub idle_mj: u64,
    /// Above idle, but no known request ran.
    pub unattributed_mj: u64,
    /// Requests that ended.
    pub requests: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Tokens decoded.
    pub decode_tokens: u64,
    /// Measured time, nanoseconds of instance time.
    pub span_ns: u64,
    /// Part of `measured_mj` from energy counters.
    pub counter_mj: u64,
    /// Part from power samples.
    pub power_mj: u64,
    /// Part that is modelled.
    pub modelled_mj: u64,
    /// Intervals with a flaw.
    pub flawed_intervals: u64,
}

impl EnergyFigures {
    /// Whether the row adds up, by use and by source.
    #[must_use]
    pub fn balances(&self) -> bool {
        let sum = |parts: [u64; 3]| parts.iter().map(|&part| u128::from(part)).sum::<u128>();
        let measured = u128::from(self.measured_mj);
        sum([self.attributed_mj, self.idle_mj, self.unattributed_mj]) == measured
            && sum([self.counter_mj, self.power_mj, self.modelled_mj]) == measured
            && self.wasted_mj <= self.attributed_mj
    }

    fn measure(&mut self, energy: MilliJoules, source: EnergySource) {
        self.measured_mj += energy.0;
        match source {
            EnergySource::Counter => self.counter_mj += energy.0,
            EnergySource::Power => self.power_mj += energy.0,
            EnergySource::Modelled => self.modelled_mj += energy.0,
        }
    }
}

impl AddAssign<&Self> for EnergyFigures {
    fn add_assign(&mut self, other: &Self) {
        self.measured_mj += other.measured_mj;
        self.attributed_mj += other.attributed_mj;
        self.wasted_mj += other.wasted_mj;
        self.idle_mj += other.idle_mj;
        self.unattributed_mj += other.unattributed_mj;
        self.requests += other.requests;
        self.prefill_tokens += other.prefill_tokens;
        self.decode_tokens += other.decode_tokens;
        self.span_ns += other.span_ns;
        self.counter_mj += other.counter_mj;
        self.power_mj += other.power_mj;
        self.modelled_mj += other.modelled_mj;
        self.flawed_intervals += other.flawed_intervals;
    }
}

/// Whose slice it was, and what of it ends in the interval: the tokens are counted once, in the row that pays for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceOwner<'a> {
    /// The tenant. An empty name reads as [`NO_TENANT`].
    pub tenant: &'a str,
    /// Prompt tokens to count.
    pub prefill_tokens: u64,
    /// Decoded tokens to count.
    pub decode_tokens: u64,
    /// Requests to count: 1 where the request ended.
    pub requests: u64,
    /// Whether the request has failed or was cancelled.
    pub wasted: bool,
}

/// One row of the ledger, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The instance.
    #[serde(flatten)]
    pub facts: InstanceFacts,
    /// The tenant, or [`NO_TENANT`].
    pub tenant: String,
    /// Its sums.
    #[serde(flatten)]
    pub figures: EnergyFigures,
}

/// Why the ledger refuses something; it is unchanged then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The split is not one of this interval.
    #[error(
        "the split of {instance} sums to {split_mj} mJ, its interval measured {measured_mj} mJ: split the interval that is recorded"
    )]
    Unbalanced {
        /// The instance.
        instance: String,
        /// Attributed, idle and unattributed.
        split_mj: u128,
        /// Measured.
        measured_mj: u64,
    },
    /// The split names a slice that has no owner.
    #[error(
        "the split of {instance} charges slice {index}, but only {owners} owners are given: give one owner per slice"
    )]
    NoOwner {
        /// The instance.
        instance: String,
        /// The slice.
        index: usize,
        /// Owners given.
        owners: usize,
    },
    /// More energy or time than any instance has: a broken sample, which would drown all others.
    #[error(
        "{instance} reports {measured_mj} mJ in {span_ns} ns in one interval, which no instance can draw: fix its meter"
    )]
    Implausible {
        /// The instance.
        instance: String,
        /// Measured.
        measured_mj: u64,
        /// The interval's length.
        span_ns: u64,
    },
    /// A stored row that does not add up.
    #[error("the stored row of {instance} and tenant {tenant} does not add up: restore the ledger from a good copy")]
    CorruptRow {
        /// The instance.
        instance: String,
        /// The tenant.
        tenant: String,
    },
}

/// A megawatt for a day in one interval: beyond any instance, and so small that billions of them do not overflow a sum.
const MOST_INTERVAL_MJ: u64 = 86_400_000_000_000;
/// Ten days, nanoseconds.
const MOST_INTERVAL_NS: u64 = 864_000_000_000_000;

/// Sums by instance and tenant. Every row adds up by itself, so every grouping of rows does. Bounded: an instance has at
/// most [`LIMIT_TENANTS`] rows of tenants, however many names clients make up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnergyLedger {
    rows: BTreeMap<(InstanceFacts, String), EnergyFigures>,
    /// Rows of named tenants, by instance.
    named: BTreeMap<String, usize>,
}

impl EnergyLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an interval in: each part goes to its owner's tenant, idle and unattributed energy, time and flaws to
    /// [`NO_TENANT`]. `owners` is parallel to the activity that was split; their tokens count even where they get no energy.
    ///
    /// # Errors
    /// When the split is not of this interval, names a slice without owner, or the interval is implausible.
    pub fn record(
        &mut self,
        facts: &InstanceFacts,
        interval: &IntervalEnergy,
        split: &IntervalSplit,
        owners: &[SliceOwner<'_>],
    ) -> Result<(), LedgerError> {
        check(facts, interval, split, owners)?;
        let span_ns = interval.end.0.saturating_sub(interval.start.0);
        let reservation = self.row(facts, NO_TENANT);
        reservation.measure(split.idle, interval.source);
        reservation.measure(split.unattributed, interval.source);
        reservation.idle_mj += split.idle.0;
        reservation.unattributed_mj += split.unattributed.0;
        reservation.span_ns += span_ns;
        reservation.flawed_intervals += u64::from(!interval.flaws.is_empty());
        for &(index, energy) in &split.parts {
            let owner = owners[index];
            let row = self.row(facts, owner.tenant);
            row.measure(energy, interval.source);
            row.attributed_mj += energy.0;
            if owner.wasted {
                row.wasted_mj += energy.0;
            }
        }
        for owner in owners {
            let row = self.row(facts, owner.tenant);
            row.prefill_tokens = row.prefill_tokens.saturating_add(owner.prefill_tokens);
            row.decode_tokens = row.decode_tokens.saturating_add(owner.decode_tokens);
            row.requests = row.requests.saturating_add(owner.requests);
        }
        Ok(())
    }

    /// Moves energy that a tenant was charged for earlier to its wasted line: the request it went to has failed since.
    /// No more than was attributed; returns what was moved.
    pub fn mark_wasted(&mut self, facts: &InstanceFacts, tenant: &str, energy: MilliJoules) -> MilliJoules {
        let Some(row) = self.rows.get_mut(&self.place(facts, tenant)) else {
            return MilliJoules::ZERO;
        };
        let moved = energy.0.min(row.attributed_mj - row.wasted_mj);
        row.wasted_mj += moved;
        MilliJoules(moved)
    }

    /// Takes stored rows in.
    ///
    /// # Errors
    /// At the first row that does not add up; the rows before it are taken.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = LedgerRow>) -> Result<(), LedgerError> {
        for LedgerRow { facts, tenant, figures } in rows {
            if !figures.balances() {
                return Err(LedgerError::CorruptRow {
                    instance: facts.instance,
                    tenant,
                });
            }
            *self.row(&facts, &tenant) += &figures;
        }
        Ok(())
    }

    /// Adds another ledger's sums, of another hour or another node.
    pub fn merge(&mut self, other: &Self) {
        for ((facts, tenant), figures) in &other.rows {
            *self.row(facts, tenant) += figures;
        }
    }

    /// The rows, sorted, for storing.
    pub fn rows(&self) -> impl Iterator<Item = LedgerRow> {
        self.entries().map(|(facts, tenant, figures)| LedgerRow {
            facts: facts.clone(),
            tenant: tenant.to_owned(),
            figures: *figures,
        })
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&InstanceFacts, &str, &EnergyFigures)> {
        self.rows
            .iter()
            .map(|((facts, tenant), figures)| (facts, tenant.as_str(), figures))
    }

    fn row(&mut self, facts: &InstanceFacts, tenant: &str) -> &mut EnergyFigures {
        match self.rows.entry(self.place(facts, tenant)) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(row) => {
                if ![NO_TENANT, OTHER_TENANTS].contains(&row.key().1.as_str()) {
                    *self.named.entry(facts.instance.clone()).or_default() += 1;
                }
                row.insert(EnergyFigures::default())
            }
        }
    }

    /// Where a tenant's sums stand.
    fn place(&self, facts: &InstanceFacts, tenant: &str) -> (InstanceFacts, String) {
        let tenant = if tenant.is_empty() { NO_TENANT } else { tenant };
        let place = (facts.clone(), tenant.to_owned());
        let full = self
            .named
            .get(&facts.instance)
            .is_some_and(|&named| named >= LIMIT_TENANTS);
        if full && tenant != NO_TENANT && !self.rows.contains_key(&place) {
            return (place.0, OTHER_TENANTS.to_owned());
        }
        place
    }
}

fn check(
    facts: &InstanceFacts,
    interval: &IntervalEnergy,
    split: &IntervalSplit,
    owners: &[SliceOwner<'_>],
) -> Result<(), LedgerError> {
    let instance = || facts.instance.clone();
    let (measured_mj, span_ns) = (interval.measured.0, interval.end.0.saturating_sub(interval.start.0));
    if measured_mj > MOST_INTERVAL_MJ || span_ns > MOST_INTERVAL_NS {
        return Err(LedgerError::Implausible {
            instance: instance(),
            measured_mj,
            span_ns,
        });
    }
    let parts = split
        .parts
        .iter()
        .map(|&(_, energy)| u128::from(energy.0))
        .sum::<u128>();
    let split_mj = parts + u128::from(split.idle.0) + u128::from(split.unattributed.0);
    if split_mj != u128::from(measured_mj) {
        return Err(LedgerError::Unbalanced {
            instance: instance(),
            split_mj,
            measured_mj,
        });
    }
    match split.parts.iter().find(|&&(index, _)| index >= owners.len()) {
        Some(&(index, _)) => Err(LedgerError::NoOwner {
            instance: instance(),
            index,
            owners: owners.len(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
