//! Predictors of quality, output length, latency and energy, calibrated online.
