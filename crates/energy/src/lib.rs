//! Energy accounting: who is charged for the joules that were measured.
//!
//! Measured energy is never invented, lost or negative: every split is in whole millijoules and
//! `attributed + idle + unattributed = measured` holds exactly, in every interval, row and report.
//!
//! * [`InstanceMeter`] and [`CounterIntegrator`] turn readings of GPU counters into interval energies, with their flaws;
//! * [`attribute_step`] splits a known engine step, [`attribute_interval`] an interval whose steps are unknown;
//! * [`EnergyLedger`] keeps the sums, [`Report`] groups and renders them;
//! * [`TokenProduction`] and [`CarbonSeries`] relate them to the facility's power and the grid.
//!
//! State is owned by the caller; time is an argument. Does not belong here: reading a GPU (device), modelling energy that
//! nobody measured (engine), storing (store).

mod attribution;
mod counter;
mod facility;
mod interval;
mod ledger;
mod meter;
mod report;
mod source;

pub use attribution::{PartWork, StepTerms, attribute_step};
pub use counter::{CounterIntegrator, CounterReading, GpuEnergy, MeterLimits};
pub use facility::{CarbonSeries, Ceiling, DEFAULT_PUE, Production, TokenProduction, facility_energy};
pub use interval::{ActivitySlice, IntervalEnergy, IntervalSplit, attribute_interval};
pub use ledger::{
    EnergyFigures, EnergyLedger, InstanceFacts, LIMIT_TENANTS, LedgerError, LedgerRow, NO_TENANT, OTHER_TENANTS,
    SliceOwner,
};
pub use meter::InstanceMeter;
pub use report::{EnergyRow, Grouping, Report};
pub use source::{EnergyFlaw, EnergySource};
