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
use std::collections::BTreeMap;

/// Prefix of all control planes' records.
const ENERGY: &str = "energy/";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The end of the last interval in it, so that an interval sent again after a restart is known.
    until_unix_ns: u64,
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

/// Reads this control plane's records.
pub(super) async fn load(
    accounting: &mut Accounting,
    config: &ControlPlaneConfig,
    store: &dyn Store,
) -> Result<(), StartError> {
    let listing = store.list(&format!("{ENERGY}{}/", config.name)).await?;
    let mut until = BTreeMap::new();
    for entry in &listing.entries {
        let (_, hour, instance) = parse_key(&entry.key).ok_or_else(|| damaged(entry, &"its key is not one of ours"))?;
        let record: Record = serde_json::from_slice(&entry.versioned.value).map_err(|error| damaged(entry, &error))?;
        let hours = accounting.hours.entry(hour).or_default();
        hours
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
    Ok(())
}

/// Writes the records that changed. What could not be written stays marked for the next time.
pub(crate) async fn persist(plane: &Plane) -> Result<(), StoreError> {
    let (dirty, records) = {
        let mut accounting = plane.accounting.lock();
        let dirty = std::mem::take(&mut accounting.dirty);
        let records = changed_records(&accounting, &dirty);
        (dirty, records)
    };
    let outcome = async {
        for ((hour, instance), record) in records {
            let value = serde_json::to_vec(&record).map_err(|error| StoreError::Refused {
                operation: "encode the energy ledger".to_owned(),
                reason: error.to_string(),
            })?;
            let key = format!("{ENERGY}{}/{hour}/{instance}", plane.config.name);
            plane.store.put(&key, value.into(), Precondition::None, None).await?;
        }
        Ok(())
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        plane.accounting.lock().dirty.extend(dirty);
    }
    outcome
}

fn changed_records(
    accounting: &Accounting,
    dirty: &std::collections::BTreeSet<(Hour, String)>,
) -> BTreeMap<(Hour, String), Record> {
    let mut records = BTreeMap::new();
    let hours: std::collections::BTreeSet<Hour> = dirty.iter().map(|(hour, _)| *hour).collect();
    for hour in hours {
        for row in accounting.hours.get(&hour).into_iter().flat_map(EnergyLedger::rows) {
            let key = (hour, row.facts.instance.clone());
            if !dirty.contains(&key) {
                continue;
            }
            let until_unix_ns = accounting
                .accounts
                .get(&row.facts.instance)
                .map_or(0, InstanceAccount::settled_until_ns);
            let record = records.entry(key).or_insert_with(|| Record {
                until_unix_ns,
                rows: Vec::new(),
            });
            record.rows.push(row);
        }
    }
    records
}

/// Sums the ledgers of all control planes over the hours that touch [`start_ns`, `end_ns`); 0 means open.
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
    let mut sum = EnergyLedger::new();
    for entry in &listing.entries {
        let Some((name, hour, _)) = parse_key(&entry.key) else {
            continue;
        };
        if name == plane.config.name || !(first..past).contains(&hour) {
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
