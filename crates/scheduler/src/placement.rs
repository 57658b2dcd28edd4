//! One decision: hard constraints, predictions, the policy's choice.

use equipoise_estimate::{Bounds, DEFAULT_CONFIDENCE, InstanceLoad, Moment, Prediction};
use equipoise_fleet::{Fleet, Instance};
use equipoise_policy::{
    Candidate, Choice, Constraint, Crowded, Policy, Request, Target, Targeted, Verdicts, check, check_fit,
    check_prediction,
};
use equipoise_types::{InstanceId, ModelId, RandomStream, Timestamp};

use crate::Refusal;
use crate::prospect::{Asked, Prospect, Prospects};
use crate::standing::{Standing, Standings};
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
    /// Of this moment.
    pub(crate) standings: &'a Standings,
    pub(crate) late_binding: bool,
    /// Since the request arrived at the router.
    pub(crate) waited_s: f64,
    /// What each model is expected to make of it.
    pub(crate) prospects: Prospects,
    /// What its tenant may still spend, where that is bounded.
    pub(crate) left: Option<Left>,
    /// Requests that wait at the router before this one.
    pub(crate) ahead: u32,
    /// Only the candidate that is taken is predicted: nobody will look at the others.
    pub(crate) terse: bool,
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
        let targeted = Targeted::of(self.fleet, request);
        let leaves_full = self.late_binding && !policy.binds_late();
        let mut candidates = std::mem::take(self.candidates);
        candidates.clear();
        self.ruled_out.clear();
        for (id, standing) in self.standings.iter() {
            if let Err(constraint) = self.candidate(request, targeted, tried, (id, standing), 0, &mut candidates) {
                verdicts.note(constraint);
                self.ruled_out.push((id, constraint));
            } else if leaves_full && candidates.pop_if(|candidate| candidate.is_saturated()).is_some() {
                saturated = true;
            }
        }
        *self.candidates = candidates;
        if !self.terse {
            self.stand_in_line(request, targeted, tried, &mut verdicts);
            self.crowd(request);
        }
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
            Choice::Wait => Placement::Take(self.taken(request, &self.soonest()), None),
            // Who looks at loads alone comes to an empty instance by itself.
            Choice::Take { index, score } if policy.looks_at_load_only() => {
                Placement::Take(self.taken(request, &self.candidates[index]), score)
            }
            Choice::Take { index, score } => match self.on_trial(request, tried, index) {
                Some(other) => {
                    let score = policy.score(request, other);
                    Placement::Take(self.taken(request, other), score)
                }
                None => Placement::Take(self.taken(request, &self.candidates[index]), score),
            },
        }
    }

    /// Who gets one request before the policy's choice does, of the same model: it was away, and this is how to know that
    /// it is back. A second try is no time for experiments, and neither is a request that is held to something.
    fn on_trial(&self, request: &Request, tried: &[InstanceId], chosen: usize) -> Option<&Candidate> {
        if !self.standings.any_awaits_trial() || !tried.is_empty() || !request.wishes.are_plain() {
            return None;
        }
        let model = self.candidates[chosen].model;
        let awaits = |candidate: &&Candidate| {
            candidate.model == model && !candidate.is_saturated() && self.standings.awaits_trial(candidate.instance)
        };
        self.candidates.iter().find(awaits)
    }

    /// A policy that looks at loads alone has taken an instance from the roster: predicts that one. `others`: every model that
    /// could have answered, by an instance.
    pub(crate) fn take_by_load(
        &mut self,
        request: &Request,
        id: InstanceId,
        others: impl Iterator<Item = (ModelId, InstanceId)>,
    ) -> Option<Placement> {
        self.candidates.clear();
        self.ruled_out.clear();
        for (model, other) in others {
            if model == self.fleet.instance(id)?.model {
                continue;
            }
            let (instance, prospect) = (self.fleet.instance(other)?, self.prospects.with_model(model)?);
            let standing = Standing::of(self.now, self.fleet, instance);
            let candidate = candidate_of(instance, &standing, standing.load, 0, prospect.unpredicted());
            self.candidates.push(candidate);
        }
        let instance = self.fleet.instance(id)?;
        let standing = Standing::of(self.now, self.fleet, instance);
        let prospect = self.prospects.with_model(instance.model)?;
        let mut load = standing.load;
        load.company = prospect.company;
        let cached = cached_tokens(request, instance);
        let prediction = if self.fleet.is_blind() {
            prospect.unpredicted()
        } else {
            let of = (instance, standing.moment(self.now, instance));
            let mut prediction = Self::predict(self.now, self.fleet, self.asked(request), prospect, of, cached, &load);
            prediction.estimate.bounds = Self::bounds(self.now, self.fleet, request, instance, &prediction);
            prediction
        };
        let candidate = candidate_of(instance, &standing, load, cached, prediction);
        Some(Placement::Take(Box::new(candidate), None))
    }

    /// Whoever waits before this request will take the next free slots: a full instance is predicted with its share of
    /// them, so that a line is not mistaken for a short wait.
    fn stand_in_line(&mut self, request: &Request, targeted: Targeted, tried: &[InstanceId], verdicts: &mut Verdicts) {
        let full = self.candidates.iter().filter(|candidate| candidate.is_saturated());
        let slots: f64 = full.map(|candidate| f64::from(candidate.slots)).sum();
        if self.ahead == 0 || slots <= 0.0 {
            return;
        }
        let mut in_line = std::mem::take(self.candidates);
        let mut predicted = Vec::with_capacity(1);
        in_line.retain_mut(|candidate| {
            if !candidate.is_saturated() {
                return true;
            }
            let share = f64::from(self.ahead) * f64::from(candidate.slots) / slots;
            let Some(standing) = self.standings.get(candidate.instance) else {
                return false;
            };
            let (of, ahead) = ((candidate.instance, standing), share.ceil() as u32);
            if let Err(constraint) = self.candidate(request, targeted, tried, of, ahead, &mut predicted) {
                verdicts.note(constraint);
                self.ruled_out.push((candidate.instance, constraint));
                return false;
            }
            predicted.pop().is_some_and(|later| {
                *candidate = later;
                true
            })
        });
        *self.candidates = in_line;
    }

    fn asked<'s>(&'s self, request: &'s Request) -> Asked<'s> {
        Asked {
            request,
            waited_s: self.waited_s,
            prospects: &self.prospects,
        }
    }

    /// Adds the candidate that an instance is to `candidates`: built in its place, for it is large.
    fn candidate(
        &self,
        request: &Request,
        targeted: Targeted,
        tried: &[InstanceId],
        (id, standing): (InstanceId, &Standing),
        in_line: u32,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), Constraint> {
        if !targeted.includes(standing.model) {
            return Err(Constraint::Model);
        }
        standing.verdict?;
        let instance = self.fleet.instance(id).ok_or(Constraint::Gone)?;
        check_fit(instance, standing.context_tokens, request)?;
        if tried.contains(&id) {
            return Err(Constraint::Tried);
        }
        let mut load = standing.load;
        load.in_flight = load.in_flight.saturating_add(in_line);
        let asked = self.asked(request);
        if self.terse {
            // An instance without a model serves nobody.
            let prospect = self.prospects.with_model(standing.model).ok_or(Constraint::Model)?;
            load.company = prospect.company;
            let prediction = prospect.unpredicted();
            // What is cached there is looked up for the one that is taken.
            candidates.push(candidate_of(instance, standing, load, 0, prediction));
            return Ok(());
        }
        Self::beside(self.now, self.fleet, asked, instance, standing, load, candidates)?;
        if let Some(left) = self.left
            && candidates.pop_if(|candidate| !left.allows(candidate)).is_some()
        {
            return Err(Constraint::Budget);
        }
        Ok(())
    }

    /// Adds the candidate that an instance is beside `load` to `candidates`, if its prediction meets the request's wishes.
    pub(crate) fn beside(
        now: Timestamp,
        fleet: &Fleet,
        asked: Asked<'_>,
        instance: &Instance,
        standing: &Standing,
        mut load: InstanceLoad,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), Constraint> {
        // `check` has looked the model up; an instance without one serves nobody.
        let prospect = asked.prospects.with_model(instance.model).ok_or(Constraint::Model)?;
        let cached_tokens = cached_tokens(asked.request, instance);
        load.company = prospect.company;
        let moment = standing.moment(now, instance);
        let prediction = Self::predict(now, fleet, asked, prospect, (instance, moment), cached_tokens, &load);
        let idle = || {
            let idle = InstanceLoad::default();
            Self::predict(now, fleet, asked, prospect, (instance, moment), cached_tokens, &idle)
                .estimate
                .bounds
        };
        check_prediction(asked.request, asked.waited_s, &prediction.estimate, idle)?;
        candidates.push(candidate_of(instance, standing, load, cached_tokens, prediction));
        Ok(())
    }

    fn predict(
        now: Timestamp,
        fleet: &Fleet,
        asked: Asked<'_>,
        prospect: &Prospect,
        (instance, moment): (&Instance, &Moment),
        cached_tokens: u32,
        load: &InstanceLoad,
    ) -> Prediction {
        let request = asked.request;
        let Prospect {
            length,
            quality,
            forecast_output_tokens,
            ..
        } = *prospect;
        let uncached = request.prompt_tokens.saturating_sub(cached_tokens);
        let (estimator, alone) = (&instance.estimator, &mut asked.prospects.alone());
        let mut prediction = estimator.predict_with(alone, moment, uncached, length, quality, instance.price(), load);
        prediction.forecast_output_tokens = forecast_output_tokens;
        // Bounds cost as much as all the rest: only who is held to one pays for them.
        if request.wishes.has_slo() {
            prediction.estimate.bounds = Self::bounds(now, fleet, request, instance, &prediction);
        }
        prediction
    }

    fn bounds(
        now: Timestamp,
        fleet: &Fleet,
        request: &Request,
        instance: &Instance,
        prediction: &Prediction,
    ) -> Bounds {
        let confidence = request.wishes.slo_confidence.unwrap_or(DEFAULT_CONFIDENCE);
        fleet.bounds(now, instance, prediction, confidence)
    }

    /// The candidate as it is dispatched: what is promised of it is bounded, whether or not somebody holds it to that.
    fn taken(&self, request: &Request, candidate: &Candidate) -> Box<Candidate> {
        let mut taken = Box::new(*candidate);
        if let Some(instance) = self.fleet.instance(taken.instance) {
            if self.terse
                && !self.fleet.is_blind()
                && let Some(prospect) = self.prospects.with_model(taken.model)
                && let Some(standing) = self.standings.get(taken.instance)
            {
                taken.cached_tokens = cached_tokens(request, instance);
                let of = (instance, standing.moment(self.now, instance));
                let (asked, cached) = (self.asked(request), taken.cached_tokens);
                taken.prediction = Self::predict(self.now, self.fleet, asked, prospect, of, cached, &taken.load);
            }
            let bounds = Self::bounds(self.now, self.fleet, request, instance, &taken.prediction);
            taken.prediction.estimate.bounds = bounds;
        }
        taken
    }

    /// How long after its arrival some instance, if it were idle then, could still take the request within its SLO,
    /// seconds; `None` where it has none, or nobody is there to say.
    pub(crate) fn longest_wait_s(&self, request: &Request) -> Option<f64> {
        if !request.wishes.has_slo() {
            return None;
        }
        let targeted = Targeted::of(self.fleet, request);
        let able = self.fleet.iter().filter_map(|instance| {
            check(self.now, self.fleet, instance, request, targeted).ok()?;
            let idle = InstanceLoad::default();
            let moment = instance.estimator.moment(self.now, &idle);
            let idle = Self::predict(
                self.now,
                self.fleet,
                self.asked(request),
                self.prospects.with_model(instance.model)?,
                (instance, &moment),
                cached_tokens(request, instance),
                &idle,
            );
            Some(request.wishes.slo_slack_s(0.0, &idle.estimate.bounds))
        });
        able.reduce(f64::max)
    }

    /// Other routers have sent what they have not reported yet. Where to is not known: predicts every candidate once more
    /// as if all of it were there.
    fn crowd(&mut self, request: &Request) {
        let newcomers: f64 = self.candidates.iter().map(|candidate| candidate.peers.newcomers).sum();
        if newcomers < 0.5 {
            return;
        }
        let mut crowded = std::mem::take(self.candidates);
        for candidate in &mut crowded {
            let (Some(instance), Some(standing)) = (
                self.fleet.instance(candidate.instance),
                self.standings.get(candidate.instance),
            ) else {
                continue;
            };
            let of = (instance, standing.moment(self.now, instance));
            let mut load = candidate.load;
            let output_tokens = newcomers * candidate.estimate().output_tokens;
            load.in_flight = load.in_flight.saturating_add(newcomers.ceil() as u32);
            load.pending_decode_tokens = load.pending_decode_tokens.saturating_add(output_tokens as u64);
            let cached = candidate.cached_tokens;
            let asked = self.asked(request);
            let crowd = self
                .prospects
                .with_model(instance.model)
                .map(|prospect| Self::predict(self.now, self.fleet, asked, prospect, of, cached, &load));
            candidate.crowded = crowd.map(|crowd| Crowded::of(newcomers, &crowd.estimate));
        }
        *self.candidates = crowded;
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
        if verdicts.is_late() {
            let waited_ms = (1e3 * self.waited_s) as u64;
            return Placement::Refuse(Refusal::SloMissed {
                reasons,
                waited_ms,
                retry_after_s: 1,
            });
        }
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

fn candidate_of(
    instance: &Instance,
    standing: &Standing,
    load: InstanceLoad,
    cached_tokens: u32,
    prediction: Prediction,
) -> Candidate {
    Candidate {
        instance: instance.id,
        model: instance.model,
        load,
        slots: standing.slots,
        kv_capacity_tokens: instance.estimator.kv_capacity_tokens(),
        cached_tokens,
        weight: instance.weight,
        alone_tpot_s: instance.estimator.alone_tpot_s(),
        peers: standing.peers,
        crowded: None,
        prediction,
    }
}

/// Prompt tokens that the instance has probably computed already.
fn cached_tokens(request: &Request, instance: &Instance) -> u32 {
    let prefix = &request.prefix;
    instance.cached_tokens(request.prompt_tokens, prefix.block_tokens, &prefix.blocks)
}
