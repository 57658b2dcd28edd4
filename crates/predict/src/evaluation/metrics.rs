//! Discrimination and calibration of probabilities.

/// Area under the ROC curve: the probability that a good answer was given a higher probability than a bad one, ties
/// counting half. A score from 0.5 is good. `None` if all are alike.
#[must_use]
pub fn auc(samples: &[(f64, f64)]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut bad_before, mut good, mut won) = (0.0, 0.0, 0.0);
    let mut start = 0;
    while start < sorted.len() {
        let value = sorted[start].0;
        let tied = sorted[start..]
            .iter()
            .take_while(|sample| sample.0.total_cmp(&value).is_eq());
        let (mut good_here, mut bad_here) = (0.0, 0.0);
        for (_, score) in tied {
            if *score >= 0.5 {
                good_here += 1.0;
            } else {
                bad_here += 1.0;
            }
            start += 1;
        }
        won += good_here * (bad_before + 0.5 * bad_here);
        good += good_here;
        bad_before += bad_here;
    }
    (good > 0.0 && bad_before > 0.0).then(|| won / (good * bad_before))
}

/// Mean squared distance of probability and score.
#[must_use]
pub fn brier(samples: &[(f64, f64)]) -> f64 {
    let sum: f64 = samples
        .iter()
        .map(|(probability, score)| (probability - score).powi(2))
        .sum();
    sum / count(samples.len())
}

/// Predictions of about the same probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Mean predicted probability.
    pub predicted: f64,
    /// Mean score.
    pub observed: f64,
    /// How many.
    pub count: usize,
}

/// Ten bins of equal width over [0, 1]; empty ones are left out.
#[must_use]
pub fn reliability(samples: &[(f64, f64)]) -> Vec<Bin> {
    const BINS: usize = 10;
    let mut bins = [Bin::default(); BINS];
    for (probability, score) in samples {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a probability times ten"
        )]
        let index = ((probability * 10.0) as usize).min(BINS - 1);
        let bin = &mut bins[index];
        bin.predicted += probability;
        bin.observed += score;
        bin.count += 1;
    }
    bins.into_iter()
        .filter(|bin| bin.count > 0)
        .map(|bin| Bin {
            predicted: bin.predicted / count(bin.count),
            observed: bin.observed / count(bin.count),
            count: bin.count,
        })
        .collect()
}

/// Expected calibration error (Guo et al. 2017): mean distance of predicted and observed over the bins of
/// [`reliability`], weighted by their counts.
#[must_use]
pub fn expected_calibration_error(samples: &[(f64, f64)]) -> f64 {
    let bins = reliability(samples);
    bins.iter()
        .map(|bin| (bin.predicted - bin.observed).abs() * count(bin.count))
        .sum::<f64>()
        / count(samples.len())
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn count(number: usize) -> f64 {
    number.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let samples = [(0.1, 0.0), (0.4, 0.0), (0.35, 1.0), (0.8, 1.0)];
        assert_eq!(auc(&samples), Some(0.75));
        assert_eq!(auc(&[(0.5, 1.0), (0.5, 0.0)]), Some(0.5));
        assert_eq!(auc(&[(0.5, 1.0)]), None);
        assert!((brier(&samples) - (0.01 + 0.16 + 0.4225 + 0.04) / 4.0).abs() < 1e-12);
        assert!((expected_calibration_error(&[(0.75, 1.0), (0.75, 0.0)]) - 0.25).abs() < 1e-12);
        assert_eq!(reliability(&samples).len(), 4);
    }
}
