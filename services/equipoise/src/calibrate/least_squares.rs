//! A sum of known curves fitted to measurements.

/// The factors of `columns` whose sum comes nearest to `y`, by least squares of the relative error; none is negative.
///
/// With so few columns every choice of those that count is tried, which is the exact answer.
pub(super) fn fit<const N: usize>(columns: [&[f64]; N], y: &[f64]) -> [f64; N] {
    let mut best = ([0.0; N], f64::INFINITY);
    for chosen in 1_u32..1 << N {
        let Some(factors) = solve(&columns, y, chosen) else {
            continue;
        };
        if factors.iter().any(|factor| *factor < 0.0) {
            continue;
        }
        let error = |row: usize| {
            let sum: f64 = columns
                .iter()
                .zip(&factors)
                .map(|(column, factor)| factor * column[row])
                .sum();
            (sum / y[row] - 1.0).powi(2)
        };
        let errors: f64 = (0..y.len()).map(error).sum();
        if errors < best.1 {
            best = (factors, errors);
        }
    }
    best.0
}

/// The factors of the chosen columns, the others zero; `None` where they cannot be told apart.
fn solve<const N: usize>(columns: &[&[f64]; N], y: &[f64], chosen: u32) -> Option<[f64; N]> {
    let there: Vec<usize> = (0..N).filter(|column| chosen >> column & 1 == 1).collect();
    let product =
        |a: &dyn Fn(usize) -> f64, b: &dyn Fn(usize) -> f64| -> f64 { (0..y.len()).map(|row| a(row) * b(row)).sum() };
    let relative = |column: usize| move |row: usize| columns[column][row] / y[row];
    // Normal equations, one row for each chosen column, the right side last.
    let mut rows: Vec<Vec<f64>> = there
        .iter()
        .map(|&a| {
            let left = there.iter().map(|&b| product(&relative(a), &relative(b)));
            left.chain([product(&relative(a), &|_| 1.0)]).collect()
        })
        .collect();
    let size = rows.len();
    for pivot in 0..size {
        let largest = (pivot..size).max_by(|&a, &b| rows[a][pivot].abs().total_cmp(&rows[b][pivot].abs()))?;
        rows.swap(pivot, largest);
        let scale = rows[pivot][pivot];
        if scale.abs() < 1e-12 {
            return None;
        }
        for other in 0..size {
            if other == pivot {
                continue;
            }
            let factor = rows[other][pivot] / scale;
            let from = rows[pivot].clone();
            for (value, from) in rows[other].iter_mut().zip(from) {
                *value -= factor * from;
            }
        }
    }
    let mut factors = [0.0; N];
    for (row, &column) in there.iter().enumerate() {
        factors[column] = rows[row][size] / rows[row][row];
    }
    Some(factors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_in_comes_out_and_nothing_is_negative() {
        let one = [1.0; 6];
        let batch = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        let share: Vec<f64> = batch.iter().map(|batch: &f64| 1.0 - 0.9_f64.powf(*batch)).collect();
        let y: Vec<f64> = (0..6).map(|row| 3.0 + 0.5 * batch[row] + 7.0 * share[row]).collect();
        let found = fit([&one, &batch, &share], &y);
        for (found, truth) in found.iter().zip([3.0, 0.5, 7.0]) {
            assert!((found - truth).abs() < 1e-6, "{found} {truth}");
        }
        let falling: Vec<f64> = batch.iter().map(|batch| 10.0 - 0.1 * batch).collect();
        let found = fit([&one, &batch], &falling);
        assert!(found[1] == 0.0 && found[0] > 5.0, "{found:?}");
    }
}
