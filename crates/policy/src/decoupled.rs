//! Decoupled baselines: first a model, without a look at load; then one of its instances, without a look at quality.
//!
//! This is what the field does today: a model router in front of a load balancer. Asked for as `ROUTER+DISPATCHER`,
//! `best-route+shortest-queue` say. What the routers know of quality is what the request's forecast says; each states its
//! own rule and parameters. The parameter of a router may be given with its name, `avengers-pro@0.53+round-robin` say, as
//! the studies sweep it.

mod avengers_pro;
mod best_route;
mod greedy;
mod radar;
mod route_llm;

use std::fmt;

use equipoise_types::{ModelId, RandomStream};
use smallvec::SmallVec;

use crate::{Candidate, Choice, Policy, Request, SettingsError};

/// One model as a model router sees it: its instances are alike to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ModelOption {
    pub(crate) model: ModelId,
    /// Predicted probability of a good answer.
    pub(crate) quality: f64,
    /// Predicted price, US dollars. Also the order from small to large: sizes are not declared.
    pub(crate) cost_usd: f64,
}

/// A rule that picks a model. `options` is not empty, in order of first appearance.
pub(crate) trait ModelRouter: fmt::Debug + Send {
    fn choose(&self, options: &[ModelOption]) -> usize;
}

/// The index with the largest key; ties go to the first.
pub(crate) fn largest(options: &[ModelOption], key: impl Fn(&ModelOption) -> f64) -> usize {
    let mut best = 0;
    for index in 1..options.len() {
        if key(&options[index]) > key(&options[best]) {
            best = index;
        }
    }
    best
}

/// A value's place between the least and the largest, [0, 1]; 1 where all are equal.
pub(crate) fn stretched(options: &[ModelOption], value: impl Fn(&ModelOption) -> f64, at: &ModelOption) -> f64 {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for option in options {
        least = least.min(value(option));
        most = most.max(value(option));
    }
    if most > least {
        (value(at) - least) / (most - least)
    } else {
        1.0
    }
}

/// A model router in front of a dispatcher.
#[derive(Debug)]
pub struct Decoupled {
    name: String,
    router: Box<dyn ModelRouter>,
    dispatcher: Box<dyn Policy>,
    // Reused between decisions.
    of_model: Vec<Candidate>,
    indices: Vec<usize>,
}

/// Every combination that has a name, with how it is made.
const COMBINATIONS: [&str; 12] = [
    "best-route+round-robin",
    "best-route+shortest-queue",
    "avengers-pro+round-robin",
    "avengers-pro+shortest-queue",
    "routellm+round-robin",
    "routellm+shortest-queue",
    "radar+round-robin",
    "radar+shortest-queue",
    "quality-greedy+round-robin",
    "quality-greedy+shortest-queue",
    "cost-greedy+round-robin",
    "cost-greedy+shortest-queue",
];

impl Decoupled {
    /// All names of this family.
    #[must_use]
    pub fn names() -> &'static [&'static str] {
        &COMBINATIONS
    }

    /// The combination of a name, if it is one of this family. `ROUTER@VALUE+DISPATCHER` sets the router's parameter: the
    /// threshold of BEST-Route and RouteLLM, the weight of performance of Avengers-Pro and RADAR.
    ///
    /// # Errors
    /// For a parameter that is not from 0 to 1.
    pub fn by_name(name: &str) -> Result<Option<Self>, SettingsError> {
        let Some((asked, dispatcher)) = name.split_once('+') else {
            return Ok(None);
        };
        let (router, parameter) = match asked.split_once('@') {
            Some((router, value)) => (router, Some(value)),
            None => (asked, None),
        };
        if !COMBINATIONS.contains(&format!("{router}+{dispatcher}").as_str()) {
            return Ok(None);
        }
        let parameter = parameter.map(share).transpose()?;
        let router: Box<dyn ModelRouter> = match (router, parameter) {
            ("best-route", threshold) => Box::new(best_route::BestRoute::new(threshold)),
            ("avengers-pro", weight) => Box::new(avengers_pro::AvengersPro::new(weight)),
            ("routellm", threshold) => Box::new(route_llm::RouteLlm::new(threshold)),
            ("radar", weight) => Box::new(radar::Radar::new(weight)),
            ("quality-greedy", None) => Box::new(greedy::QualityGreedy),
            ("cost-greedy", None) => Box::new(greedy::CostGreedy),
            _ => return Ok(None),
        };
        let dispatcher: Box<dyn Policy> = match dispatcher {
            "round-robin" => Box::new(crate::RoundRobin::default()),
            _ => Box::new(crate::LeastRequests::default()),
        };
        Ok(Some(Self {
            name: name.to_owned(),
            router,
            dispatcher,
            of_model: Vec::new(),
            indices: Vec::new(),
        }))
    }
}

/// A parameter in a name: a number from 0 to 1.
fn share(text: &str) -> Result<f64, SettingsError> {
    let value = text.parse().unwrap_or(f64::NAN);
    SettingsError::in_range("the parameter behind `@`", value, 0.0, 1.0)?;
    Ok(value)
}

impl Policy for Decoupled {
    fn name(&self) -> &str {
        &self.name
    }

    fn choose(&mut self, request: &Request, candidates: &[Candidate], random: &mut RandomStream) -> Choice {
        let mut options: SmallVec<[ModelOption; 8]> = SmallVec::new();
        for candidate in candidates {
            if !options.iter().any(|option| option.model == candidate.model) {
                let estimate = candidate.estimate();
                let (quality, cost_usd) = (estimate.quality, estimate.cost_usd);
                options.push(ModelOption {
                    model: candidate.model,
                    quality,
                    cost_usd,
                });
            }
        }
        let model = options[self.router.choose(&options)].model;
        self.of_model.clear();
        self.indices.clear();
        for (index, candidate) in candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.model == model)
        {
            self.of_model.push(*candidate);
            self.indices.push(index);
        }
        match self.dispatcher.choose(request, &self.of_model, random) {
            Choice::Take { index, score } => Choice::Take {
                index: self.indices[index],
                score,
            },
            Choice::Wait => Choice::Wait,
        }
    }
}

#[cfg(test)]
mod tests;
