//! Each model's mean score: what is known without reading the prompt, and hard to beat.

use super::{Estimate, QualityPredictor, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::training::Examples;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    means: Vec<f64>,
    /// Standard errors of the means.
    errors: Vec<f64>,
}

impl Constant {
    pub(crate) fn train(examples: &Examples) -> Self {
        let means = examples.mean_scores();
        let mut counts = vec![2.0; examples.models];
        for prompt in 0..examples.len() {
            for (count, score) in counts.iter_mut().zip(examples.scores(prompt)) {
                if !score.is_nan() {
                    *count += 1.0;
                }
            }
        }
        let errors = means
            .iter()
            .zip(counts)
            .map(|(mean, count): (&f64, f64)| (mean * (1.0 - mean) / count).sqrt());
        Self {
            errors: errors.collect(),
            means,
        }
    }

    pub(crate) fn means(&self) -> &[f64] {
        &self.means
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f64s(&self.means);
        writer.f64s(&self.errors);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        Ok(Self {
            means: reader.f64s(sizes.models)?,
            errors: reader.f64s(sizes.models)?,
        })
    }
}

impl QualityPredictor for Constant {
    fn predict(&self, _vector: &[f32]) -> Vec<Estimate> {
        self.means
            .iter()
            .zip(&self.errors)
            .map(|(&mean, &error)| Estimate::new(mean, error))
            .collect()
    }
}
