//! The control plane over loopback: real tonic clients, fake agents and routers.
#![expect(clippy::expect_used, reason = "a test fails by panicking, its plain functions too")]

mod demonstration;
mod energy;
mod harness;
mod page;
mod registry;
mod store_away;
mod watching;
