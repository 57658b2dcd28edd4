//! The gRPC control plane: registry with leases, telemetry, routing state, the energy ledger, the fleet page.
