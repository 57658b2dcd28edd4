//! Who is ahead of whom on three axes: quality, 95th percentile of the end-to-end time, joules per request.

use crate::outcome::Outcome;
use equipoise_types::Mean;

/// How one arm stands against another, over the same seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// On every axis its mean is at least as good, on one of them its advantage is beyond chance (paired 95 % interval).
    Dominates,
    /// On no axis is it worse beyond chance.
    Equals,
    /// The other is better on some axis.
    Behind,
}

/// Runs of one arm in one scenario, one a seed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Cell {
    /// Index of the arm.
    pub arm: usize,
    /// By seed.
    pub runs: Vec<Outcome>,
}

impl Cell {
    /// A figure of every run.
    #[must_use]
    pub fn values(&self, figure: impl Fn(&Outcome) -> f64) -> Vec<f64> {
        self.runs.iter().map(figure).collect()
    }

    /// Its mean over the seeds.
    #[must_use]
    pub fn mean(&self, figure: impl Fn(&Outcome) -> f64) -> Mean {
        Mean::of(&self.values(figure))
    }

    /// Advantages over another on quality, time and energy: positive is better.
    fn advantages(&self, other: &Self) -> [Mean; 3] {
        let of = |figure: fn(&Outcome) -> f64| Mean::of_differences(&self.values(figure), &other.values(figure));
        [of(|run| run.quality), of(|run| -run.e2e_p95_s), of(|run| -run.joules)]
    }

    /// How it stands against another.
    #[must_use]
    pub fn against(&self, other: &Self) -> Standing {
        let advantages = self.advantages(other);
        // A single seed has no interval: then the means decide.
        let certain = |advantage: &Mean| advantage.is_positive() || (self.runs.len() < 2 && advantage.mean > 0.0);
        let worse = |advantage: &Mean| {
            certain(&Mean {
                mean: -advantage.mean,
                half: advantage.half,
            })
        };
        if advantages.iter().all(|advantage| advantage.mean >= 0.0) && advantages.iter().any(certain) {
            Standing::Dominates
        } else if !advantages.iter().any(worse) {
            Standing::Equals
        } else {
            Standing::Behind
        }
    }

    /// True where its quality is at least, its time and energy are at most the other's, by their means.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let [quality, time, _] = self.advantages(other);
        quality.mean >= 0.0 && time.mean >= 0.0
    }
}

/// The best of `ours` against `other`: the best standing, and among equals the least energy.
#[must_use]
pub fn best<'a>(ours: impl Iterator<Item = &'a Cell>, other: &Cell) -> Option<(&'a Cell, Standing)> {
    let key = |cell: &Cell| (cell.against(other), cell.mean(|run| run.joules).mean);
    ours.map(|cell| (cell, key(cell)))
        .min_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map(|(cell, (standing, _))| (cell, standing))
}

/// The arm of least energy whose quality is at least and whose time at most the other's.
#[must_use]
pub fn thriftiest<'a>(ours: impl Iterator<Item = &'a Cell>, other: &Cell) -> Option<&'a Cell> {
    let joules = |cell: &Cell| cell.mean(|run| run.joules).mean;
    ours.filter(|cell| cell.meets(other))
        .min_by(|a, b| joules(a).total_cmp(&joules(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(quality: f64, e2e_p95_s: f64, joules: f64) -> Cell {
        let run = |noise: f64| Outcome {
            quality: quality + noise,
            e2e_p95_s: e2e_p95_s + noise,
            joules: joules + noise,
            ..Outcome::default()
        };
        Cell {
            arm: 0,
            runs: [0.0, 0.01, -0.01].map(run).to_vec(),
        }
    }

    #[test]
    fn better_everywhere_equal_or_behind() {
        let base = cell(0.5, 10.0, 100.0);
        assert_eq!(cell(0.5, 9.0, 100.0).against(&base), Standing::Dominates);
        assert_eq!(base.against(&base), Standing::Equals);
        assert_eq!(cell(0.6, 9.0, 101.0).against(&base), Standing::Behind);
        let cells = [cell(0.6, 9.0, 101.0), cell(0.5, 10.0, 90.0), cell(0.5, 10.0, 95.0)];
        let (best, standing) = best(cells.iter(), &base).expect("three");
        assert_eq!((best.runs[0].joules, standing), (90.0, Standing::Dominates));
        let thrifty = thriftiest(cells.iter(), &base).expect("two meet it");
        assert_eq!(thrifty.runs[0].joules, 90.0);
        assert!(thriftiest(cells[..1].iter(), &cell(0.7, 10.0, 1.0)).is_none());
    }
}
