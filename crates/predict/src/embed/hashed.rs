//! The default embedding: hashed n-grams, weighted by inverse document frequency and projected onto the leading singular
//! directions of the training prompts, beside standardised surface features.

use equipoise_types::RandomStream;

use super::Embedder;
use super::projection::right_singular_vectors;
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{Quantised, normalise};
use crate::text::{Ngrams, SURFACE_FEATURES, count_ngrams, surface_features};

/// Length of the projected n-grams against that of the surface features; 2 was best in cross-validation.
const NGRAM_WEIGHT: f32 = 2.0;
/// A surface feature is taken at most this many standard deviations from its mean.
const CLIP: f32 = 4.0;

/// Sizes of a [`HashedEmbedder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddingConfig {
    /// Buckets of words and as many of byte n-grams: two to the power of this; 4 to 18.
    pub half_bits: u32,
    /// Directions kept of the n-grams, 1 to 256.
    pub rank: usize,
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        Self {
            half_bits: 14,
            rank: 64,
        }
    }
}

/// Words (1 and 2), byte n-grams (3 to 5), tf-idf, a learned projection; and surface features. Needs no download.
#[derive(Clone, Debug, PartialEq)]
pub struct HashedEmbedder {
    half_bits: u32,
    /// Per bucket; zero for what was seen in fewer than two prompts.
    idf: Vec<f32>,
    /// One row per bucket.
    projection: Quantised,
    surface_mean: Vec<f32>,
    /// One over the standard deviation.
    surface_scale: Vec<f32>,
}

impl HashedEmbedder {
    /// Learns weights and projection from prompts; no labels are looked at. `config` is brought into its bounds.
    #[must_use]
    pub fn train(texts: &[&str], config: EmbeddingConfig, random: &RandomStream) -> Self {
        let half_bits = config.half_bits.clamp(4, 18);
        let rank = config.rank.clamp(1, 256);
        let buckets = 2_usize << half_bits;
        let mut rows: Vec<Ngrams> = texts.iter().map(|text| count_ngrams(text, half_bits)).collect();
        let idf = inverse_document_frequency(&rows, buckets);
        for row in &mut rows {
            weigh(row, &idf, half_bits);
        }
        let mut projection = right_singular_vectors(&rows, buckets, rank, &mut random.derive("projection"));
        for (row, &weight) in projection.chunks_exact_mut(rank).zip(&idf) {
            if weight == 0.0 {
                row.fill(0.0);
            }
        }
        let (surface_mean, surface_scale) = surface_scaling(texts);
        Self {
            half_bits,
            idf,
            projection: Quantised::of(&projection, rank),
            surface_mean,
            surface_scale,
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.half_bits);
        writer.f32s(&self.idf);
        self.projection.write(writer);
        writer.f32s(&self.surface_mean);
        writer.f32s(&self.surface_scale);
    }

    /// What stands behind `half_bits`.
    pub(crate) fn read(reader: &mut Reader<'_>, half_bits: u32) -> Result<Self, ArtifactError> {
        if !(4..=18).contains(&half_bits) {
            return Err(reader.invalid("the number of buckets"));
        }
        let buckets = 2_usize << half_bits;
        let idf = reader.f32s(buckets)?;
        let projection = Quantised::read(reader)?;
        if projection.rows() != buckets || !(1..=256).contains(&projection.columns()) {
            return Err(reader.invalid("the size of the projection"));
        }
        Ok(Self {
            half_bits,
            idf,
            projection,
            surface_mean: reader.f32s(SURFACE_FEATURES)?,
            surface_scale: reader.f32s(SURFACE_FEATURES)?,
        })
    }
}

impl Embedder for HashedEmbedder {
    fn dimension(&self) -> usize {
        self.projection.columns() + SURFACE_FEATURES
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let mut ngrams = count_ngrams(text, self.half_bits);
        weigh(&mut ngrams, &self.idf, self.half_bits);
        let mut vector = self.projection.weighted_sum(&ngrams);
        vector.resize(self.dimension(), 0.0);
        let (projected, surface) = vector.split_at_mut(self.projection.columns());
        normalise(projected);
        for value in projected {
            *value *= NGRAM_WEIGHT;
        }
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let share = 1.0 / (SURFACE_FEATURES as f32).sqrt();
        let features = surface_features(text);
        for (index, to) in surface.iter_mut().enumerate() {
            let standard = (features[index] - self.surface_mean[index]) * self.surface_scale[index];
            *to = standard.clamp(-CLIP, CLIP) * share;
        }
        normalise(&mut vector);
        vector
    }
}

/// `ln((1 + n) / (1 + df)) + 1`, and zero for what is in fewer than two prompts.
#[expect(clippy::cast_precision_loss, reason = "counts of prompts")]
fn inverse_document_frequency(rows: &[Ngrams], buckets: usize) -> Vec<f32> {
    let mut prompts_with = vec![0_u32; buckets];
    for row in rows {
        for &(bucket, _) in row {
            prompts_with[bucket as usize] += 1;
        }
    }
    let total = rows.len() as f32;
    let weight = |with: u32| {
        if with < 2 {
            0.0
        } else {
            ((1.0 + total) / (1.0 + with as f32)).ln() + 1.0
        }
    };
    prompts_with.into_iter().map(weight).collect()
}

/// Turns counts into weights: logarithmic term frequency times idf, each half scaled to length one.
fn weigh(row: &mut Ngrams, idf: &[f32], half_bits: u32) {
    let half = 1_u32 << half_bits;
    let mut squares = [0.0_f32; 2];
    row.retain_mut(|(bucket, value)| {
        *value = value.signum() * log_count(value.abs()) * idf[*bucket as usize];
        squares[usize::from(*bucket >= half)] += *value * *value;
        *value != 0.0
    });
    let scales = squares.map(|square| if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 });
    for (bucket, value) in row {
        *value *= scales[usize::from(*bucket >= half)];
    }
}

/// `ln(1 + count)`; most counts are 1 or 2, and logarithms are slow.
fn log_count(count: f32) -> f32 {
    if count == 1.0 {
        std::f32::consts::LN_2
    } else {
        count.ln_1p()
    }
}

/// Mean, and one over the standard deviation, of each surface feature.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts; kept in single precision"
)]
fn surface_scaling(texts: &[&str]) -> (Vec<f32>, Vec<f32>) {
    let mut sums = [(0.0_f64, 0.0_f64); SURFACE_FEATURES];
    for text in texts {
        for (sum, feature) in sums.iter_mut().zip(surface_features(text)) {
            sum.0 += f64::from(feature);
            sum.1 += f64::from(feature) * f64::from(feature);
        }
    }
    let count = texts.len().max(1) as f64;
    sums.iter()
        .map(|&(sum, square)| {
            let mean = sum / count;
            let deviation = (square / count - mean * mean).max(0.0).sqrt();
            // A feature that never varied says nothing.
            let scale = if deviation > 1e-4 { 1.0 / deviation } else { 0.0 };
            (mean as f32, scale as f32)
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::dot;

    const TEXTS: [&str; 6] = [
        "How many apples are left if Ann eats three of twelve apples?",
        "How many pears are left if Bob eats two of nine pears?",
        "def f(x):\n    return x + 1\nassert f(2) == ??",
        "def g(text):\n    return text.upper()\nassert g('a') == ??",
        "Find all real $x$ with $\\frac{x}{2} = 3$.",
        "Find all real $y$ with $y^2 = 9$.",
    ];

    #[test]
    fn like_prompts_are_near_and_training_is_deterministic() {
        let config = EmbeddingConfig { half_bits: 8, rank: 4 };
        let embedder = HashedEmbedder::train(&TEXTS, config, &RandomStream::new(1));
        assert_eq!(embedder, HashedEmbedder::train(&TEXTS, config, &RandomStream::new(1)));
        let vectors: Vec<Vec<f32>> = TEXTS.iter().map(|text| embedder.embed(text)).collect();
        for vector in &vectors {
            assert!((dot(vector, vector) - 1.0).abs() < 1e-5);
            assert_eq!(vector.len(), embedder.dimension());
        }
        for pair in [0, 2, 4] {
            assert!(dot(&vectors[pair], &vectors[pair + 1]) > dot(&vectors[pair], &vectors[(pair + 2) % 6]));
        }
    }

    #[test]
    fn any_text_gives_finite_numbers() {
        let config = EmbeddingConfig { half_bits: 6, rank: 3 };
        let embedder = HashedEmbedder::train(&TEXTS, config, &RandomStream::new(1));
        for text in ["", " ", "\u{0}", "日本語のテキスト", &"x".repeat(100_000)] {
            assert!(embedder.embed(text).iter().all(|value| value.is_finite()), "{text:.20}");
        }
        let untaught = HashedEmbedder::train(&[], config, &RandomStream::new(1));
        assert!(untaught.embed("a").iter().all(|value| value.is_finite()));
    }
}
