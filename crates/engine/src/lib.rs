//! The physics of one instance: step time, KV memory, continuous batching, power.
