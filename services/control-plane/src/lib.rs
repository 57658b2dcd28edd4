//! The control plane: a registry of instances under leases, routing state for routers, the energy ledger, and a page.
//!
//! The cluster's lasting state (registrations, operators' wishes, ledger rows) belongs to the store; several control
//! planes over one etcd agree on it. What lives in this process only: the latest samples of the agents that stream to
//! it, the ledgers of the routers that report to it, and energy that still waits for its activity. So an agent and
//! the routers that need its samples should use the same control plane.
//!
//! Does not belong here: routing decisions (the routers make them on what they are told), reading GPUs or engines (the
//! agents do), and opening or closing the store (whoever starts the control plane does).

mod accounting;
mod config;
mod fleet;
mod follow;
mod page;
mod plane;
mod registrar;
mod routing;
mod server;
mod service;
mod validate;

pub use config::ControlPlaneConfig;
pub use server::{ControlPlane, RunningControlPlane, StartError};
