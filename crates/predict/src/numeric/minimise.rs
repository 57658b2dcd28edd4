//! L-BFGS (Liu and Nocedal 1989) with a backtracking line search, for smooth functions of up to some ten thousand
//! parameters.

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 10;
/// Sufficient decrease asked of a step (Armijo).
const DECREASE: f64 = 1e-4;

/// Walks from `start` to a minimum of `function`, which returns its value and writes its gradient. Stops after
/// `iterations` steps, or when a step gains less than a millionth part.
pub(crate) fn minimise(
    start: Vec<f64>,
    iterations: usize,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let mut point = start;
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(&point, &mut gradient);
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::with_capacity(MEMORY);
    let mut candidate = point.clone();
    let mut candidate_gradient = gradient.clone();
    for iteration in 0..iterations {
        let direction = descent(&gradient, &memory);
        let slope = inner(&direction, &gradient);
        if slope > -1e-12 {
            break;
        }
        // The first step has no curvature to go by: start with length one at most.
        let mut step = if iteration == 0 {
            (1.0 / inner(&gradient, &gradient).sqrt()).min(1.0)
        } else {
            1.0
        };
        let mut reached = f64::INFINITY;
        for _ in 0..30 {
            for ((to, from), along) in candidate.iter_mut().zip(&point).zip(&direction) {
                *to = from + step * along;
            }
            reached = function(&candidate, &mut candidate_gradient);
            if reached <= value + DECREASE * step * slope {
                break;
            }
            step *= 0.5;
        }
        if reached.is_nan() || reached >= value {
            break;
        }
        let moved: Vec<f64> = candidate.iter().zip(&point).map(|(new, old)| new - old).collect();
        let turned: Vec<f64> = candidate_gradient
            .iter()
            .zip(&gradient)
            .map(|(new, old)| new - old)
            .collect();
        let curvature = inner(&moved, &turned);
        if curvature > 1e-12 {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back((moved, turned, curvature));
        }
        let gain = value - reached;
        value = reached;
        std::mem::swap(&mut point, &mut candidate);
        std::mem::swap(&mut gradient, &mut candidate_gradient);
        if gain < 1e-6 * (value.abs() + 1e-3) {
            break;
        }
    }
    point
}

/// The two-loop recursion: minus the approximate inverse Hessian times the gradient.
fn descent(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|value| -value).collect();
    let mut factors = Vec::with_capacity(memory.len());
    for (moved, turned, curvature) in memory.iter().rev() {
        let factor = inner(moved, &direction) / curvature;
        add(&mut direction, -factor, turned);
        factors.push(factor);
    }
    if let Some((_, turned, curvature)) = memory.back() {
        let scale = curvature / inner(turned, turned);
        for value in &mut direction {
            *value *= scale;
        }
    }
    for ((moved, turned, curvature), factor) in memory.iter().zip(factors.into_iter().rev()) {
        let back = inner(turned, &direction) / curvature;
        add(&mut direction, factor - back, moved);
    }
    direction
}

fn inner(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

fn add(target: &mut [f64], factor: f64, source: &[f64]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to += factor * from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosenbrocks_valley_is_walked_to_its_end() {
        let found = minimise(vec![-1.2, 1.0], 500, |x, gradient| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient[0] = -2.0 * a - 400.0 * x[0] * b;
            gradient[1] = 200.0 * b;
            a * a + 100.0 * b * b
        });
        assert!(
            (found[0] - 1.0).abs() < 0.02 && (found[1] - 1.0).abs() < 0.04,
            "{found:?}"
        );
    }
}
