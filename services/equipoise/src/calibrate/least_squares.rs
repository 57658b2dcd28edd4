//! A sum of known curves fitted to measurements.

/// Relative errors below this count by their square, beyond it by their size.
const SMALL_ERROR: f64 = 5e-3;
/// Rounds until the weights have settled.
const ROUNDS: usize = 10;

/// The factors of `columns` whose sum comes nearest to `y`, by least squares of the relative error; none is negative.
///
/// With so few columns every choice of those that count is tried, which is the exact answer.
pub(super) fn fit<const N: usize>(columns: [&[f64]; N], y: &[f64]) -> [f64; N] {
    weighted(columns, y, &vec![1.0; y.len()])
}

/// The same with the least sum of relative errors rather than of their squares, by reweighting: one row that is far off does not
/// move the others.
pub(super) fn fit_robust<const N: usize>(columns: [&[f64]; N], y: &[f64]) -> [f64; N] {
    let mut weights = vec![1.0; y.len()];
    for _ in 0..ROUNDS {
        let factors = weighted(columns, y, &weights);
        for (row, weight) in weights.iter_mut().enumerate() {
            *weight = 1.0 / (error(&columns, y, &factors, row).abs() + SMALL_ERROR).sqrt();
        }
    }
    weighted(columns, y, &weights)
}

fn error<const N: usize>(columns: &[&[f64]; N], y: &[f64], factors: &[f64; N], row: usize) -> f64 {
    let parts = columns.iter().zip(factors).map(|(column, factor)| factor * column[row]);
    parts.sum::<f64>() / y[row] - 1.0
}

fn weighted<const N: usize>(columns: [&[f64]; N], y: &[f64], weights: &[f64]) -> [f64; N] {
    let mut best = ([0.0; N], f64::INFINITY);
    for chosen in 1_u32..1 << N {
        let Some(factors) = solve(&columns, y, weights, chosen) else {
            continue;
        };
        if factors.iter().any(|factor| *factor < 0.0) {
            continue;
        }
        let square = |row: usize| (weights[row] * error(&columns, y, &factors, row)).powi(2);
        let errors: f64 = (0..y.len()).map(square).sum();
        if errors < best.1 {
            best = (factors, errors);
        }
    }
    best.0
}

/// The factors of the chosen columns, the others zero; `None` where they cannot be told apart.
fn solve<const N: usize>(columns: &[&[f64]; N], y: &[f64], weights: &[f64], chosen: u32) -> Option<[f64; N]> {
    let there: Vec<usize> = (0..N).filter(|column| chosen >> column & 1 == 1).collect();
    let product =
        |a: &dyn Fn(usize) -> f64, b: &dyn Fn(usize) -> f64| -> f64 { (0..y.len()).map(|row| a(row) * b(row)).sum() };
    let relative = |column: usize| move |row: usize| weights[row] * columns[column][row] / y[row];
    // Normal equations, one row for each chosen column, the right side last.
    let mut rows: Vec<Vec<f64>> = there
        .iter()
        .map(|&a| {
            let left = there.iter().map(|&b| product(&relative(a), &relative(b)));
            left.chain([product(&relative(a), &|row| weights[row])]).collect()
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
        let mut spoiled: Vec<f64> = (0..6).map(|row| 3.0 + 0.5 * batch[row]).collect();
        spoiled[3] *= 1.5;
        let robust = fit_robust([&one, &batch], &spoiled);
        assert!(
            (robust[0] - 3.0).abs() < 0.05 && (robust[1] - 0.5).abs() < 0.02,
            "{robust:?}"
        );
        let falling: Vec<f64> = batch.iter().map(|batch| 10.0 - 0.1 * batch).collect();
        let found = fit([&one, &batch], &falling);
        assert!(found[1] == 0.0 && found[0] > 5.0, "{found:?}");
    }
}
