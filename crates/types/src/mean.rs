//! A mean over a few seeds, and how far it may be off.

use serde::Serialize;

/// A mean with half the width of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half the width; infinite for fewer than two values.
    pub half: f64,
}

/// Student's t for a two-sided 95 % interval, by degrees of freedom from 1; 1.96 beyond.
const T_95: [f64; 12] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
];

impl Mean {
    /// Of independent values.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        if values.len() < 2 {
            let half = f64::INFINITY;
            return Self { mean, half };
        }
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let t = T_95.get(values.len() - 2).copied().unwrap_or(1.96);
        Self {
            mean,
            half: t * (variance / n).sqrt(),
        }
    }

    /// Of the differences `a - b`, seed by seed.
    #[must_use]
    pub fn of_differences(a: &[f64], b: &[f64]) -> Self {
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        Self::of(&differences)
    }

    /// True where the interval lies above zero.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.mean > self.half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_student_s() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        // sd = 1.5811, t(4) = 2.776, n = 5.
        assert!(
            (mean.mean - 3.0).abs() < 1e-12 && (mean.half - 1.963).abs() < 1e-3,
            "{mean:?}"
        );
        assert!(mean.is_positive() && !Mean::of(&[1.0, -1.0]).is_positive());
        assert_eq!(Mean::of(&[1.0]).half, f64::INFINITY);
        let pairs = Mean::of_differences(&[2.0, 3.0], &[1.0, 2.0]);
        assert_eq!((pairs.mean, pairs.half), (1.0, 0.0));
    }
}
