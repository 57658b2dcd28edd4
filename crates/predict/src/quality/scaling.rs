//! Vectors brought to mean zero and spread one in every coordinate, for models that weigh coordinates.

use super::Sizes;
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::training::Examples;

/// A coordinate is taken at most this many standard deviations from its mean.
const CLIP: f32 = 6.0;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    mean: Vec<f32>,
    /// One over the standard deviation; zero where nothing varies.
    scale: Vec<f32>,
}

impl Scaling {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts; kept in single precision"
    )]
    pub(crate) fn of(examples: &Examples) -> Self {
        let mut sums = vec![(0.0_f64, 0.0_f64); examples.dimension];
        for prompt in 0..examples.len() {
            for (sum, &value) in sums.iter_mut().zip(examples.vector(prompt)) {
                sum.0 += f64::from(value);
                sum.1 += f64::from(value) * f64::from(value);
            }
        }
        let count = examples.len().max(1) as f64;
        let moments = sums.iter().map(|&(sum, square)| {
            let mean = sum / count;
            let deviation = (square / count - mean * mean).max(0.0).sqrt();
            (
                mean as f32,
                if deviation > 1e-6 {
                    (1.0 / deviation) as f32
                } else {
                    0.0
                },
            )
        });
        let (mean, scale) = moments.unzip();
        Self { mean, scale }
    }

    pub(crate) fn apply(&self, vector: &[f32]) -> Vec<f32> {
        vector
            .iter()
            .zip(self.mean.iter().zip(&self.scale))
            .map(|(value, (mean, scale))| ((value - mean) * scale).clamp(-CLIP, CLIP))
            .collect()
    }

    /// All vectors of `examples`, row-major.
    pub(crate) fn apply_all(&self, examples: &Examples) -> Vec<f32> {
        examples
            .vectors()
            .chunks_exact(examples.dimension)
            .flat_map(|vector| self.apply(vector))
            .collect()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.f32s(&self.mean);
        writer.f32s(&self.scale);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        Ok(Self {
            mean: reader.f32s(sizes.dimension)?,
            scale: reader.f32s(sizes.dimension)?,
        })
    }
}
