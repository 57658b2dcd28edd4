//! A matrix with a byte per entry: each row is whole steps from -127 to 127, of a size of its own.

use super::widened;
use crate::artifact::{ArtifactError, Reader, Writer};

/// Numbers of a row that are multiplied at once, and a small step for what is left of it: of the ways that were timed
/// without wide vectors the quickest, twice as quick as a plain sum.
const WIDE: usize = 32;
const NARROW: usize = 8;
/// Steps of the largest weight of a sum.
const WEIGHT_STEPS: f32 = 63.0;

/// Row-major, each row filled up with zeros. What is kept on disk is the same without them, so that a loaded predictor gives
/// the same bits as the one that was saved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantised {
    columns: usize,
    /// Codes of a row, those that fill it up included: a multiple of [`NARROW`].
    stride: usize,
    steps: Vec<f32>,
    codes: Vec<i8>,
}

impl Quantised {
    /// Rounds a row-major matrix with `columns` columns.
    pub(crate) fn of(matrix: &[f32], columns: usize) -> Self {
        let mut quantised = Self {
            columns,
            stride: columns.next_multiple_of(NARROW),
            steps: Vec::with_capacity(matrix.len() / columns),
            codes: Vec::with_capacity(matrix.len()),
        };
        for row in matrix.chunks_exact(columns) {
            let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let step = largest / 127.0;
            quantised.steps.push(step);
            let scale = if step > 0.0 { 1.0 / step } else { 0.0 };
            #[expect(
                clippy::cast_possible_truncation,
                reason = "at most 127 in size by the choice of step"
            )]
            quantised
                .codes
                .extend(row.iter().map(|value| (value * scale).round() as i8));
            quantised.codes.resize(quantised.steps.len() * quantised.stride, 0);
        }
        quantised
    }

    pub(crate) fn rows(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    fn codes(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..row * self.stride + self.columns]
    }

    /// The weighted sum of some rows. Weights are rounded to 63 steps of the largest (times its row's step), so that four
    /// products fit in 16 bits: several times faster than floating point on processors without wide vectors.
    pub(crate) fn weighted_sum(&self, weights: &[(u32, f32)]) -> Vec<f32> {
        let mut scaled: Vec<f32> = Vec::with_capacity(weights.len());
        scaled.extend(weights.iter().map(|&(row, weight)| weight * self.steps[row as usize]));
        let largest = scaled.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let mut sums = vec![0_i32; self.columns];
        if largest > 0.0 {
            let mut whole = vec![0_i16; weights.len()];
            round_all(&scaled, WEIGHT_STEPS / largest, &mut whole);
            let mut rows: Vec<(u32, i16)> = Vec::with_capacity(weights.len() + 3);
            let some = weights.iter().zip(&whole).filter(|(_, whole)| **whole != 0);
            rows.extend(some.map(|(&(row, _), &whole)| (row, whole)));
            // Filled up with rows that do not count.
            rows.resize(rows.len().next_multiple_of(4), (0, 0));
            add_rows(&self.codes, self.stride, &rows, &mut sums);
        }
        #[expect(clippy::cast_precision_loss, reason = "sums of a few thousand small products")]
        sums.into_iter()
            .map(|sum| sum as f32 * (largest / WEIGHT_STEPS))
            .collect()
    }

    /// A row as numbers.
    pub(crate) fn row(&self, row: usize) -> Vec<f32> {
        let step = self.steps[row];
        self.codes(row).iter().map(|&code| f32::from(code) * step).collect()
    }

    /// The inner products of some rows with a vector, one for each place in `products`.
    pub(crate) fn dot_rows(&self, first: usize, vector: &Rounded, products: &mut [f32]) {
        let last = first + products.len();
        let codes = &self.codes[first * self.stride..last * self.stride];
        multiply_rows(codes, &self.steps[first..last], vector, products);
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.columns);
        writer.size(self.rows());
        writer.f32s(&self.steps);
        let codes: Vec<i8> = (0..self.rows())
            .flat_map(|row| self.codes(row).iter().copied())
            .collect();
        writer.i8s(&codes);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        let columns = reader.size()?;
        let rows = reader.size()?;
        let Some(entries) = columns.checked_mul(rows).filter(|_| columns > 0) else {
            return Err(reader.invalid("the size of a matrix"));
        };
        let steps = reader.f32s(rows)?;
        let packed = reader.i8s(entries)?;
        let stride = columns.next_multiple_of(NARROW);
        let mut codes = Vec::with_capacity(rows * stride);
        for row in packed.chunks_exact(columns) {
            codes.extend_from_slice(row);
            codes.resize(codes.len() + stride - columns, 0);
        }
        Ok(Self {
            columns,
            stride,
            steps,
            codes,
        })
    }
}

/// A vector in whole steps from -2047 to 2047, for inner products in integers: no sum of fewer than 8,000 products with
/// bytes overflows.
#[derive(Debug)]
pub(crate) struct Rounded {
    step: f32,
    codes: Vec<i16>,
}

impl Rounded {
    pub(crate) fn of(vector: &[f32]) -> Self {
        let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let step = largest / 2047.0;
        let scale = if step > 0.0 { 1.0 / step } else { 0.0 };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 2047 in size by the choice of step"
        )]
        let mut codes: Vec<i16> = vector.iter().map(|value| (value * scale).round() as i16).collect();
        codes.resize(vector.len().next_multiple_of(NARROW), 0);
        Self { step, codes }
    }
}

/// Over chunks of whole vectors, each summed by itself: neighbouring pairs are multiplied and added in one instruction.
#[inline(always)]
fn sum_of_products<const N: usize>(codes: &[[i8; N]], values: &[[i16; N]]) -> i32 {
    let mut total = 0;
    for (codes, values) in codes.iter().zip(values) {
        let mut sum = 0;
        for lane in 0..N {
            sum += i32::from(codes[lane]) * i32::from(values[lane]);
        }
        total += sum;
    }
    total
}

widened! {
    /// The inner product of each row with a vector.
    fn multiply_rows(codes: &[i8], steps: &[f32], vector: &Rounded, products: &mut [f32]) {
        let (wide_vector, rest_vector) = vector.codes.as_chunks::<WIDE>();
        let rows = codes.chunks_exact(vector.codes.len());
        for ((row, step), product) in rows.zip(steps).zip(products) {
            let (wide, rest) = row.as_chunks::<WIDE>();
            // Integers may be added in any order: the result is that of one plain sum.
            let sum = sum_of_products(wide, wide_vector)
                + sum_of_products(rest.as_chunks::<NARROW>().0, rest_vector.as_chunks::<NARROW>().0);
            #[expect(clippy::cast_precision_loss, reason = "a sum of a few hundred products of 19 bits")]
            let sum = sum as f32;
            *product = sum * *step * vector.step;
        }
    }
}

widened! {
    /// `whole = round(values · scale)`, at most [`WEIGHT_STEPS`] in size by the choice of scale.
    fn round_all(values: &[f32], scale: f32, whole: &mut [i16]) {
        for (value, whole) in values.iter().zip(whole) {
            #[expect(clippy::cast_possible_truncation, reason = "at most 63 in size")]
            {
                *whole = (value * scale).round() as i16;
            }
        }
    }
}

widened! {
    /// `sums += Σ weight · codes`, four rows at a time; codes are bytes and weights at most 63, so no sum of four overflows.
    fn add_rows(codes: &[i8], stride: usize, rows: &[(u32, i16)], sums: &mut [i32]) {
        for &[a, b, c, d] in rows.as_chunks::<4>().0 {
            let codes_of = |row: (u32, i16)| &codes[row.0 as usize * stride..][..sums.len()];
            let left = codes_of(a).iter().zip(codes_of(b));
            let right = codes_of(c).iter().zip(codes_of(d));
            for (sum, ((&of_a, &of_b), (&of_c, &of_d))) in sums.iter_mut().zip(left.zip(right)) {
                let left = i16::from(of_a).wrapping_mul(a.1).wrapping_add(i16::from(of_b).wrapping_mul(b.1));
                let right = i16::from(of_c).wrapping_mul(c.1).wrapping_add(i16::from(of_d).wrapping_mul(d.1));
                *sum += i32::from(left.wrapping_add(right));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_within_half_a_step() {
        let matrix: Vec<f32> = (0..40_u8).map(|index| (f32::from(index) * 0.37).sin()).collect();
        let quantised = Quantised::of(&matrix, 20);
        for row in 0..2 {
            let back = quantised.weighted_sum(&[(row, 1.0)]);
            let original = &matrix[row as usize * 20..];
            for (value, original) in back.iter().zip(original) {
                assert!((value - original).abs() <= 0.5 / 127.0 + 1e-6);
            }
            let dot: f32 = back.iter().map(|value| value * value).sum();
            let mut product = [0.0];
            quantised.dot_rows(row as usize, &Rounded::of(&back), &mut product);
            assert!((product[0] - dot).abs() < 1e-2);
        }
    }

    #[test]
    fn rows_of_any_length_are_multiplied_whole() {
        for columns in [1, 7, 8, 9, 31, 40, 98, 256] {
            let matrix: Vec<f32> = (0..2 * columns).map(|index| (index as f32 * 0.7).cos()).collect();
            let quantised = Quantised::of(&matrix, columns);
            let vector = Rounded::of(&matrix[..columns]);
            let mut products = [0.0; 2];
            quantised.dot_rows(0, &vector, &mut products);
            for (row, product) in products.into_iter().enumerate() {
                let plain: i32 = quantised
                    .codes(row)
                    .iter()
                    .zip(&vector.codes)
                    .map(|(&code, &value)| i32::from(code) * i32::from(value))
                    .sum();
                let exact = plain as f32 * quantised.steps[row] * vector.step;
                assert_eq!(product, exact, "{columns} columns");
            }
            let mut writer = Writer::default();
            quantised.write(&mut writer);
            let body = writer.into_body();
            let mut reader = Reader::new(&body);
            assert_eq!(Quantised::read(&mut reader).expect("is well"), quantised);
        }
    }

    #[test]
    fn extreme_codes_and_weights_do_not_overflow() {
        let quantised = Quantised::of(&[-1.0; 5 * 8], 8);
        let sum = quantised.weighted_sum(&[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 0.5)]);
        assert!(sum.iter().all(|value| (value + 4.5).abs() < 0.02), "{sum:?}");
        assert!(quantised.weighted_sum(&[]).iter().all(|value| *value == 0.0));
    }
}
