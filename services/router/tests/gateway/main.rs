//! The router's doors for those who send by themselves: the route service and Envoy's external processing, each talked to
//! by a client that follows the protocol, and by one that does not. What is booked must be released, whatever happens.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its plain functions too"
)]

mod disorder;
mod envoy;
mod ext_proc;
mod plane;
mod route;
