//! A matrix with a byte per entry: each row is whole steps from -127 to 127, of a size of its own.

use crate::artifact::{ArtifactError, Reader, Writer};

/// Row-major. Exactly what is kept on disk, so that a loaded predictor gives the same bits as the one that was saved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantised {
    columns: usize,
    steps: Vec<f32>,
    codes: Vec<i8>,
}

impl Quantised {
    /// Rounds a row-major matrix with `columns` columns.
    pub(crate) fn of(matrix: &[f32], columns: usize) -> Self {
        let mut quantised = Self {
            columns,
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
        &self.codes[row * self.columns..(row + 1) * self.columns]
    }

    /// `target += factor · row`.
    pub(crate) fn add_row(&self, row: usize, factor: f32, target: &mut [f32]) {
        let factor = factor * self.steps[row];
        for (to, &code) in target.iter_mut().zip(self.codes(row)) {
            *to += factor * f32::from(code);
        }
    }

    /// The inner product of a row with `vector`.
    pub(crate) fn dot_row(&self, row: usize, vector: &[f32]) -> f32 {
        const LANES: usize = 16;
        let mut sums = [0.0_f32; LANES];
        let codes = self.codes(row);
        let (code_chunks, chunks) = (codes.chunks_exact(LANES), vector.chunks_exact(LANES));
        let rest: f32 = code_chunks
            .remainder()
            .iter()
            .zip(chunks.remainder())
            .map(|(&code, value)| f32::from(code) * value)
            .sum();
        for (codes, values) in code_chunks.zip(chunks) {
            for lane in 0..LANES {
                sums[lane] += f32::from(codes[lane]) * values[lane];
            }
        }
        (rest + sums.iter().sum::<f32>()) * self.steps[row]
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.columns);
        writer.size(self.rows());
        writer.f32s(&self.steps);
        writer.i8s(&self.codes);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ArtifactError> {
        let columns = reader.size()?;
        let rows = reader.size()?;
        let Some(entries) = columns.checked_mul(rows).filter(|_| columns > 0) else {
            return Err(reader.invalid("the size of a matrix"));
        };
        Ok(Self {
            columns,
            steps: reader.f32s(rows)?,
            codes: reader.i8s(entries)?,
        })
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
            let mut back = vec![0.0; 20];
            quantised.add_row(row, 1.0, &mut back);
            for (value, original) in back.iter().zip(&matrix[row * 20..]) {
                assert!((value - original).abs() <= 0.5 / 127.0 + 1e-6);
            }
            let dot: f32 = back.iter().map(|value| value * value).sum();
            assert!((quantised.dot_row(row, &back) - dot).abs() < 1e-4);
        }
    }
}
