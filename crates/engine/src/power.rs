//! Board power against utilisation.

/// Power of one GPU in a step: `min(context + memory * u_b + compute * sqrt(u_f) - parallel, tdp)`, where `u_b` and `u_f` are the
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
    /// What a GPU draws less when it shares a model with others and waits for them, watts.
    pub parallel_watts: f64,
    /// Of a mixture of experts.
    pub mixture: MixtureCurve,
}

/// Power of one GPU in a step of a mixture of experts: `min(idle + memory * u_b + experts * cbrt(u_e) + quantising * u_q, tdp)`,
/// where `u_b` is the share of peak bandwidth, `u_e` the share of peak FLOP/s in the experts alone, and `u_q` the share of time in
/// which activations are quantised for them; idle with the engine loaded.
///
/// The cube root: many small products, of a few rows each, keep every multiprocessor at work long before their FLOPs count. Fitted
/// to 44 rows of ML.ENERGY v3 with this crate's own step times: power 6.6 % median error (10.0 % on the 60 rows of the other
/// half), joules per token 9.2 % (9.0 %). A dense model's curve is 16 % off there: too high at small batches, too low at large ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureCurve {
    /// Watts at full memory bandwidth.
    pub memory_watts: f64,
    /// Watts at full FLOP/s in the experts, were there no limit.
    pub expert_watts: f64,
    /// Watts while activations are quantised.
    pub quantising_watts: f64,
}

impl MixtureCurve {
    /// For GPUs that nobody metered with mixtures: shares of the limit, from both that were (12.3 % in joules per token there).
    const fn of_limit(tdp_watts: f64) -> Self {
        Self {
            memory_watts: 0.335 * tdp_watts,
            expert_watts: 1.9 * tdp_watts,
            quantising_watts: 0.581 * tdp_watts,
        }
    }

    /// Watts at the given shares of memory bandwidth, of FLOP/s in experts and of time in quantising, not above `tdp_watts`.
    #[must_use]
    pub fn watts(&self, [memory, experts, quantising]: [f64; 3], idle_watts: f64, tdp_watts: f64) -> f64 {
        let above =
            self.memory_watts * memory + self.expert_watts * experts.cbrt() + self.quantising_watts * quantising;
        (idle_watts + above).min(tdp_watts)
    }
}

impl PowerCurve {
    /// Fitted to ML.ENERGY v3 on H100 SXM (65 dense bf16 rows of 8 models, batches to 600, utilisation from measured step
    /// times): power 5.0 % mean error, 18 % at worst, 6.1 % leaving one model out. With this crate's own step times: joules per
    /// token 4.4 % (5.1 %).
    pub const H100: Self = Self {
        loaded_watts: 40.0,
        context_watts: 232.0,
        memory_watts: 229.0,
        compute_watts: 764.0,
        parallel_watts: 59.0,
        mixture: MixtureCurve {
            memory_watts: 199.0,
            expert_watts: 1312.0,
            quantising_watts: 509.0,
        },
    };

    /// Fitted likewise on B200 SXM (54 rows): power 4.7 % mean error, 33 % at worst, 5.0 % leaving one model out; joules per
    /// token with this crate's own step times 4.3 % (4.4 %).
    pub const B200: Self = Self {
        loaded_watts: 40.0,
        context_watts: 180.0,
        memory_watts: 806.0,
        compute_watts: 1224.0,
        parallel_watts: 0.0,
        mixture: MixtureCurve {
            memory_watts: 450.0,
            expert_watts: 1834.0,
            quantising_watts: 511.0,
        },
    };

    /// The A100's curve, scaled by the board power limit for GPUs that nobody metered in enough detail.
    ///
    /// Context and memory terms: a joint fit to splitwise-sim's power-over-TDP table (Llama-2-70B, 195 rows), ML.ENERGY v2 (37
    /// rows) and Argonne's averages (8 rows). Those are means over decode-heavy runs and alone give 154 W of compute; 240 W is
    /// the compromise with splitwise's prefill, which peaks at the limit. Median error 5 % on
    /// splitwise (26 % mean: some of its averages are near zero), 7 % on v2 (13 % mean), 15 % on Argonne. `loaded_watts`: 26-50 W on
    /// HBM boards, 66 W on L40S (arXiv 2605.23918).
    #[must_use]
    pub const fn like_a100(idle_watts: f64, loaded_watts: f64, tdp_watts: f64) -> Self {
        Self {
            loaded_watts,
            context_watts: idle_watts + loaded_watts + 0.03 * tdp_watts,
            memory_watts: 0.575 * tdp_watts,
            compute_watts: 0.60 * tdp_watts,
            parallel_watts: 0.0,
            mixture: MixtureCurve::of_limit(tdp_watts),
        }
    }

    /// Draw with the engine loaded and no step running: the bare board and the CUDA context.
    #[must_use]
    pub(crate) fn loaded_idle_watts(&self, idle_watts: f64) -> f64 {
        idle_watts + self.loaded_watts
    }

    /// Draw of a step before any utilisation.
    pub(crate) fn base_watts(&self, parallel: bool) -> f64 {
        if parallel {
            self.context_watts - self.parallel_watts
        } else {
            self.context_watts
        }
    }

    /// Watts at the given utilisations, both in [0, 1], not above `tdp_watts`.
    #[must_use]
    pub fn watts(&self, memory_share: f64, compute_share: f64, parallel: bool, tdp_watts: f64) -> f64 {
        let base = self.base_watts(parallel);
        (base + self.memory_watts * memory_share + self.compute_watts * compute_share.sqrt()).min(tdp_watts)
    }
}
