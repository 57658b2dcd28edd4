//! What the scheduler knows: instances, health, telemetry with its age, the in-flight ledger.
