//! Workload traces and event logs: formats, readers, generators.
