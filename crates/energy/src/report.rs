//! The ledger grouped, and as a table for people.

use crate::ledger::{EnergyFigures, EnergyLedger};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod render;

/// What the rows of a report are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Pools.
    Pool,
    /// Models.
    Model,
    /// GPU types.
    Gpu,
    /// Tenants; idle and unattributed energy stand on the row "-".
    Tenant,
}

/// One row of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnergyRow {
    /// The pool, model, GPU type or tenant.
    pub key: String,
    /// Its sums.
    #[serde(flatten)]
    pub figures: EnergyFigures,
}

/// The ledger's sums by one grouping, rows sorted by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What the rows are.
    pub by: Grouping,
    /// The rows.
    pub rows: Vec<EnergyRow>,
    /// Their sum.
    pub total: EnergyFigures,
}

impl EnergyLedger {
    /// Sums the ledger.
    #[must_use]
    pub fn report(&self, by: Grouping) -> Report {
        let mut groups: BTreeMap<&str, EnergyFigures> = BTreeMap::new();
        let mut total = EnergyFigures::default();
        for (facts, tenant, figures) in self.entries() {
            let key = match by {
                Grouping::Pool => &facts.pool,
                Grouping::Model => &facts.model,
                Grouping::Gpu => &facts.gpu,
                Grouping::Tenant => tenant,
            };
            *groups.entry(key).or_default() += figures;
            total += figures;
        }
        let rows = groups
            .into_iter()
            .map(|(key, figures)| EnergyRow {
                key: key.to_owned(),
                figures,
            })
            .collect();
        Report { by, rows, total }
    }
}
