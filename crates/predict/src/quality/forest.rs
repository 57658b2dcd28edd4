//! A random forest (Breiman 2001) for all models together: a leaf holds the mean score of every model on its prompts.
//!
//! What neither a linear model nor a distance can say is said by a few conditions together ("code, and few loops, and
//! long"). All models share the splits, so that what the many grades of one prompt have in common finds them; in their
//! leaves models differ as far as the data do.

use equipoise_types::RandomStream;

use super::Sizes;
use crate::artifact::{ArtifactError, Reader, Writer};
use crate::training::Examples;

/// Size and freedom of a forest; chosen, as the rest of our predictor, by cross-validation on the training parts of both
/// published sets. More trees gain little; fewer prompts in a leaf lose on the small set.
const TREES: usize = 64;
const MIN_LEAF: usize = 7;
/// One coordinate in so many is tried for a split, each at the values of so many random prompts.
const TRIED_OF: usize = 5;
const THRESHOLDS: usize = 15;

/// A mean score as a byte: 254ths, or no grade in this leaf.
const UNGRADED: u8 = u8::MAX;
const SCORE_STEPS: f32 = 254.0;

/// A node in 8 bytes: `low` bits of the code are where to go on, those above which coordinate is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    threshold: f32,
    code: u32,
}

const LOW_BITS: u32 = 22;
const LOW: u32 = (1 << LOW_BITS) - 1;
/// Stands for the coordinate of a leaf, whose low bits are its row of means.
const LEAF: usize = (u32::MAX >> LOW_BITS) as usize;

impl Node {
    fn new(coordinate: usize, low: usize, threshold: f32) -> Self {
        let (coordinate, low) = (u32::try_from(coordinate), u32::try_from(low));
        Self {
            threshold,
            code: coordinate.unwrap_or(u32::MAX) << LOW_BITS | low.unwrap_or(LOW) & LOW,
        }
    }

    fn coordinate(self) -> usize {
        (self.code >> LOW_BITS) as usize
    }

    fn low(self) -> usize {
        (self.code & LOW) as usize
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forest {
    models: usize,
    /// Where each tree begins among the nodes.
    roots: Vec<u32>,
    /// Of one tree after another: a node's left branch comes next, its right branch stands in it.
    nodes: Vec<Node>,
    /// Row-major, leaves × models.
    means: Vec<u8>,
}

impl Forest {
    pub(crate) fn train(examples: &Examples, random: &RandomStream) -> Self {
        let mut forest = Self {
            models: examples.models,
            roots: Vec::with_capacity(TREES),
            nodes: Vec::new(),
            means: Vec::new(),
        };
        let targets = Targets::of(examples);
        let mut random = random.derive("forest");
        for _ in 0..TREES {
            forest.roots.push(u32::try_from(forest.nodes.len()).unwrap_or(u32::MAX));
            forest.grow(examples, &targets, &mut random);
        }
        forest
    }

    /// Adds one tree.
    fn grow(&mut self, examples: &Examples, targets: &Targets, random: &mut RandomStream) {
        let mut prompts: Vec<usize> = (0..examples.len()).map(|_| random.below(examples.len())).collect();
        // Branches to grow, the next one last: their prompts, and whose right branch they are.
        let mut branches: Vec<(std::ops::Range<usize>, Option<usize>)> = vec![(0..prompts.len(), None)];
        while let Some((range, right_of)) = branches.pop() {
            let at = self.nodes.len();
            if let Some(parent) = right_of {
                let Node { threshold, .. } = self.nodes[parent];
                self.nodes[parent] = Node::new(self.nodes[parent].coordinate(), at, threshold);
            }
            let inside = &mut prompts[range.clone()];
            // A forest that has outgrown its numbers grows no further.
            let room = self.nodes.len() + 2 * branches.len() + 3 < LOW as usize;
            let split = if room {
                targets.best_split(examples, inside, random)
            } else {
                None
            };
            let Some((coordinate, threshold)) = split else {
                let leaf = self.means.len() / self.models;
                self.nodes.push(Node::new(LEAF, leaf, 0.0));
                self.means.extend(targets.means(inside));
                continue;
            };
            let is_left = |&prompt: &usize| examples.vector(prompt)[coordinate] < threshold;
            inside.sort_by_key(|prompt| !is_left(prompt));
            let middle = range.start + inside.iter().filter(|prompt| is_left(prompt)).count();
            self.nodes.push(Node::new(coordinate, 0, threshold));
            branches.push((middle..range.end, Some(at)));
            branches.push((range.start..middle, None));
        }
    }

    /// Per model that was trained on its mean score in the leaves that the prompt falls into; `None` where it was not graded
    /// in any of them.
    pub(crate) fn scores(&self, vector: &[f32]) -> Vec<Option<f64>> {
        let mut sums = vec![(0_u16, 0_u16); self.models];
        for &root in &self.roots {
            let mut at = root as usize;
            let leaf = loop {
                let node = self.nodes[at];
                if node.coordinate() == LEAF {
                    break node.low();
                }
                at = if vector[node.coordinate()] < node.threshold {
                    at + 1
                } else {
                    node.low()
                };
            };
            let means = &self.means[leaf * self.models..(leaf + 1) * self.models];
            for ((sum, count), &mean) in sums.iter_mut().zip(means) {
                let graded = u16::from(mean != UNGRADED);
                *sum += graded * u16::from(mean);
                *count += graded;
            }
        }
        let score = |(sum, count): (u16, u16)| f64::from(sum) / (f64::from(count) * f64::from(SCORE_STEPS));
        sums.into_iter().map(|sum| (sum.1 > 0).then(|| score(sum))).collect()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.size(self.roots.len());
        writer.size(self.nodes.len());
        writer.size(self.means.len() / self.models);
        for &root in &self.roots {
            writer.u32(root);
        }
        for node in &self.nodes {
            writer.u32(node.code);
        }
        let thresholds: Vec<f32> = self.nodes.iter().map(|node| node.threshold).collect();
        writer.f32s(&thresholds);
        writer.u8s(&self.means);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        let (trees, count, leaves) = (reader.size()?, reader.size()?, reader.size()?);
        let roots = reader.u32s(trees)?;
        let codes = reader.u32s(count)?;
        let thresholds = reader.f32s(count)?;
        let nodes: Vec<Node> = thresholds
            .into_iter()
            .zip(codes)
            .map(|(threshold, code)| Node { threshold, code })
            .collect();
        // Branches lead onwards only, so every walk ends.
        let well = |(at, node): (usize, &Node)| {
            if node.coordinate() == LEAF {
                node.low() < leaves
            } else {
                node.coordinate() < sizes.dimension && node.low() > at + 1 && node.low() < count
            }
        };
        let rooted = roots.iter().all(|&root| (root as usize) < count);
        // Scores are summed over trees in 16 bits.
        if trees > usize::from(u8::MAX) || !rooted || !nodes.iter().enumerate().all(well) {
            return Err(reader.invalid("the trees"));
        }
        Ok(Self {
            models: sizes.models,
            roots,
            nodes,
            means: reader.u8s(leaves.saturating_mul(sizes.models))?,
        })
    }
}

/// What splits are to tell apart.
struct Targets {
    models: usize,
    /// Row-major, prompts × 2 models: how far each score is from its model's mean, zero where not graded; then ones where
    /// graded.
    rows: Vec<f32>,
    centres: Vec<f32>,
}

impl Targets {
    #[expect(clippy::cast_possible_truncation, reason = "scores in [0, 1]")]
    fn of(examples: &Examples) -> Self {
        let centres: Vec<f32> = examples.mean_scores().into_iter().map(|mean| mean as f32).collect();
        let row = |prompt: usize| {
            let scores = examples.scores(prompt).iter().zip(&centres);
            let residuals = scores.map(|(&score, centre)| if score.is_nan() { 0.0 } else { score as f32 - centre });
            let graded = examples.scores(prompt).iter();
            let graded = graded.map(|score| f32::from(u8::from(!score.is_nan())));
            residuals.chain(graded).collect::<Vec<f32>>()
        };
        Self {
            models: examples.models,
            rows: (0..examples.len()).flat_map(row).collect(),
            centres,
        }
    }

    fn add(&self, prompt: usize, sums: &mut [f32]) {
        let width = 2 * self.models;
        add(sums, &self.rows[prompt * width..(prompt + 1) * width]);
    }

    /// The rows of some prompts added up.
    fn sum(&self, prompts: &[usize]) -> Vec<f32> {
        let mut sums = vec![0.0; 2 * self.models];
        for &prompt in prompts {
            self.add(prompt, &mut sums);
        }
        sums
    }

    /// The best of some random splits by the squared error that is left, summed over models: a coordinate and a threshold
    /// below which prompts go left. `None` where no split leaves enough at both sides.
    fn best_split(&self, examples: &Examples, prompts: &[usize], random: &mut RandomStream) -> Option<(usize, f32)> {
        if prompts.len() < 2 * MIN_LEAF {
            return None;
        }
        let total = self.sum(prompts);
        let width = total.len();
        let mut parts = vec![0.0; THRESHOLDS * width];
        let mut best: Option<(f32, usize, f32)> = None;
        let coordinates = examples.dimension.min(LEAF);
        for _ in 0..coordinates.div_ceil(TRIED_OF) {
            let coordinate = random.below(coordinates);
            let value = |prompt: usize| examples.vector(prompt)[coordinate];
            let mut thresholds = [(); THRESHOLDS].map(|()| value(prompts[random.below(prompts.len())]));
            thresholds.sort_unstable_by(f32::total_cmp);
            // What lies below each threshold and not below the one before.
            let mut counts = [0; THRESHOLDS];
            parts.fill(0.0);
            for &prompt in prompts {
                let part = thresholds.partition_point(|&threshold| threshold <= value(prompt));
                if part < THRESHOLDS {
                    counts[part] += 1;
                    self.add(prompt, &mut parts[part * width..(part + 1) * width]);
                }
            }
            let mut count = 0;
            for part in 0..THRESHOLDS {
                count += counts[part];
                if part > 0 {
                    let (before, from) = parts.split_at_mut(part * width);
                    add(&mut from[..width], &before[(part - 1) * width..]);
                }
                if count < MIN_LEAF || prompts.len() - count < MIN_LEAF {
                    continue;
                }
                let gain = self.explained(&parts[part * width..(part + 1) * width], &total);
                if best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, coordinate, thresholds[part]));
                }
            }
        }
        best.map(|(_, coordinate, threshold)| (coordinate, threshold))
    }

    /// Σ S²/n of both sides over all models, which is larger by what the squared error is smaller.
    fn explained(&self, left: &[f32], total: &[f32]) -> f32 {
        let (sums, counts) = left.split_at(self.models);
        let (all_sums, all_counts) = total.split_at(self.models);
        let part = |sum: f32, count: f32| sum * sum / count.max(1.0);
        let models = sums.iter().zip(counts).zip(all_sums.iter().zip(all_counts));
        models
            .map(|((&sum, &count), (&all, &of))| part(sum, count) + part(all - sum, of - count))
            .sum()
    }

    /// Every model's mean score on some prompts.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of scores in [0, 1]"
    )]
    fn means(&self, prompts: &[usize]) -> Vec<u8> {
        let sums = self.sum(prompts);
        let (sums, counts) = sums.split_at(self.models);
        let mean = |((&sum, &count), &centre): ((&f32, &f32), &f32)| {
            if count > 0.0 {
                ((centre + sum / count).clamp(0.0, 1.0) * SCORE_STEPS).round() as u8
            } else {
                UNGRADED
            }
        };
        sums.iter().zip(counts).zip(&self.centres).map(mean).collect()
    }
}

fn add(sums: &mut [f32], row: &[f32]) {
    for (to, value) in sums.iter_mut().zip(row) {
        *to += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that is right where both coordinates have the same sign, and one that was never asked.
    fn chequered() -> Examples {
        let mut random = RandomStream::new(7);
        let prompts: Vec<(Vec<f32>, Vec<f64>)> = (0..2000)
            .map(|_| {
                let (x, y) = (random.uniform() - 0.5, random.uniform() - 0.5);
                let score = f64::from(u8::from((x > 0.0) == (y > 0.0)));
                let vector = vec![x as f32, y as f32];
                (vector, vec![score, f64::NAN])
            })
            .collect();
        Examples::from_rows(&prompts)
    }

    #[test]
    fn what_no_line_can_tell_apart_is_told_apart() {
        let examples = chequered();
        let forest = Forest::train(&examples, &RandomStream::new(1));
        for (vector, likely) in [
            ([0.25, 0.25], true),
            ([0.25, -0.25], false),
            ([-0.25, -0.25], true),
            ([-0.25, 0.25], false),
        ] {
            let scores = forest.scores(&vector);
            let score = scores[0].expect("graded everywhere");
            assert!(if likely { score > 0.8 } else { score < 0.2 }, "{vector:?} {score}");
            assert_eq!(scores[1], None, "graded in no leaf");
        }
    }

    #[test]
    fn a_forest_is_deterministic_and_comes_back_from_its_bytes() {
        let examples = chequered();
        let forest = Forest::train(&examples, &RandomStream::new(1));
        assert_eq!(forest, Forest::train(&examples, &RandomStream::new(1)));
        let sizes = Sizes {
            dimension: 2,
            models: 2,
        };
        let mut writer = Writer::default();
        forest.write(&mut writer);
        let body = writer.into_body();
        assert_eq!(Forest::read(&mut Reader::new(&body), sizes).expect("is well"), forest);
        // A branch that leads back would be walked for ever.
        let mut looped = forest;
        let inner = looped
            .nodes
            .iter()
            .position(|node| node.coordinate() != LEAF)
            .expect("splits");
        looped.nodes[inner] = Node::new(looped.nodes[inner].coordinate(), inner, 0.0);
        let mut writer = Writer::default();
        looped.write(&mut writer);
        assert!(Forest::read(&mut Reader::new(&writer.into_body()), sizes).is_err());
    }
}
