//! k nearest neighbours with inverse-distance weights, as RouteBalance's estimator: weight `1 / (d + 1e-6)` with cosine
//! distance d, so a near-duplicate takes nearly all of it. The search is exact.

use equipoise_types::RandomStream;

use super::neighbours::Neighbours;
use super::{Estimate, QualityPredictor, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::training::Examples;

/// RouteBalance's floor under a distance.
const SOFTNESS: f64 = 1e-6;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Knn {
    count: usize,
    neighbours: Neighbours,
    means: Vec<f64>,
}

impl Knn {
    pub(crate) fn train(examples: &Examples, count: usize) -> Self {
        // One list: nothing random in it.
        let neighbours = Neighbours::build(examples, 1, &RandomStream::new(0));
        Self {
            count,
            neighbours,
            means: examples.mean_scores(),
        }
    }

    pub(crate) fn neighbours(&self) -> usize {
        self.count
    }

    pub(crate) fn means(&self) -> &[f64] {
        &self.means
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.count);
        self.neighbours.write(writer);
        writer.f64s(&self.means);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        Ok(Self {
            count: reader.size()?,
            neighbours: Neighbours::read(reader, sizes)?,
            means: reader.f64s(sizes.models)?,
        })
    }
}

impl QualityPredictor for Knn {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        let votes = self.neighbours.votes(vector, self.count, 1, SOFTNESS);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let count = self.count as f64;
        votes
            .iter()
            .zip(&self.means)
            .map(|(vote, &mean)| {
                if vote.weight > 0.0 {
                    let probability = vote.good / vote.weight;
                    // Of a mean of `count` grades, never below that of one more grade.
                    Estimate::new(
                        probability,
                        ((probability * (1.0 - probability) + 1.0 / (count + 2.0)) / (count + 2.0)).sqrt(),
                    )
                } else {
                    Estimate::new(mean, (mean * (1.0 - mean)).sqrt())
                }
            })
            .collect()
    }
}
