//! The wire contracts `equipoise.v1`: generated code only. The `.proto` files beside it are the documentation.

/// Everything of `equipoise/v1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::restriction,
    clippy::pedantic,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("equipoise.v1");
}
