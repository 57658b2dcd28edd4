//! Where an energy figure comes from, and what may be wrong with it.

use serde::{Deserialize, Serialize};

/// Where an energy figure comes from, from the best to the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnergySource {
    /// The GPU's energy counter.
    Counter,
    /// Integrated from power samples.
    Power,
    /// Modelled: no GPU was metered.
    Modelled,
}

/// What is wrong with a measurement; the interval is accounted but flagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnergyFlaw {
    /// The counter went backwards (driver reload) or leapt beyond what the board can draw.
    CounterReset,
    /// The counter stood still while power was drawn.
    CounterFrozen,
    /// The GPU could not be read.
    GpuLost,
    /// Counter and power integral disagree by more than 5 %.
    Disagreement,
}
