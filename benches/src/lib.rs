//! Criterion benches and side-by-side comparisons.
//!
//! What several of them share: a fleet in this process ([`LocalFleet`]), a scheduler with work on it
//! ([`BusyScheduler`]), an open-loop load generator ([`Load`]), an engine that costs nothing ([`InstantEngine`]) and
//! latencies in a histogram ([`Latencies`]), routers as processes ([`RouterProcess`]). State belongs to whoever starts a measurement. Does not belong here:
//! anything a service needs.

mod busy;
pub mod cpu;
mod fleet;
mod http_client;
mod instant;
mod latencies;
mod load;
mod router_process;
mod table;

pub use busy::BusyScheduler;
pub use fleet::{LocalFleet, OpaqueBox, instance};
pub use http_client::{Http, chat_body, http_client, post};
pub use instant::{ANSWER, InstantEngine};
pub use latencies::Latencies;
pub use load::{Arrivals, Load, LoadReport};
pub use router_process::{RouterProcess, RouterRole};
pub use table::{say, table};
