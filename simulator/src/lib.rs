//! Trace-driven discrete-event simulation with the router's own decision code.
