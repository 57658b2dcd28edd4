//! Clients to inference engines: connection pool, probes, the /metrics parser.
