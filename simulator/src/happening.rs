//! What will happen in a simulation, and in which order.

use std::cmp::Ordering;

use equipoise_fleet::EngineSample;
use equipoise_types::{RequestId, Timestamp};

use crate::conditions::Change;
use crate::routers::FleetReport;

/// Something that will happen. Not among them: arrivals, which come from the workload, in order; wake-ups of instances; the
/// taking of samples, which has a rhythm; and progress of answers, which the router hears of before it decides.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A dispatched request reaches its instance.
    Submit { instance: u32, request: RequestId },
    /// What an instance sent reaches the router.
    Report {
        instance: u32,
        request: RequestId,
        kind: ReportKind,
    },
    /// Samples of all instances, as far as they come through, reach the router.
    Samples(Vec<Option<EngineSample>>),
    /// The fleet's state reaches each of several routers.
    Fleet(Box<FleetReport>),
    /// A condition of the run changes.
    Change(Change),
}

/// What an instance says of one request, beside its progress.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReportKind {
    FirstToken,
    Finished,
    Refused,
    /// The connection broke, or was never made.
    Lost,
}

impl Happening {
    /// What comes first of things that happen at the same time: steps end before requests come in, and what engines say
    /// comes in order of the instances. It must not depend on when something was planned, for that is another time when
    /// steps are taken together.
    fn rank(&self) -> (u8, u32) {
        match self {
            Self::Submit { .. } => (1, 0),
            Self::Report { instance, .. } => (2, *instance),
            Self::Samples(_) => (3, 0),
            Self::Fleet(_) => (4, 0),
            Self::Change(_) => (5, 0),
        }
    }
}

/// Ordered by time, then by rank, then by the order in which it was planned.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) at: Timestamp,
    rank: (u8, u32),
    sequence: u64,
    pub(crate) happening: Happening,
}

impl Planned {
    pub(crate) fn new(at: Timestamp, sequence: u64, happening: Happening) -> Self {
        Self {
            at,
            rank: happening.rank(),
            sequence,
            happening,
        }
    }

    fn key(&self) -> (Timestamp, (u8, u32), u64) {
        (self.at, self.rank, self.sequence)
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
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
