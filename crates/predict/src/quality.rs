//! Predictors of quality behind one trait: the baselines of the literature, and ours.

mod cluster;
mod constant;
mod equipoise;
mod irt;
mod knn;
mod linear;
mod neighbours;
mod pooled;
mod scaling;
mod stack;

pub(crate) use irt::{Ability, Irt};
pub(crate) use scaling::Scaling;

use equipoise_types::RandomStream;

use crate::artifact::{ArtifactError, Reader, Writer};
use crate::training::Examples;

/// How good one model's answer is likely to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Probability that it is good, in [0, 1].
    pub probability: f64,
    /// Standard deviation of that probability itself, in [0, 0.5].
    pub sd: f64,
}

impl Estimate {
    /// Brings both into their bounds. What is no number, as an absurd artifact may give, says that nothing is known.
    pub(crate) fn new(probability: f64, sd: f64) -> Self {
        let bounded = |value: f64, highest: f64| if value.is_nan() { 0.5 } else { value.clamp(0.0, highest) };
        Self {
            probability: bounded(probability, 1.0),
            sd: bounded(sd, 0.5),
        }
    }
}

/// Predicts, from a prompt's vector, how good each model's answer will be.
pub trait QualityPredictor {
    /// One estimate per model, in the order of the training set.
    fn predict(&self, vector: &[f32]) -> Vec<Estimate>;
}

/// Which predictor to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Each model's mean.
    Constant,
    /// The nearest prompts vote, weighted by inverse distance (RouteBalance; `neighbours` is 10 there, 50 in its variant).
    Knn {
        /// How many vote.
        neighbours: usize,
    },
    /// Mean per cluster of prompts (Avengers-Pro).
    Clusters {
        /// How many clusters.
        clusters: usize,
    },
    /// Item response theory with a multidimensional ability per model (RADAR).
    Irt,
    /// A logistic head per model (RouteLLM, BEST-Route).
    Linear,
    /// Ours: item response, pooled heads and neighbours, each split into what is common to all models and what is one
    /// model's own, weighted by what held out of sample.
    Equipoise,
}

impl Kind {
    /// The kinds that are compared, with the parameters of their sources.
    pub const ALL: [Self; 7] = [
        Self::Constant,
        Self::Knn { neighbours: 10 },
        Self::Knn { neighbours: 50 },
        Self::Clusters { clusters: 60 },
        Self::Irt,
        Self::Linear,
        Self::Equipoise,
    ];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Constant => formatter.write_str("constant"),
            Self::Knn { neighbours } => write!(formatter, "knn-{neighbours}"),
            Self::Clusters { clusters } => write!(formatter, "clusters-{clusters}"),
            Self::Irt => formatter.write_str("irt"),
            Self::Linear => formatter.write_str("linear"),
            Self::Equipoise => formatter.write_str("equipoise"),
        }
    }
}

/// A name that is no [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no predictor; there are constant, knn-K, clusters-K, irt, linear, equipoise")]
pub struct UnknownKind(pub String);

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|&number| number > 0)
                .ok_or_else(|| UnknownKind(name.into()))
        };
        match name.split_once('-') {
            Some(("knn", number_text)) => Ok(Self::Knn {
                neighbours: number(number_text)?,
            }),
            Some(("clusters", number_text)) => Ok(Self::Clusters {
                clusters: number(number_text)?,
            }),
            None => match name {
                "constant" => Ok(Self::Constant),
                "knn" => Ok(Self::Knn { neighbours: 10 }),
                "clusters" => Ok(Self::Clusters { clusters: 60 }),
                "irt" => Ok(Self::Irt),
                "linear" => Ok(Self::Linear),
                "equipoise" => Ok(Self::Equipoise),
                _ => Err(UnknownKind(name.into())),
            },
            Some(_) => Err(UnknownKind(name.into())),
        }
    }
}

/// A trained predictor of any kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Quality {
    Constant(constant::Constant),
    Knn(knn::Knn),
    Clusters(cluster::Clusters),
    Irt(Irt),
    Linear(linear::Linear),
    Equipoise(Box<equipoise::Equipoise>),
}

impl Quality {
    pub(crate) fn train(kind: Kind, examples: &Examples, random: &RandomStream) -> Self {
        match kind {
            Kind::Constant => Self::Constant(constant::Constant::train(examples)),
            Kind::Knn { neighbours } => Self::Knn(knn::Knn::train(examples, neighbours)),
            Kind::Clusters { clusters } => Self::Clusters(cluster::Clusters::train(examples, clusters, random)),
            Kind::Irt => Self::Irt(Irt::train(examples, &irt::RADAR, random)),
            Kind::Linear => Self::Linear(linear::Linear::train(examples)),
            Kind::Equipoise => Self::Equipoise(Box::new(equipoise::Equipoise::train(examples, random))),
        }
    }

    fn predictor(&self) -> &dyn QualityPredictor {
        match self {
            Self::Constant(predictor) => predictor,
            Self::Knn(predictor) => predictor,
            Self::Clusters(predictor) => predictor,
            Self::Irt(predictor) => predictor,
            Self::Linear(predictor) => predictor,
            Self::Equipoise(predictor) => predictor.as_ref(),
        }
    }

    /// Every model's probability of a good answer over the prompts it was trained on, as far as the kind keeps it: the
    /// same prompts for all models, where it can be said, so that means compare.
    pub(crate) fn means(&self) -> Vec<f64> {
        match self {
            Self::Constant(constant) => constant.means().to_vec(),
            Self::Knn(knn) => knn.means().to_vec(),
            Self::Clusters(clusters) => clusters.means(),
            Self::Irt(irt) => irt.means(),
            Self::Linear(linear) => linear.means(),
            Self::Equipoise(equipoise) => equipoise.means(),
        }
    }

    /// The item response model inside, which new models can join; `None` if this kind has none.
    pub(crate) fn irt(&self) -> Option<&Irt> {
        match self {
            Self::Irt(irt) => Some(irt),
            Self::Equipoise(equipoise) => Some(equipoise.irt()),
            Self::Constant(_) | Self::Knn(_) | Self::Clusters(_) | Self::Linear(_) => None,
        }
    }

    /// Adds a model from graded answers; false if this kind cannot.
    pub(crate) fn join(&mut self, ability: Ability) -> bool {
        match self {
            Self::Irt(irt) => irt.push(ability),
            Self::Equipoise(equipoise) => equipoise.push(ability),
            Self::Constant(_) | Self::Knn(_) | Self::Clusters(_) | Self::Linear(_) => return false,
        }
        true
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let (tag, write): (u32, &dyn Fn(&mut Writer)) = match self {
            Self::Constant(predictor) => (0, &|writer| predictor.write(writer)),
            Self::Knn(predictor) => (1, &|writer| predictor.write(writer)),
            Self::Clusters(predictor) => (2, &|writer| predictor.write(writer)),
            Self::Irt(predictor) => (3, &|writer| predictor.write(writer)),
            Self::Linear(predictor) => (4, &|writer| predictor.write(writer)),
            Self::Equipoise(predictor) => (5, &|writer| predictor.write(writer)),
        };
        writer.u32(tag);
        write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, sizes: Sizes) -> Result<Self, ArtifactError> {
        Ok(match reader.u32()? {
            0 => Self::Constant(constant::Constant::read(reader, sizes)?),
            1 => Self::Knn(knn::Knn::read(reader, sizes)?),
            2 => Self::Clusters(cluster::Clusters::read(reader, sizes)?),
            3 => Self::Irt(Irt::read(reader, sizes)?),
            4 => Self::Linear(linear::Linear::read(reader, sizes)?),
            5 => Self::Equipoise(Box::new(equipoise::Equipoise::read(reader, sizes)?)),
            _ => return Err(reader.invalid("the kind of predictor")),
        })
    }

    /// Its name, as in [`Kind`].
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Constant(_) => Kind::Constant,
            Self::Knn(knn) => Kind::Knn {
                neighbours: knn.neighbours(),
            },
            Self::Clusters(clusters) => Kind::Clusters {
                clusters: clusters.count(),
            },
            Self::Irt(_) => Kind::Irt,
            Self::Linear(_) => Kind::Linear,
            Self::Equipoise(_) => Kind::Equipoise,
        }
    }
}

impl QualityPredictor for Quality {
    fn predict(&self, vector: &[f32]) -> Vec<Estimate> {
        self.predictor().predict(vector)
    }
}

/// Sizes that all parts of an artifact must agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) dimension: usize,
    pub(crate) models: usize,
}
