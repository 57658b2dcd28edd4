//! A truncated singular value decomposition of a sparse matrix by random projection with power iterations (Halko,
//! Martinsson and Tropp 2011, algorithm 4.4): latent semantic analysis when its rows are weighted n-grams.

use equipoise_types::RandomStream;

use crate::numeric::{axpy, dot, eigen_symmetric, orthonormalise};
use crate::text::Ngrams;

/// Columns beyond those asked for, which make the leading ones accurate.
const OVERSAMPLING: usize = 10;
const POWER_ITERATIONS: usize = 2;

/// The leading `rank` right singular vectors of the matrix with the given sparse rows, as a row-major `columns × rank`
/// matrix; directions that the matrix has not are zero.
pub(super) fn right_singular_vectors(
    rows: &[Ngrams],
    columns: usize,
    rank: usize,
    random: &mut RandomStream,
) -> Vec<f32> {
    if rows.iter().all(Vec::is_empty) {
        return vec![0.0; columns * rank];
    }
    let width = rank + OVERSAMPLING;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "random directions need no double precision"
    )]
    let mut right: Vec<f32> = (0..columns * width).map(|_| random.normal() as f32).collect();
    let mut left = times(rows, &right, width);
    for _ in 0..POWER_ITERATIONS {
        orthonormalise(&mut left, width);
        right = transposed_times(rows, &left, columns, width);
        orthonormalise(&mut right, width);
        left = times(rows, &right, width);
    }
    orthonormalise(&mut left, width);
    // B = Qᵀ·A, held transposed: columns × width.
    let small = transposed_times(rows, &left, columns, width);
    let mut gram = vec![0.0_f64; width * width];
    for row in small.chunks_exact(width) {
        for (index, &value) in row.iter().enumerate() {
            if value != 0.0 {
                for (to, &other) in gram[index * width..(index + 1) * width].iter_mut().zip(row) {
                    *to += f64::from(value) * f64::from(other);
                }
            }
        }
    }
    let (values, vectors) = eigen_symmetric(gram, width);
    let cutoff = values[0] * 1e-9;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the projection is kept in single precision"
    )]
    let directions: Vec<Vec<f32>> = (0..rank)
        .map(|k| {
            let scale = if values[k] > cutoff {
                1.0 / values[k].sqrt()
            } else {
                0.0
            };
            vectors[k].iter().map(|value| (value * scale) as f32).collect()
        })
        .collect();
    small
        .chunks_exact(width)
        .flat_map(|row| directions.iter().map(move |direction| dot(row, direction)))
        .collect()
}

/// Sparse rows times a dense row-major `columns × width` matrix.
fn times(rows: &[Ngrams], dense: &[f32], width: usize) -> Vec<f32> {
    let mut product = vec![0.0; rows.len() * width];
    for (row, into) in rows.iter().zip(product.chunks_exact_mut(width)) {
        for &(column, value) in row {
            let column = column as usize;
            axpy(into, value, &dense[column * width..(column + 1) * width]);
        }
    }
    product
}

/// The transpose of sparse rows times a dense matrix with as many rows.
fn transposed_times(rows: &[Ngrams], dense: &[f32], columns: usize, width: usize) -> Vec<f32> {
    let mut product = vec![0.0; columns * width];
    for (row, from) in rows.iter().zip(dense.chunks_exact(width)) {
        for &(column, value) in row {
            let column = column as usize;
            axpy(&mut product[column * width..(column + 1) * width], value, from);
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_low_rank_is_recovered() {
        // Rank 2: rows are combinations of two patterns on four columns.
        let rows: Vec<Ngrams> = (0..20_u8)
            .map(|index| {
                let (a, b) = (f32::from(index) + 1.0, 20.0 - f32::from(index));
                vec![(0, a), (1, 2.0 * a), (2, b), (3, -b)]
            })
            .collect();
        let vectors = right_singular_vectors(&rows, 4, 2, &mut RandomStream::new(1));
        for row in &rows {
            let dense: Vec<f32> = row.iter().map(|&(_, value)| value).collect();
            let code: Vec<f32> = (0..2)
                .map(|k| (0..4).map(|column| dense[column] * vectors[column * 2 + k]).sum())
                .collect();
            for column in 0..4 {
                let back: f32 = (0..2).map(|k| code[k] * vectors[column * 2 + k]).sum();
                assert!((back - dense[column]).abs() < 1e-2, "{back} {}", dense[column]);
            }
        }
    }
}
