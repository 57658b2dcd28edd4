//! What a control plane runs with.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tonic::transport::ServerTlsConfig;

/// Configuration of a control plane.
#[derive(Clone, Debug)]
pub struct ControlPlaneConfig {
    /// Its name: keys its part of the energy ledger, so it must stay the same over restarts and be unique among the
    /// control planes that share a store.
    pub name: String,
    /// Where agents, routers and operators connect; port 0 takes any free port.
    pub grpc_addr: SocketAddr,
    /// Where the fleet page and `/metrics` are served, if at all.
    pub page_addr: Option<SocketAddr>,
    /// Certificates of gRPC, read at the start; without them it speaks plain HTTP/2.
    pub tls: Option<ServerTlsConfig>,
    /// How often agents are told to send a batch.
    pub telemetry_interval: Duration,
    /// The shortest lease that is granted.
    pub shortest_lease: Duration,
    /// The longest lease that is granted.
    pub longest_lease: Duration,
    /// How often the energy ledger is written to the store.
    pub ledger_interval: Duration,
    /// How long an energy interval waits for the activity that it is split over.
    pub activity_grace: Duration,
}

impl Default for ControlPlaneConfig {
    /// Loopback only, ports 8090 (gRPC) and 8091 (page); batches each 500 ms, leases of 1 to 60 s.
    fn default() -> Self {
        Self {
            name: "control-plane".to_owned(),
            grpc_addr: (Ipv4Addr::LOCALHOST, 8090).into(),
            page_addr: Some((Ipv4Addr::LOCALHOST, 8091).into()),
            tls: None,
            telemetry_interval: Duration::from_millis(500),
            shortest_lease: Duration::from_secs(1),
            longest_lease: Duration::from_secs(60),
            ledger_interval: Duration::from_secs(5),
            activity_grace: Duration::from_millis(2500),
        }
    }
}
