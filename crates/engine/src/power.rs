//! Board power against utilisation.

/// Power of one GPU in a step: `clip(context + memory * u_b + compute * sqrt(u_f), tdp)`, where `u_b` and `u_f` are the
/// shares of peak bandwidth and of peak FLOP/s that the step uses.
///
/// The square root: tensor cores at 10-20 % of their peak already pull most of the dynamic power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerCurve {
    /// What a loaded CUDA context adds to the bare board's idle draw, watts.
    pub loaded_watts: f64,
    /// Draw while a step runs, before any utilisation, watts.
    pub context_watts: f64,
    /// Watts at full memory bandwidth.
    pub memory_watts: f64,
    /// Watts at full FLOP/s.
    pub compute_watts: f64,
}

impl PowerCurve {
    /// The curve of a GPU that nobody metered in enough detail: the H100's, scaled by the board power limit.
    #[must_use]
    pub const fn scaled(tdp_watts: f64) -> Self {
        Self {
            loaded_watts: 40.0,
            context_watts: 0.56 * tdp_watts,
            memory_watts: 0.0,
            compute_watts: 0.76 * tdp_watts,
        }
    }

    /// Draw with the engine loaded and no step running: the bare board and the CUDA context.
    #[must_use]
    pub(crate) fn loaded_idle_watts(&self, idle_watts: f64) -> f64 {
        idle_watts + self.loaded_watts
    }

    /// Watts at the given utilisations, both in [0, 1], not above `tdp_watts`.
    #[must_use]
    pub fn watts(&self, memory_share: f64, compute_share: f64, tdp_watts: f64) -> f64 {
        (self.context_watts
            + self.memory_watts * memory_share
            + self.compute_watts * compute_share.sqrt())
        .min(tdp_watts)
    }
}
