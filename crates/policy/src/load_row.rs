//! What a policy that looks at loads alone is shown of an instance.

use equipoise_types::InstanceId;

use crate::Candidate;

/// One instance that could take a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadRow {
    /// Which instance.
    pub instance: InstanceId,
    /// Relative share of traffic, above zero.
    pub weight: f64,
    /// Requests in flight there were this one among them, per weight.
    pub crowding: f64,
}

impl LoadRow {
    /// An instance with so many requests in flight.
    #[must_use]
    pub fn new(instance: InstanceId, in_flight: u32, weight: f64) -> Self {
        Self {
            instance,
            weight,
            crowding: (f64::from(in_flight) + 1.0) / weight,
        }
    }
}

/// An instance with its load, told at length or in short.
pub(crate) trait Loaded {
    fn row(&self) -> LoadRow;
}

impl Loaded for LoadRow {
    fn row(&self) -> LoadRow {
        *self
    }
}

impl Loaded for Candidate {
    fn row(&self) -> LoadRow {
        LoadRow::new(self.instance, self.load.in_flight, self.weight)
    }
}
