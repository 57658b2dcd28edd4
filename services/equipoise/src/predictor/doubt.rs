//! How far results are luck, and whether `quality_sd` says how far a probability may be off.

use equipoise_predict::{Estimate, Kind, Predictor};
use equipoise_trace::GradedPrompt;
use equipoise_types::RandomStream;

use super::costs::Costs;
use super::evaluate::{Predictions, mean, routed, trainer};
use super::graded::Graded;

/// Resamples of the held-out prompts.
const RESAMPLES: usize = 200;
/// Estimates are sorted by their sd into so many groups of the same size.
const GROUPS: usize = 4;

/// What our area has over another's on the same prompts.
pub(super) struct Lead {
    pub(super) over: String,
    /// On the held-out prompts as they are.
    pub(super) difference: f64,
    /// 5th and 95th percentile over resamples of them with replacement, the same for both (paired bootstrap, Efron 1979).
    pub(super) interval: (f64, f64),
    /// In what share of the resamples ours is not below.
    pub(super) at_or_above: f64,
}

/// Ours against each of `others`.
pub(super) fn leads(
    ours: &Predictions,
    others: &[(String, Predictions)],
    prompts: &[&GradedPrompt],
    graded: &Graded,
    costs: &Costs,
    seed: u64,
) -> anyhow::Result<Vec<Lead>> {
    let mut random = RandomStream::new(seed).derive("bootstrap");
    let whole: Vec<usize> = (0..prompts.len()).collect();
    let draws: Vec<Vec<usize>> = (0..RESAMPLES)
        .map(|_| whole.iter().map(|_| random.below(prompts.len())).collect())
        .collect();
    let area = |predictions: &Predictions, of: &[usize]| -> anyhow::Result<f64> {
        let prompts: Vec<&GradedPrompt> = of.iter().map(|&index| prompts[index]).collect();
        Ok(routed(&predictions.some(of), &prompts, graded, costs)?.0.area)
    };
    let areas = |predictions: &Predictions| -> anyhow::Result<Vec<f64>> {
        let all = std::iter::once(&whole).chain(&draws);
        all.map(|draw| area(predictions, draw)).collect()
    };
    let ours = areas(ours)?;
    let mut leads = Vec::new();
    for (name, predictions) in others {
        let other = areas(predictions)?;
        let mut differences: Vec<f64> = ours.iter().zip(&other).map(|(ours, other)| ours - other).collect();
        let difference = differences.remove(0);
        differences.sort_by(f64::total_cmp);
        let tail = RESAMPLES / 20;
        leads.push(Lead {
            over: name.clone(),
            difference,
            interval: (differences[tail], differences[RESAMPLES - 1 - tail]),
            at_or_above: mean(differences.iter().map(|gap| f64::from(u8::from(*gap >= 0.0)))),
        });
    }
    Ok(leads)
}

/// Estimates of about the same sd.
#[derive(Clone, Copy, Default)]
pub(super) struct Spread {
    /// Mean of `quality_sd`.
    pub(super) stated: f64,
    /// Root mean square of the difference over √2 between two predictors, of which neither saw a prompt of the other: the
    /// deviation of one of them that is due to which prompts were seen. Two errors that are independent and of variance σ²
    /// differ by 2σ².
    pub(super) found: f64,
    /// How much smaller the Brier score is than that of the models' means on these answers, as a share.
    pub(super) skill: f64,
}

/// Trains our predictor on two halves of the seen prompts and compares what they say of the held-out ones.
pub(super) fn spreads(
    graded: &Graded,
    seen: &[&GradedPrompt],
    unseen: &[&GradedPrompt],
    seed: u64,
) -> anyhow::Result<Vec<Spread>> {
    let mut random = RandomStream::new(seed).derive("halves");
    let (one, two): (Vec<&GradedPrompt>, Vec<&GradedPrompt>) =
        seen.iter().copied().partition(|_| random.uniform() < 0.5);
    let train = |prompts: &[&GradedPrompt], kind| anyhow::Ok(trainer(graded, prompts, seed, None)?.train(kind));
    let halves = [train(&one, Kind::Equipoise)?, train(&two, Kind::Equipoise)?];
    let means = train(seen, Kind::Constant)?;
    let mut samples: Vec<(f64, Spread, f64)> = Vec::new();
    for prompt in unseen {
        let say = |predictor: &Predictor| -> Vec<Estimate> { predictor.quality(&prompt.text) };
        let (one, two, means) = (say(&halves[0]), say(&halves[1]), say(&means));
        for (model, score) in prompt.scores.iter().enumerate() {
            let Some(score) = score else { continue };
            let stated = 0.5 * (one[model].sd + two[model].sd);
            let middle = 0.5 * (one[model].probability + two[model].probability);
            samples.push((
                (means[model].probability - score).powi(2),
                Spread {
                    stated,
                    found: 0.5 * (one[model].probability - two[model].probability).powi(2),
                    skill: (middle - score).powi(2),
                },
                stated,
            ));
        }
    }
    samples.sort_by(|a, b| a.2.total_cmp(&b.2));
    let size = samples.len().div_ceil(GROUPS).max(1);
    let group = |group: &[(f64, Spread, f64)]| Spread {
        stated: mean(group.iter().map(|sample| sample.1.stated)),
        found: mean(group.iter().map(|sample| sample.1.found)).sqrt(),
        skill: 1.0 - mean(group.iter().map(|sample| sample.1.skill)) / mean(group.iter().map(|sample| sample.0)),
    };
    Ok(samples.chunks(size).map(group).collect())
}
