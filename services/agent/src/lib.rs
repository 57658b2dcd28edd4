//! The node agent: registers instances with a lease and streams GPU and engine telemetry.
