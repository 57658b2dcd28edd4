//! What will happen in a simulation, and in which order.

use std::cmp::Ordering;

use equipoise_fleet::EngineSample;
use equipoise_types::Timestamp;

use crate::conditions::Change;
use crate::routers::FleetReport;

/// Something that will happen. Not among them: arrivals, which come from the workload, in order, and the taking of
/// samples, which has a rhythm.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A dispatched request reaches its instance.
    Submit { instance: u32, request: u32 },
    /// An instance ends its step, unless that was cut and another runs.
    StepEnd { instance: u32 },
    /// What an instance sent reaches the router.
    Reports(Vec<Report>),
    /// Samples of all instances, as far as they come through, reach the router.
    Samples(Vec<Option<EngineSample>>),
    /// The fleet's state reaches each of several routers.
    Report(FleetReport),
    /// A condition of the run changes.
    Change(Change),
}

/// What an instance says of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) request: u32,
    pub(crate) kind: ReportKind,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum ReportKind {
    FirstToken,
    Tokens(u32),
    Finished,
    Refused,
    /// The connection broke, or was never made.
    Lost,
}

/// Ordered by time, then by the order in which it was planned.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) at: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) happening: Happening,
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Planned {}
