//! Dense layers over rows of activations.

use crate::safetensors::{Tensors, TensorsError};

/// Outputs that are computed together, and rows: as many sums as fit into the registers of a processor without wide vectors.
const OUTPUTS: usize = 8;
const ROWS: usize = 4;

/// `y = W x + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    inputs: usize,
    outputs: usize,
    /// By groups of outputs, and in a group by input: what is multiplied with one input lies together.
    weights: Vec<[f32; OUTPUTS]>,
    bias: Vec<f32>,
}

impl Linear {
    /// `NAME.weight` (outputs × inputs) and `NAME.bias`.
    pub(crate) fn read(tensors: &Tensors<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self, TensorsError> {
        let rows = tensors.floats(&format!("{name}.weight"), &[outputs, inputs])?;
        let mut weights = vec![[0.0; OUTPUTS]; outputs.div_ceil(OUTPUTS) * inputs];
        for (output, row) in rows.chunks_exact(inputs).enumerate() {
            for (input, weight) in row.iter().enumerate() {
                weights[output / OUTPUTS * inputs + input][output % OUTPUTS] = *weight;
            }
        }
        Ok(Self {
            inputs,
            outputs,
            weights,
            bias: tensors.floats(&format!("{name}.bias"), &[outputs])?,
        })
    }

    /// Of every row.
    pub(crate) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let count = rows.len() / self.inputs;
        let mut result = vec![0.0; count * self.outputs];
        for (group, weights) in self.weights.chunks_exact(self.inputs).enumerate() {
            let first = group * OUTPUTS;
            let width = OUTPUTS.min(self.outputs - first);
            let mut row = 0;
            while row < count {
                // The last rows are computed with others again rather than apart.
                let row_of = |index: usize| {
                    let at = (row + index).min(count - 1) * self.inputs;
                    &rows[at..at + self.inputs]
                };
                let sums = block([row_of(0), row_of(1), row_of(2), row_of(3)], weights);
                for (index, sums) in sums.iter().enumerate().take(count - row) {
                    let to = (row + index) * self.outputs + first;
                    for ((to, sum), bias) in result[to..to + width].iter_mut().zip(sums).zip(&self.bias[first..]) {
                        *to = sum + bias;
                    }
                }
                row += ROWS;
            }
        }
        result
    }
}

fn block(rows: [&[f32]; ROWS], weights: &[[f32; OUTPUTS]]) -> [[f32; OUTPUTS]; ROWS] {
    let mut sums = [[0.0_f32; OUTPUTS]; ROWS];
    let inputs = rows[0].iter().zip(rows[1]).zip(rows[2].iter().zip(rows[3]));
    for (((a, b), (c, d)), weights) in inputs.zip(weights) {
        for (sums, input) in sums.iter_mut().zip([a, b, c, d]) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += input * weight;
            }
        }
    }
    sums
}

/// Normalises every row to mean 0 and variance 1, then scales and shifts it (Ba, Kiros and Hinton 2016).
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    pub(crate) fn read(tensors: &Tensors<'_>, name: &str, size: usize, epsilon: f32) -> Result<Self, TensorsError> {
        Ok(Self {
            weight: tensors.floats(&format!("{name}.weight"), &[size])?,
            bias: tensors.floats(&format!("{name}.bias"), &[size])?,
            epsilon,
        })
    }

    pub(crate) fn apply(&self, rows: &mut [f32]) {
        #[expect(clippy::cast_precision_loss, reason = "a layer's width")]
        let size = self.weight.len() as f32;
        for row in rows.chunks_exact_mut(self.weight.len()) {
            let mean = row.iter().sum::<f32>() / size;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / size;
            let scale = 1.0 / (variance + self.epsilon).sqrt();
            for (value, (weight, bias)) in row.iter_mut().zip(self.weight.iter().zip(&self.bias)) {
                *value = (*value - mean) * scale * weight + bias;
            }
        }
    }
}

/// `x Φ(x)` with the error function by Abramowitz and Stegun, 7.1.26, good to 1.5e-7.
pub(crate) fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let erf = (1.0 - series * (-z * z).exp()).copysign(x);
    0.5 * x * (1.0 + erf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_that_of_the_tables() {
        // x Φ(x), Φ from tables of the normal distribution.
        for (x, expected) in [
            (0.0, 0.0),
            (1.0, 0.841_344_8),
            (-1.0, -0.158_655_25),
            (2.5, 2.484_475_8),
            (-6.0, 0.0),
        ] {
            assert!((gelu(x) - expected).abs() < 1e-6, "{x} {}", gelu(x));
        }
    }

    #[test]
    fn blocks_sum_to_the_plain_product() {
        let (inputs, outputs) = (5, 11);
        let number = |seed: usize| ((seed * 37 % 101) as f32 - 50.0) / 50.0;
        let plain: Vec<f32> = (0..inputs * outputs).map(number).collect();
        let mut weights = vec![[0.0; OUTPUTS]; outputs.div_ceil(OUTPUTS) * inputs];
        for output in 0..outputs {
            for input in 0..inputs {
                weights[output / OUTPUTS * inputs + input][output % OUTPUTS] = plain[output * inputs + input];
            }
        }
        let bias: Vec<f32> = (0..outputs).map(|output| number(output + 7)).collect();
        let layer = Linear {
            inputs,
            outputs,
            weights,
            bias: bias.clone(),
        };
        for count in 1..10 {
            let rows: Vec<f32> = (0..count * inputs).map(|index| number(index + 3)).collect();
            let result = layer.apply(&rows);
            for row in 0..count {
                for output in 0..outputs {
                    let sum: f32 = (0..inputs)
                        .map(|input| rows[row * inputs + input] * plain[output * inputs + input])
                        .sum();
                    assert!((result[row * outputs + output] - sum - bias[output]).abs() < 1e-5);
                }
            }
        }
    }
}
