//! Operations on slices.

use super::widened;

/// Lanes that are summed apart, so that the compiler can use vector instructions; fixed, so that results do not depend
/// on the machine.
const LANES: usize = 8;

/// The inner product of two vectors of the same length.
#[inline(always)]
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f32 {
    debug_assert_eq!(left.len(), right.len());
    let mut sums = [0.0_f32; LANES];
    let (left_chunks, right_chunks) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest: f32 = left_chunks
        .remainder()
        .iter()
        .zip(right_chunks.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in left_chunks.zip(right_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    rest + sums.iter().sum::<f32>()
}

widened! {
    /// The inner products of a row-major matrix's rows with a vector.
    pub(crate) fn dots(matrix: &[f32], vector: &[f32], products: &mut [f32]) {
        for (row, product) in matrix.chunks_exact(vector.len()).zip(products) {
            *product = dot(row, vector);
        }
    }
}

/// `target += factor · source`.
pub(crate) fn axpy(target: &mut [f32], factor: f32, source: &[f32]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to += factor * from;
    }
}

/// Scales a vector to length 1; leaves zero alone.
pub(crate) fn normalise(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt();
    if length > 1e-12 {
        for value in vector {
            *value /= length;
        }
    }
}

/// The logistic function.
pub(crate) fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit.clamp(-40.0, 40.0)).exp())
}

/// Its inverse, of a probability that is first kept away from 0 and 1 by `margin`.
pub(crate) fn logit(probability: f64, margin: f64) -> f64 {
    let p = probability.clamp(margin, 1.0 - margin);
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_the_same_bits_however_wide_vectors_are() {
        let matrix: Vec<f32> = (0..3 * 98_u16).map(|index| (f32::from(index) * 0.37).sin()).collect();
        let vector: Vec<f32> = (0..98_u16).map(|index| (f32::from(index) * 0.91).cos()).collect();
        let mut products = [0.0; 3];
        dots(&matrix, &vector, &mut products);
        for (row, product) in matrix.chunks_exact(98).zip(products) {
            assert_eq!(product.to_bits(), dot(row, &vector).to_bits());
        }
    }
}
