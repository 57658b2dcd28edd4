//! The wire contracts: our own, `equipoise.v1`, and the parts of others' that we speak. Generated code only; the `.proto` files
//! beside it are the documentation.

pub use prost_types;

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

/// Envoy's external processing, as far as an endpoint picker needs it.
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
pub mod ext_proc {
    tonic::include_proto!("envoy.service.ext_proc.v3");
}

/// The gRPC health checking protocol.
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
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
