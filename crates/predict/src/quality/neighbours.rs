//! Training prompts that can be searched for the nearest ones, and the votes of those.

use equipoise_types::RandomStream;

use super::Sizes;
use super::cluster::k_means;
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::numeric::{Quantised, Rounded, dots, widened};
use crate::training::Examples;

/// A grade as a byte: hundredths, or not graded.
const UNGRADED: u8 = u8::MAX;
const GRADE_STEPS: f64 = 100.0;

/// Prompts in lists around centres ("inverted file"): a search looks only into the lists whose centres are nearest. With
/// one list it is exact.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Neighbours {
    dimension: usize,
    models: usize,
    /// Row-major, lists × dimension, each of length one.
    centres: Vec<f32>,
    /// Where each list ends among the prompts, which are sorted by list.
    ends: Vec<u32>,
    vectors: Quantised,
    /// Row-major, prompts × models.
    grades: Vec<u8>,
}

/// Weighted votes of the neighbours about one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Votes {
    /// Sum of weights of those that have a grade; the nearest weighs at most 1.
    pub(crate) weight: f64,
    /// Sum of weight times grade.
    pub(crate) good: f64,
}

impl Neighbours {
    /// Sorts the examples into at most `lists` lists.
    pub(crate) fn build(examples: &Examples, lists: usize, random: &RandomStream) -> Self {
        let (centres, list_of) = k_means(examples, lists, &random.derive("lists"));
        let lists = centres.len() / examples.dimension;
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|&prompt| list_of[prompt]);
        let mut ends = vec![0_u32; lists];
        for &list in &list_of {
            ends[list] += 1;
        }
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total;
        }
        let vectors: Vec<f32> = order
            .iter()
            .flat_map(|&prompt| examples.vector(prompt).iter().copied())
            .collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a score is in [0, 1]"
        )]
        let grade = |&score: &f64| {
            if score.is_nan() {
                UNGRADED
            } else {
                (score * GRADE_STEPS).round() as u8
            }
        };
        Self {
            dimension: examples.dimension,
            models: examples.models,
            centres,
            ends,
            vectors: Quantised::of(&vectors, examples.dimension),
            grades: order
                .iter()
                .flat_map(|&prompt| examples.scores(prompt).iter().map(grade))
                .collect(),
        }
    }

    /// Adds a model that no prompt here was graded for.
    pub(crate) fn push_ungraded_model(&mut self) {
        let rows = self.grades.chunks_exact(self.models);
        self.grades = rows.flat_map(|row| row.iter().copied().chain([UNGRADED])).collect();
        self.models += 1;
    }

    /// About so many of the prompts, evenly over the lists.
    pub(crate) fn some_prompts(&self, count: usize) -> impl Iterator<Item = Vec<f32>> {
        let step = self.vectors.rows().div_ceil(count.max(1)).max(1);
        (0..self.vectors.rows()).step_by(step).map(|row| self.vectors.row(row))
    }

    /// The `count` nearest prompts of the `probes` nearest lists, each with its cosine distance (no less than 0), nearest first.
    fn search(&self, vector: &[f32], count: usize, probes: usize) -> Vec<(f32, u32)> {
        let mut products = vec![0.0; self.ends.len()];
        dots(&self.centres, vector, &mut products);
        let distances = products.iter().map(|product| 1.0 - product);
        let mut lists: Vec<(f32, usize)> = distances.zip(0..).collect();
        if probes < lists.len() {
            lists.select_nth_unstable_by(probes, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            lists.truncate(probes);
        }
        let prompts = |list: usize| if list == 0 { 0 } else { self.ends[list - 1] }..self.ends[list];
        let rounded = Rounded::of(vector);
        // The distance above the prompt in one number: bits of a float that is not negative are in its order.
        let mut found: Vec<u64> = Vec::with_capacity(lists.iter().map(|&(_, list)| prompts(list).len()).sum());
        for &(_, list) in &lists {
            let prompts = prompts(list);
            products.resize(prompts.len(), 0.0);
            self.vectors.dot_rows(prompts.start as usize, &rounded, &mut products);
            found.extend(prompts.zip(&products).map(|(prompt, product)| {
                let distance = (1.0 - product).max(0.0);
                u64::from(distance.to_bits()) << 32 | u64::from(prompt)
            }));
        }
        if count < found.len() {
            found.select_nth_unstable(count);
            found.truncate(count);
        }
        found.sort_unstable();
        #[expect(clippy::cast_possible_truncation, reason = "two halves of 32 bits")]
        let parts = |key: u64| (f32::from_bits((key >> 32) as u32), key as u32);
        found.into_iter().map(parts).collect()
    }

    /// Per model the votes of the `count` nearest prompts, each weighing `(nearest + softness) / (distance + softness)`.
    pub(crate) fn votes(&self, vector: &[f32], count: usize, probes: usize, softness: f64) -> Vec<Votes> {
        let mut weights = vec![0.0_f32; self.models];
        let mut goods = vec![0.0_f32; self.models];
        let found = self.search(vector, count, probes);
        let softened = |distance: f32| f64::from(distance).max(0.0) + softness;
        let nearest = found.first().map_or(1.0, |&(distance, _)| softened(distance));
        #[expect(clippy::cast_possible_truncation, reason = "at most one; summed in single precision")]
        let voters = found
            .into_iter()
            .map(|(distance, prompt)| ((nearest / softened(distance)) as f32, prompt));
        add_votes(&voters.collect::<Vec<_>>(), &self.grades, &mut weights, &mut goods);
        let sums = weights.into_iter().zip(goods);
        sums.map(|(weight, good)| Votes {
            weight: f64::from(weight),
            good: f64::from(good) / GRADE_STEPS,
        })
        .collect()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.ends.len());
        writer.f32s(&self.centres);
        for &end in &self.ends {
            writer.u32(end);
        }
        self.vectors.write(writer);
        writer.u8s(&self.grades);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let lists = reader.size()?;
        let centres = reader.f32s(lists.saturating_mul(sizes.dimension))?;
        let mut ends = Vec::new();
        for _ in 0..lists {
            ends.push(reader.u32()?);
        }
        let vectors = Quantised::read(reader)?;
        let last = ends.last().map_or(0, |&last| last as usize);
        if vectors.columns() != sizes.dimension || !ends.is_sorted() || last != vectors.rows() {
            return Err(reader.invalid("the lists of neighbours"));
        }
        let grades = reader.u8s(vectors.rows().saturating_mul(sizes.models))?;
        if grades
            .iter()
            .any(|&grade| f64::from(grade) > GRADE_STEPS && grade != UNGRADED)
        {
            return Err(reader.invalid("a grade"));
        }
        Ok(Self {
            dimension: sizes.dimension,
            models: sizes.models,
            centres,
            ends,
            vectors,
            grades,
        })
    }
}

widened! {
    /// Adds the votes of some prompts, each with its weight, about every model.
    fn add_votes(voters: &[(f32, u32)], grades: &[u8], weights: &mut [f32], goods: &mut [f32]) {
        let models = weights.len();
        for &(weight, prompt) in voters {
            let grades = &grades[prompt as usize * models..][..models];
            // Sums apart, and no branch on what is graded, so that several models are summed at once.
            for ((to_weight, to_good), &grade) in weights.iter_mut().zip(goods.iter_mut()).zip(grades) {
                let weight = if grade == UNGRADED { 0.0 } else { weight };
                *to_weight += weight;
                *to_good += weight * f32::from(grade);
            }
        }
    }
}

/// The number of lists for so many prompts: about as many as a list has prompts, halved.
pub(crate) fn lists_for(prompts: usize) -> usize {
    let mut lists = 1;
    while lists * lists * 2 < prompts {
        lists += 1;
    }
    lists.min(64)
}
