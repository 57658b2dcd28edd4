//! One decision: hard constraints, predictions, the policy's choice.

use equipoise_estimate::{InstanceLoad, LengthEstimate};
use equipoise_fleet::{Fleet, Instance, ModelState};
use equipoise_policy::{Candidate, Choice, Constraint, Policy, Request, Target, Verdicts, check, check_prediction};
use equipoise_types::{InstanceId, RandomStream, Timestamp};

use crate::Refusal;
use crate::tenants::Left;

/// Where a request goes.
pub(crate) enum Placement {
    /// To this candidate.
    Take(Box<Candidate>, Option<f64>),
    /// Nowhere yet.
    Wait,
    /// Nowhere.
    Refuse(Refusal),
}

/// What a decision may look at, and the buffer it reuses.
pub(crate) struct Decision<'a> {
    pub(crate) now: Timestamp,
    pub(crate) fleet: &'a Fleet,
    pub(crate) late_binding: bool,
    /// What its tenant may still spend, where that is bounded.
    pub(crate) left: Option<Left>,
    /// Requests that wait at the router before this one.
    pub(crate) ahead: u32,
    pub(crate) candidates: &'a mut Vec<Candidate>,
    pub(crate) ruled_out: &'a mut Vec<(InstanceId, Constraint)>,
}

impl Decision<'_> {
    /// Decides one request. `tried`: instances that failed it already.
    pub(crate) fn place(
        &mut self,
        request: &Request,
        tried: &[InstanceId],
        policy: &mut dyn Policy,
        random: &mut RandomStream,
    ) -> Placement {
        let mut verdicts = Verdicts::default();
        let mut saturated = false;
        self.candidates.clear();
        self.ruled_out.clear();
        for instance in self.fleet.iter() {
            match self.candidate(request, tried, instance, 0) {
                Ok(candidate) if self.late_binding && candidate.is_saturated() && !policy.binds_late() => {
                    saturated = true;
                }
                Ok(candidate) => self.candidates.push(candidate),
                Err(constraint) => {
                    verdicts.note(constraint);
                    self.ruled_out.push((instance.id, constraint));
                }
            }
        }
        self.stand_in_line(request, tried);
        if self.candidates.is_empty() {
            return if saturated || verdicts.passes_soon() {
                Placement::Wait
            } else {
                self.refuse(request, &verdicts)
            };
        }
        match policy.choose(request, self.candidates, random) {
            // Without late binding nobody waits here: the best saturated instance gets it, as the paper's peers do.
            Choice::Wait if self.late_binding => Placement::Wait,
            Choice::Wait => Placement::Take(Box::new(self.soonest()), None),
            Choice::Take { index, score } => Placement::Take(Box::new(self.candidates[index]), score),
        }
    }

    /// Whoever waits before this request will take the next free slots: a full instance is predicted with its share of
    /// them, so that a line is not mistaken for a short wait.
    fn stand_in_line(&mut self, request: &Request, tried: &[InstanceId]) {
        let full = self.candidates.iter().filter(|candidate| candidate.is_saturated());
        let slots: f64 = full.map(|candidate| f64::from(candidate.slots)).sum();
        if self.ahead == 0 || slots <= 0.0 {
            return;
        }
        let mut in_line = std::mem::take(self.candidates);
        in_line.retain_mut(|candidate| {
            if !candidate.is_saturated() {
                return true;
            }
            let share = f64::from(self.ahead) * f64::from(candidate.slots) / slots;
            let Some(instance) = self.fleet.instance(candidate.instance) else {
                return false;
            };
            match self.candidate(request, tried, instance, share.ceil() as u32) {
                Ok(later) => {
                    *candidate = later;
                    true
                }
                Err(constraint) => {
                    self.ruled_out.push((candidate.instance, constraint));
                    false
                }
            }
        });
        *self.candidates = in_line;
    }

    fn candidate(
        &self,
        request: &Request,
        tried: &[InstanceId],
        instance: &Instance,
        in_line: u32,
    ) -> Result<Candidate, Constraint> {
        check(self.now, self.fleet, instance, request)?;
        if tried.contains(&instance.id) {
            return Err(Constraint::Tried);
        }
        let mut load = self.fleet.load(self.now, instance);
        load.in_flight = load.in_flight.saturating_add(in_line);
        let candidate = Self::beside(self.now, self.fleet, request, instance, load)?;
        if self.left.is_some_and(|left| !left.allows(&candidate)) {
            return Err(Constraint::Budget);
        }
        Ok(candidate)
    }

    /// How long the answer of a model is expected to be.
    pub(crate) fn length(now: Timestamp, request: &Request, model: &ModelState) -> LengthEstimate {
        match request.forecast.as_ref().and_then(|forecast| forecast.of(&model.name)) {
            Some(forecast) => model
                .length
                .predict_from(now, &forecast.output_tokens, request.max_output_tokens),
            None => model.length.predict(request.max_output_tokens),
        }
    }

    /// The candidate that an instance is beside `load`, if its prediction meets the request's wishes.
    pub(crate) fn beside(
        now: Timestamp,
        fleet: &Fleet,
        request: &Request,
        instance: &Instance,
        load: InstanceLoad,
    ) -> Result<Candidate, Constraint> {
        let model = fleet.model(instance.model).ok_or(Constraint::Model)?;
        let forecast = request.forecast.as_ref().and_then(|forecast| forecast.of(&model.name));
        let length = Self::length(now, request, model);
        let quality = match forecast {
            Some(forecast) => model.quality.predict_from(now, forecast),
            None => model.quality.predict(now),
        };
        let (prefix, prompt_tokens) = (&request.prefix, request.prompt_tokens);
        let cached_tokens = instance.cached_tokens(prompt_tokens, prefix.block_tokens, &prefix.blocks);
        let predict = |load: &InstanceLoad| {
            instance.estimator.predict(
                now,
                prompt_tokens - cached_tokens.min(prompt_tokens),
                length,
                quality,
                instance.price(),
                load,
            )
        };
        let mut prediction = predict(&load);
        prediction.forecast_output_tokens = forecast.map(|forecast| forecast.output_tokens.mean);
        check_prediction(request, &prediction.estimate, || {
            predict(&InstanceLoad::default()).estimate
        })?;
        Ok(Candidate {
            instance: instance.id,
            model: instance.model,
            load,
            slots: instance.estimator.slots(),
            kv_capacity_tokens: instance.estimator.kv_capacity_tokens(),
            cached_tokens,
            weight: instance.weight,
            alone_tpot_s: instance.estimator.alone_tpot_s(),
            prediction,
        })
    }

    fn soonest(&self) -> Candidate {
        let key = |candidate: &Candidate| candidate.estimate().e2e_s;
        let mut best = self.candidates[0];
        for candidate in &self.candidates[1..] {
            if key(candidate) < key(&best) {
                best = *candidate;
            }
        }
        best
    }

    fn refuse(&self, request: &Request, verdicts: &Verdicts) -> Placement {
        let reasons = verdicts.reasons();
        // A router that has just started knows nobody yet: that is no fault of the request.
        if self.fleet.iter().all(|instance| !instance.present) {
            return Placement::Refuse(Refusal::Unavailable { reasons });
        }
        if let Target::Model(model) = &request.target
            && self.fleet.model_id(model).is_none()
        {
            let served: Vec<&str> = self.fleet.served_models().map(|model| model.name.as_str()).collect();
            return Placement::Refuse(Refusal::UnknownModel {
                model: model.clone(),
                served: served.join(", "),
            });
        }
        if verdicts.any_over_budget()
            && let Some(tenant) = request.tenant.clone()
        {
            return Placement::Refuse(Refusal::BudgetExhausted {
                tenant,
                retry_after_s: 1,
                reasons,
            });
        }
        Placement::Refuse(if verdicts.is_outage() || verdicts.any_tried() {
            Refusal::Unavailable { reasons }
        } else {
            Refusal::Infeasible { reasons }
        })
    }
}
