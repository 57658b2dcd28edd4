//! The four gRPC services over one [`Plane`].

mod admin;
mod agent;
mod energy;
mod routing;

use crate::plane::Plane;
use std::sync::Arc;

/// Implements every service of `equipoise.v1`.
#[derive(Clone, Debug)]
pub(crate) struct Services(pub(crate) Arc<Plane>);
