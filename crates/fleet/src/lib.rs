//! What the scheduler knows: instances, their health, telemetry with its age, and the in-flight ledger.
//!
//! The fleet is state with one owner (the scheduler) that changes through [`FleetDelta`]s and ledger calls only.
//! Every observed quantity carries its age; unknown or stale is never read as idle. Does not belong here: which
//! instance to take, and how deltas travel.

mod changes;
mod delta;
mod health;
mod instance;
mod ledger;
mod peers;
mod prefix;
mod price;
mod spec;
mod state;

pub use delta::{EngineSample, FleetDelta, PeerLoad};
pub use equipoise_engine::Serving;
pub use health::{Breaker, Health};
pub use instance::{Instance, PeerView};
pub use ledger::{Booking, Ledger, Released};
pub use price::CongestionPrice;
pub use spec::{InstanceSpec, LimitsSpec, ModelProfile, Price};
pub use state::{Fleet, FleetError, ModelState};
