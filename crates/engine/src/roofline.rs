//! Time of matrix products against the number of tokens, tabulated once so that a look-up is two loads and a multiply.

use crate::gpu::GpuSpec;
use crate::model::BYTES;

/// Time of one operator: `t0 + ((bytes / (eta_b BW))^q + (flops / (eta_f PEAK))^q)^(1/q)`, seconds.
pub(crate) fn operator_seconds(gpu: &GpuSpec, bytes: f64, flops: f64) -> f64 {
    let memory = bytes / (gpu.bandwidth_efficiency * gpu.bandwidth);
    let compute = flops / (gpu.flops_efficiency * gpu.peak_flops);
    let q = gpu.roofline_exponent;
    // Scaled by the larger, so that no power underflows.
    let (large, small) = if memory > compute {
        (memory, compute)
    } else {
        (compute, memory)
    };
    let joined = if large > 0.0 {
        large * (1.0 + (small / large).powf(q)).powf(1.0 / q)
    } else {
        0.0
    };
    gpu.kernel_seconds + joined
}

/// A matrix product with resident weights `width_in x width_out`; activations in bf16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemm {
    pub(crate) width_in: f64,
    pub(crate) width_out: f64,
    /// Bytes of a weight.
    pub(crate) bytes: f64,
}

impl Gemm {
    pub(crate) fn weight_bytes(self) -> f64 {
        self.bytes * self.width_in * self.width_out
    }

    /// Bytes of activations read and written per token.
    pub(crate) fn activation_bytes(self) -> f64 {
        BYTES * (self.width_in + self.width_out)
    }

    pub(crate) fn flops_per_token(self) -> f64 {
        2.0 * self.width_in * self.width_out
    }

    pub(crate) fn seconds(self, gpu: &GpuSpec, tokens: f64) -> f64 {
        operator_seconds(
            gpu,
            self.weight_bytes() + tokens * self.activation_bytes(),
            tokens * self.flops_per_token(),
        )
    }
}

/// Every count up to here has its own entry.
const DENSE: u32 = 512;
/// Beyond, one entry in so many counts.
const STRIDE: u32 = 64;

/// Seconds against a token count: exact up to 512, then a chord every 64 tokens.
///
/// The curve is convex, so chords lie on or above it and a step never beats its roofline.
#[derive(Clone, Debug)]
pub(crate) struct TimeTable {
    dense: Vec<f64>,
    coarse: Vec<f64>,
}

impl TimeTable {
    /// Tabulates `seconds` up to `largest` tokens.
    pub(crate) fn new(largest: u32, seconds: impl Fn(f64) -> f64) -> Self {
        let dense = (0..=DENSE)
            .map(|tokens| if tokens == 0 { 0.0 } else { seconds(f64::from(tokens)) })
            .collect();
        let knots = 2 + largest.saturating_sub(DENSE).div_ceil(STRIDE);
        let coarse = (0..knots)
            .map(|knot| seconds(f64::from(DENSE) + f64::from(knot) * f64::from(STRIDE)))
            .collect();
        Self { dense, coarse }
    }

    /// Seconds at `tokens`; beyond the table its last chord goes on.
    pub(crate) fn seconds(&self, tokens: u32) -> f64 {
        if let Some(&seconds) = self.dense.get(tokens as usize) {
            return seconds;
        }
        let beyond = tokens - DENSE;
        let knot = ((beyond / STRIDE) as usize).min(self.coarse.len() - 2);
        let along = f64::from(beyond) / f64::from(STRIDE) - knot as f64;
        self.coarse[knot] + along * (self.coarse[knot + 1] - self.coarse[knot])
    }
}
