//! Orthonormal bases, eigenvectors, linear systems; small and dense.

/// Makes the columns of a row-major `rows × columns` matrix orthonormal (modified Gram-Schmidt, twice for accuracy). A
/// column that depends on those before it becomes zero.
pub(crate) fn orthonormalise(matrix: &mut [f32], columns: usize) {
    let rows = matrix.len() / columns;
    // Column by column in memory, so that inner products run over neighbours.
    let mut transposed = vec![0.0_f32; matrix.len()];
    for row in 0..rows {
        for column in 0..columns {
            transposed[column * rows + row] = matrix[row * columns + column];
        }
    }
    for column in 0..columns {
        let (before, from_here) = transposed.split_at_mut(column * rows);
        let this = &mut from_here[..rows];
        for _ in 0..2 {
            for other in before.chunks_exact(rows) {
                let along = super::dot(this, other);
                super::axpy(this, -along, other);
            }
        }
        if super::dot(this, this) < 1e-20 {
            this.fill(0.0);
        } else {
            super::normalise(this);
        }
    }
    for row in 0..rows {
        for column in 0..columns {
            matrix[row * columns + column] = transposed[column * rows + row];
        }
    }
}

/// Eigenvalues, largest first, and eigenvectors (`vectors[k]` belongs to `values[k]`) of a symmetric matrix, by Jacobi's
/// cyclic rotations.
pub(crate) fn eigen_symmetric(mut matrix: Vec<f64>, size: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut basis = vec![0.0; size * size];
    for index in 0..size {
        basis[index * size + index] = 1.0;
    }
    for _ in 0..30 {
        let mut off = 0.0;
        for row in 0..size {
            for column in row + 1..size {
                off += matrix[row * size + column].powi(2);
            }
        }
        let on: f64 = (0..size).map(|index| matrix[index * size + index].powi(2)).sum();
        if off <= 1e-24 * on {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut matrix, &mut basis, size, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[b * size + b].total_cmp(&matrix[a * size + a]));
    let values = order.iter().map(|&index| matrix[index * size + index]).collect();
    let vectors = order
        .iter()
        .map(|&index| basis[index * size..(index + 1) * size].to_vec())
        .collect();
    (values, vectors)
}

/// Zeroes entry (p, q). Rows of `basis` are the eigenvectors so far.
fn rotate(matrix: &mut [f64], basis: &mut [f64], size: usize, p: usize, q: usize) {
    let entry = matrix[p * size + q];
    if entry.abs() < 1e-300 {
        return;
    }
    let theta = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * entry);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let tangent = if theta == 0.0 { 1.0 } else { tangent };
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for k in 0..size {
        let (a, b) = (matrix[k * size + p], matrix[k * size + q]);
        matrix[k * size + p] = cosine * a - sine * b;
        matrix[k * size + q] = sine * a + cosine * b;
    }
    for k in 0..size {
        let (a, b) = (matrix[p * size + k], matrix[q * size + k]);
        matrix[p * size + k] = cosine * a - sine * b;
        matrix[q * size + k] = sine * a + cosine * b;
        let (a, b) = (basis[p * size + k], basis[q * size + k]);
        basis[p * size + k] = cosine * a - sine * b;
        basis[q * size + k] = sine * a + cosine * b;
    }
}

/// Solves `matrix · x = right` for a symmetric positive definite matrix (Cholesky); `None` if it is not one.
pub(crate) fn solve_positive(matrix: &[f64], right: &[f64]) -> Option<Vec<f64>> {
    let size = right.len();
    let mut lower = matrix.to_vec();
    for row in 0..size {
        for column in 0..=row {
            let known: f64 = (0..column)
                .map(|k| lower[row * size + k] * lower[column * size + k])
                .sum();
            let rest = lower[row * size + column] - known;
            if row == column {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                lower[row * size + row] = rest.sqrt();
            } else {
                lower[row * size + column] = rest / lower[column * size + column];
            }
        }
    }
    let mut x = right.to_vec();
    for row in 0..size {
        let known: f64 = (0..row).map(|k| lower[row * size + k] * x[k]).sum();
        x[row] = (x[row] - known) / lower[row * size + row];
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|k| lower[k * size + row] * x[k]).sum();
        x[row] = (x[row] - known) / lower[row * size + row];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATRIX: [f64; 9] = [4.0, 1.0, 0.5, 1.0, 3.0, 0.25, 0.5, 0.25, 2.0];

    #[test]
    fn eigenvectors_are_stretched_by_their_values() {
        let (values, vectors) = eigen_symmetric(MATRIX.to_vec(), 3);
        assert!(values[0] >= values[1] && values[1] >= values[2]);
        for (value, vector) in values.iter().zip(&vectors) {
            for row in 0..3 {
                let product: f64 = (0..3).map(|column| MATRIX[row * 3 + column] * vector[column]).sum();
                assert!((product - value * vector[row]).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_system_is_solved_and_a_singular_one_refused() {
        let x = solve_positive(&MATRIX, &[1.0, 2.0, 3.0]).expect("positive definite");
        for row in 0..3 {
            let product: f64 = (0..3).map(|column| MATRIX[row * 3 + column] * x[column]).sum();
            assert!((product - [1.0, 2.0, 3.0][row]).abs() < 1e-9);
        }
        assert!(solve_positive(&[1.0, 1.0, 1.0, 1.0], &[1.0, 1.0]).is_none());
    }

    #[test]
    fn columns_become_orthonormal() {
        let mut matrix = vec![1.0, 2.0, 1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 1.0];
        orthonormalise(&mut matrix, 3);
        for a in 0..3 {
            for b in 0..3 {
                let product: f32 = (0..4).map(|row| matrix[row * 3 + a] * matrix[row * 3 + b]).sum();
                assert!((product - f32::from(u8::from(a == b))).abs() < 1e-5);
            }
        }
    }
}
