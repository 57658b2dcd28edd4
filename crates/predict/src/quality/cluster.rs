//! Mean score per cluster of prompts, as Avengers-Pro: k-means over embeddings, and of each cluster every model's
//! accuracy. The prediction is that of the nearest cluster.

use equipoise_types::RandomStream;

use super::{Estimate, QualityPredictor, Sizes};
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{axpy, dot, normalise};
use crate::training::Examples;

const ITERATIONS: usize = 25;

/// Clusters with their centres and their models' means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clusters {
    dimension: usize,
    models: usize,
    centres: Vec<f32>,
    /// Row-major, clusters × models.
    means: Vec<f64>,
    /// Row-major, clusters × models: standard errors of the means.
    errors: Vec<f64>,
}

impl Clusters {
    pub(crate) fn train(examples: &Examples, clusters: usize, random: &RandomStream) -> Self {
        let (centres, cluster_of) = k_means(examples, clusters, &random.derive("clusters"));
        let clusters = centres.len() / examples.dimension;
        let overall = examples.mean_scores();
        // One made-up answer of each model's mean, so that an empty cluster has one.
        let mut sums: Vec<(f64, f64)> = (0..clusters)
            .flat_map(|_| overall.iter().map(|&mean| (mean, 1.0)))
            .collect();
        for (prompt, &cluster) in cluster_of.iter().enumerate() {
            for (sum, &score) in sums[cluster * examples.models..]
                .iter_mut()
                .zip(examples.scores(prompt))
            {
                if !score.is_nan() {
                    sum.0 += score;
                    sum.1 += 1.0;
                }
            }
        }
        let means: Vec<f64> = sums.iter().map(|(good, all)| good / all).collect();
        let errors = means
            .iter()
            .zip(&sums)
            .map(|(mean, (_, all))| ((mean * (1.0 - mean)).max(0.01) / all).sqrt());
        Self {
            dimension: examples.dimension,
            models: examples.models,
            errors: errors.collect(),
            centres,
            means,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.centres.len() / self.dimension
    }

    /// Over the clusters, which are not counted by their prompts: how many they had is not kept.
    pub(crate) fn means(&self) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let clusters = self.count() as f64;
        let mut means = vec![0.0; self.models];
        for row in self.means.chunks_exact(self.models) {
            for (sum, mean) in means.iter_mut().zip(row) {
                *sum += mean / clusters;
            }
        }
        means
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.count());
        writer.f32s(&self.centres);
        writer.f64s(&self.means);
        writer.f64s(&self.errors);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let count = reader.size()?;
        if count == 0 {
            return Err(reader.invalid("the number of clusters"));
        }
        Ok(Self {
            dimension: sizes.dimension,
            models: sizes.models,
            centres: reader.f32s(count.saturating_mul(sizes.dimension))?,
            means: reader.f64s(count.saturating_mul(sizes.models))?,
            errors: reader.f64s(count.saturating_mul(sizes.models))?,
        })
    }
}

impl QualityPredictor for Clusters {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        let row = nearest(&self.centres, vector) * self.models;
        let (means, errors) = (
            &self.means[row..row + self.models],
            &self.errors[row..row + self.models],
        );
        means
            .iter()
            .zip(errors)
            .map(|(&mean, &error)| Estimate::new(mean, error))
            .collect()
    }
}

/// The index of the centre with the smallest cosine distance; the first of equals.
fn nearest(centres: &[f32], vector: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, centre) in centres.chunks_exact(vector.len()).enumerate() {
        let likeness = dot(centre, vector);
        if likeness > best.1 {
            best = (index, likeness);
        }
    }
    best.0
}

/// Spherical k-means: centres of length one (row-major), and the cluster of each example. Starts as k-means++ (Arthur and
/// Vassilvitskii 2007); there are as many clusters as examples at most, and one at least.
pub(crate) fn k_means(examples: &Examples, clusters: usize, random: &RandomStream) -> (Vec<f32>, Vec<usize>) {
    let (dimension, prompts) = (examples.dimension, examples.len());
    let clusters = clusters.clamp(1, prompts.max(1));
    let mut centres = Vec::with_capacity(clusters * dimension);
    if prompts == 0 {
        centres.resize(dimension, 0.0);
        return (centres, Vec::new());
    }
    let mut random = random.derive("seeds");
    centres.extend_from_slice(examples.vector(random.below(prompts)));
    let mut distances = vec![f64::INFINITY; prompts];
    while centres.len() < clusters * dimension {
        let newest = &centres[centres.len() - dimension..];
        for (prompt, distance) in distances.iter_mut().enumerate() {
            *distance = distance.min(f64::from(1.0 - dot(newest, examples.vector(prompt))).max(0.0));
        }
        let mut left = random.uniform() * distances.iter().sum::<f64>();
        let chosen = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        centres.extend_from_slice(examples.vector(chosen.unwrap_or(prompts - 1)));
    }
    let mut cluster_of = vec![usize::MAX; prompts];
    for _ in 0..ITERATIONS {
        let mut moved = false;
        let mut sums = vec![0.0; centres.len()];
        for (prompt, cluster) in cluster_of.iter_mut().enumerate() {
            let now = nearest(&centres, examples.vector(prompt));
            moved |= now != *cluster;
            *cluster = now;
            axpy(
                &mut sums[now * dimension..(now + 1) * dimension],
                1.0,
                examples.vector(prompt),
            );
        }
        if !moved {
            break;
        }
        for (centre, sum) in centres
            .chunks_exact_mut(dimension)
            .zip(sums.chunks_exact_mut(dimension))
        {
            // An empty cluster keeps its centre.
            if dot(sum, sum) > 0.0 {
                normalise(sum);
                centre.copy_from_slice(sum);
            }
        }
    }
    (centres, cluster_of)
}
