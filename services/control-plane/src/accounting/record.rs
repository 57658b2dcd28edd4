//! The ledger in the store: `energy/CONTROL-PLANE/HOUR/INSTANCE`, one JSON record each.
//!
//! A control plane writes under its own name only, so that several over one store never overwrite one another; a report
//! reads what the others have written.

use super::instance::InstanceAccount;
use super::{Accounting, HOUR_NS, Hour, wire};
use crate::ControlPlaneConfig;
use crate::plane::Plane;
use crate::server::StartError;
use equipoise_energy::{EnergyLedger, Grouping, LedgerRow};
use equipoise_proto::v1::EnergyReport;
use equipoise_store::{Entry, Precondition, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Prefix of all control planes' records.
const ENERGY: &str = "energy/";
/// Where the sums of hours that are no longer kept one by one stand.
pub(super) const FOLDED: Hour = 0;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The end of the last interval in it, so that an interval sent again after a restart is known.
    until_unix_ns: u64,
    /// In the record of [`FOLDED`]: it holds the hours up to this one. Their own records, if the process ended before it
    /// could delete them, count no more.
    #[serde(default)]
    folded_through: Hour,
    rows: Vec<LedgerRow>,
}

/// The control plane, hour and instance of a key.
fn parse_key(key: &str) -> Option<(&str, Hour, &str)> {
    let (name, rest) = key.strip_prefix(ENERGY)?.split_once('/')?;
    let (hour, instance) = rest.split_once('/')?;
    Some((name, hour.parse().ok()?, instance))
}

fn damaged(entry: &Entry, reason: &dyn std::fmt::Display) -> StartError {
    StartError::Ledger {
        key: entry.key.clone(),
        reason: reason.to_string(),
    }
}

/// Which hours of which instance have been folded. The keys of [`FOLDED`] are read first, whatever the order.
#[derive(Debug, Default)]
struct Folds(BTreeMap<(String, String), Hour>);

impl Folds {
    fn of(entries: &[Entry]) -> Self {
        let mut folds = BTreeMap::new();
        for entry in entries {
            if let Some((name, FOLDED, instance)) = parse_key(&entry.key)
                && let Ok(record) = serde_json::from_slice::<Record>(&entry.versioned.value)
            {
                folds.insert((name.to_owned(), instance.to_owned()), record.folded_through);
            }
        }
        Self(folds)
    }

    fn count_no_more(&self, name: &str, hour: Hour, instance: &str) -> bool {
        let through = self.0.get(&(name.to_owned(), instance.to_owned()));
        hour != FOLDED && through.is_some_and(|&through| hour <= through)
    }
}

/// Reads this control plane's records.
pub(super) async fn load(
    accounting: &mut Accounting,
    config: &ControlPlaneConfig,
    store: &dyn Store,
) -> Result<(), StartError> {
    let listing = store.list(&format!("{ENERGY}{}/", config.name)).await?;
    let folds = Folds::of(&listing.entries);
    let mut until = BTreeMap::new();
    for entry in &listing.entries {
        let (name, hour, instance) =
            parse_key(&entry.key).ok_or_else(|| damaged(entry, &"its key is not one of ours"))?;
        if folds.count_no_more(name, hour, instance) {
            accounting.garbage.insert((hour, instance.to_owned()));
            continue;
        }
        let record: Record = serde_json::from_slice(&entry.versioned.value).map_err(|error| damaged(entry, &error))?;
        let ledger = accounting.hours.entry(hour).or_default();
        ledger
            .restore(record.rows.clone())
            .map_err(|error| damaged(entry, &error))?;
        accounting
            .all
            .restore(record.rows)
            .map_err(|error| damaged(entry, &error))?;
        let last = until.entry(instance.to_owned()).or_insert(0);
        *last = record.until_unix_ns.max(*last);
    }
    accounting.accounts = until
        .into_iter()
        .map(|(instance, until_ns)| (instance, InstanceAccount::resumed(until_ns)))
        .collect();
    accounting.folded = folds
        .0
        .into_iter()
        .map(|((_, instance), through)| (instance, through))
        .collect();
    Ok(())
}

/// What has been taken out of the ledger's marks and is not done yet. Dropped half done (a failure, a cancelled task), it
/// marks the rest again.
struct Unwritten<'a> {
    plane: &'a Plane,
    dirty: BTreeSet<(Hour, String)>,
    garbage: BTreeSet<(Hour, String)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        let mut accounting = self.plane.accounting.lock();
        accounting.dirty.append(&mut self.dirty);
        accounting.garbage.append(&mut self.garbage);
    }
}

/// Writes the records that changed. What could not be written stays marked for the next time; a record that the store
/// refuses holds up no other.
///
/// # Errors
/// The first failure.
pub(crate) async fn persist(plane: &Plane) -> Result<(), StoreError> {
    let (mut unwritten, records) = {
        let mut accounting = plane.accounting.lock();
        let dirty = std::mem::take(&mut accounting.dirty);
        let garbage = std::mem::take(&mut accounting.garbage);
        let records = changed_records(&accounting, &dirty);
        (Unwritten { plane, dirty, garbage }, records)
    };
    let key_of = |(hour, instance): &(Hour, String)| format!("{ENERGY}{}/{hour}/{instance}", plane.config.name);
    let mut refused = BTreeSet::new();
    let mut first = None;
    for (place, record) in records {
        match write(plane, &key_of(&place), &record).await {
            Ok(()) => {
                unwritten.dirty.remove(&place);
            }
            // The store is away: it would take no other either.
            Err(error) if error.retryable() || matches!(error, StoreError::Closed) => {
                return Err(first.unwrap_or(error));
            }
            Err(error) => {
                refused.insert(place);
                first.get_or_insert(error);
            }
        }
    }
    let waits = |(_, instance): &(Hour, String)| refused.contains(&(FOLDED, instance.clone()));
    // Only after the sums that hold them have been written.
    let garbage: Vec<_> = unwritten
        .garbage
        .iter()
        .filter(|place| !waits(place))
        .cloned()
        .collect();
    unwritten.dirty = refused;
    for place in garbage {
        plane.store.delete(&key_of(&place), Precondition::None).await?;
        unwritten.garbage.remove(&place);
    }
    first.map_or(Ok(()), Err)
}

async fn write(plane: &Plane, key: &str, record: &Record) -> Result<(), StoreError> {
    let value = serde_json::to_vec(record).map_err(|error| StoreError::Refused {
        operation: format!("encode {key}"),
        reason: error.to_string(),
    })?;
    plane.store.put(key, value.into(), Precondition::None, None).await?;
    Ok(())
}

fn changed_records(accounting: &Accounting, dirty: &BTreeSet<(Hour, String)>) -> BTreeMap<(Hour, String), Record> {
    let mut records = BTreeMap::new();
    let hours: BTreeSet<Hour> = dirty.iter().map(|(hour, _)| *hour).collect();
    for hour in hours {
        for row in accounting.hours.get(&hour).into_iter().flat_map(EnergyLedger::rows) {
            let instance = &row.facts.instance;
            let place = (hour, instance.clone());
            if !dirty.contains(&place) {
                continue;
            }
            let until_unix_ns = accounting
                .accounts
                .get(instance)
                .map_or(0, InstanceAccount::settled_until_ns);
            let folded_through = if hour == FOLDED {
                accounting.folded.get(instance).copied().unwrap_or(0)
            } else {
                0
            };
            let fresh = || Record {
                until_unix_ns,
                folded_through,
                rows: Vec::new(),
            };
            records.entry(place).or_insert_with(fresh).rows.push(row);
        }
    }
    records
}

/// Sums the ledgers of all control planes over the hours that touch [`start_ns`, `end_ns`); 0 means open. Hours that have
/// been folded are in the sum only where the start is open.
pub(crate) async fn report(
    plane: &Plane,
    by: Grouping,
    start_ns: u64,
    end_ns: u64,
) -> Result<EnergyReport, StoreError> {
    let first = start_ns / HOUR_NS;
    let past = if end_ns == 0 {
        Hour::MAX
    } else {
        end_ns.div_ceil(HOUR_NS)
    };
    let listing = plane.store.list(ENERGY).await?;
    let folds = Folds::of(&listing.entries);
    let mut sum = EnergyLedger::new();
    for entry in &listing.entries {
        let Some((name, hour, instance)) = parse_key(&entry.key) else {
            continue;
        };
        let wanted = (first..past).contains(&hour) && !folds.count_no_more(name, hour, instance);
        if name == plane.config.name || !wanted {
            continue;
        }
        let taken = serde_json::from_slice(&entry.versioned.value)
            .map_err(|error| error.to_string())
            .and_then(|record: Record| sum.restore(record.rows).map_err(|error| error.to_string()));
        if let Err(reason) = taken {
            tracing::error!(
                key = entry.key,
                reason,
                "a record of the energy ledger is damaged and left out"
            );
        }
    }
    let accounting = plane.accounting.lock();
    for (_, ledger) in accounting.hours.range(first..past) {
        sum.merge(ledger);
    }
    Ok(wire::report(&sum.report(by)))
}
