//! Exploration: now and then a request goes where the policy would not have sent it, so that models which get no traffic
//! are learned about. Off unless it is asked for, and never beyond its budget.

use equipoise_policy::{Candidate, Request, SettingsError, Target};
use equipoise_types::{ModelId, RandomStream, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const HOUR_S: f64 = 3600.0;
/// Most quality that an hour may be allowed to cost: beyond this it is no bound.
const LARGEST_BUDGET: f64 = 1e6;

/// How much may be explored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExplorationSettings {
    /// Probability that a request of `auto` without hard wishes explores, [0, 1]; 0: never.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
    /// What exploring may cost in an hour: predicted quality that the policy's choice had above the explored one, summed
    /// over requests. 1 is as much as one good answer turned bad. Hours are those of the run's clock.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub budget_per_hour: f64,
}

impl Default for ExplorationSettings {
    fn default() -> Self {
        Self {
            share: 0.0,
            budget_per_hour: 1.0,
        }
    }
}

impl ExplorationSettings {
    pub(crate) fn validate(self) -> Result<(), SettingsError> {
        SettingsError::in_range("share", self.share, 0.0, 1.0)?;
        SettingsError::in_range("budget_per_hour", self.budget_per_hour, 0.0, LARGEST_BUDGET)
    }
}

/// Who explores, and what of the budget is left.
#[derive(Clone, Debug)]
pub(crate) struct Exploration {
    settings: ExplorationSettings,
    random: RandomStream,
    hour: u64,
    spent: f64,
    // Reused between decisions.
    models: Vec<ModelId>,
}

impl Exploration {
    pub(crate) fn new(settings: ExplorationSettings, random: RandomStream) -> Self {
        Self {
            settings,
            random,
            hour: 0,
            spent: 0.0,
            models: Vec::new(),
        }
    }

    /// Another candidate than the policy's choice, if this request is to explore: a free instance of a random other model
    /// whose predicted loss of quality is within what is left of the hour's budget. The loss is booked.
    pub(crate) fn instead_of(
        &mut self,
        now: Timestamp,
        request: &Request,
        chosen: &Candidate,
        candidates: &[Candidate],
    ) -> Option<Candidate> {
        let wishes = &request.wishes;
        let may = request.target == Target::Auto && wishes.are_plain() && wishes.deadline.is_none();
        if self.settings.share <= 0.0 || !may || self.random.uniform() >= self.settings.share {
            return None;
        }
        let hour = (now.as_secs_f64() / HOUR_S) as u64;
        if hour != self.hour {
            (self.hour, self.spent) = (hour, 0.0);
        }
        let left = self.settings.budget_per_hour - self.spent;
        let loss = |candidate: &Candidate| (chosen.estimate().quality - candidate.estimate().quality).max(0.0);
        let eligible = |candidate: &&Candidate| {
            candidate.model != chosen.model && !candidate.is_saturated() && loss(candidate) <= left
        };
        self.models.clear();
        for candidate in candidates.iter().filter(eligible) {
            if !self.models.contains(&candidate.model) {
                self.models.push(candidate.model);
            }
        }
        let model = *self.models.get(self.random.below(self.models.len()))?;
        let of_model = candidates
            .iter()
            .filter(eligible)
            .filter(|candidate| candidate.model == model);
        let soonest = of_model.min_by(|a, b| a.estimate().e2e_s.total_cmp(&b.estimate().e2e_s))?;
        self.spent += loss(soonest);
        Some(*soonest)
    }
}
