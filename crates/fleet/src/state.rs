//! The fleet: all instances and models of one scheduler, and the ledger over them.

use std::collections::BTreeMap;

use equipoise_engine::{DeclaredEngine, Serving, StepModel};
use equipoise_estimate::{
    Bounds, Calibration, Company, InstanceEstimator, InstanceLoad, LengthPredictor, Observation, Prediction,
    QualityPredictor,
};
use equipoise_predict::canonical_model_name;
use equipoise_types::{InstanceId, ModelId, RequestId, Timestamp};
use indexmap::IndexMap;

use crate::changes::Changes;
use crate::{EngineSample, FleetDelta, Instance, InstanceSpec, Ledger, LimitsSpec, PeerView, Released};

/// What is known of one served model.
#[derive(Clone, Debug)]
pub struct ModelState {
    /// The name clients ask for.
    pub name: String,
    /// The same as predictors write it.
    pub canonical_name: String,
    /// Predicts the quality of its answers.
    pub quality: QualityPredictor,
    /// Predicts the length of its answers.
    pub length: LengthPredictor,
    /// Mean batch that its requests join.
    company: Company,
    present: u32,
    ejected: u32,
}

impl ModelState {
    /// More than half of its instances are ejected: then the fault is likely elsewhere, and ejections do not count.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        2 * self.ejected > self.present
    }

    /// Mean batch that its requests joined lately, at least 1.
    #[must_use]
    pub fn company(&self, now: Timestamp) -> f64 {
        self.company.batch(now)
    }

    /// Somebody served it when time was advanced last.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.present > 0
    }
}

/// A delta that does not fit the fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// It speaks of an instance that was never declared.
    #[error("no instance is called `{0}`; declare it before it is observed")]
    UnknownInstance(String),
}

/// Model, GPU, parallelism, limits, measured table and serving as text: what the physics of an instance depends on.
type Tier = (String, String, u32, LimitsSpec, Option<String>, String);

/// All state about instances. Owned by the scheduler.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    instances: Vec<Instance>,
    by_name: BTreeMap<String, InstanceId>,
    models: IndexMap<String, ModelState>,
    ledger: Ledger,
    // Building a step model costs milliseconds: instances of a tier share it.
    physics: BTreeMap<Tier, Result<StepModel, String>>,
    telemetry_stale_s: f64,
    /// How far predictions were off per model, GPU and parallelism: what a new instance of the tier begins with.
    calibrations: IndexMap<(String, Option<String>, u32, String), Calibration>,
    /// Other routers that are alive, as of the last batch.
    peer_routers: u32,
    changes: Changes,
    /// Nobody asks for bounds.
    unbounded: bool,
    /// Nor for anything else that is estimated.
    blind: bool,
}

impl Fleet {
    /// An empty fleet; samples older than `telemetry_stale_s` say nothing about load any more.
    #[must_use]
    pub fn new(telemetry_stale_s: f64) -> Self {
        Self {
            telemetry_stale_s,
            ..Self::default()
        }
    }

    /// The same, for who never asks how far a prediction may be off.
    #[must_use]
    pub fn without_bounds(mut self) -> Self {
        self.unbounded = true;
        self
    }

    /// The same, for who never asks for an estimate: of requests that are out only their number is kept.
    #[must_use]
    pub fn without_estimates(mut self) -> Self {
        self.blind = true;
        self.ledger = self.ledger.without_times();
        self.without_bounds()
    }

    /// Whether nobody asks for estimates.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// How old a sample may be that still says something about load, seconds.
    pub fn set_telemetry_stale_s(&mut self, seconds: f64) {
        self.telemetry_stale_s = seconds;
    }

    /// Takes one change in.
    ///
    /// # Errors
    /// Where the delta speaks of an instance that was never declared; the fleet is then as it was.
    pub fn apply(&mut self, now: Timestamp, delta: FleetDelta) -> Result<(), FleetError> {
        match delta {
            FleetDelta::Upsert(spec) => self.upsert(now, spec),
            FleetDelta::Remove { name } => self.named(&name)?.present = false,
            FleetDelta::Admin { name, draining, weight } => {
                let instance = self.named(&name)?;
                instance.draining = draining;
                instance.weight = if weight.is_finite() { weight.max(0.0) } else { 1.0 };
            }
            FleetDelta::Sample { name, sample } => {
                let blind = self.blind;
                let instance = self.found(&name)?;
                let standing = |instance: &Instance| (instance.health, instance.foreign, instance.estimator.slots());
                let before = standing(instance);
                let power = sample.power.filter(|_| !blind);
                instance.observe_sample(now, EngineSample { power, ..sample });
                if standing(instance) != before {
                    self.named(&name)?;
                }
            }
            FleetDelta::Peers { name, load } => {
                let at = now - std::time::Duration::try_from_secs_f64(load.age_s).unwrap_or_default();
                self.named(&name)?.peers.report(at, load);
                self.changes.peers = true;
            }
        }
        Ok(())
    }

    fn found(&mut self, name: &str) -> Result<&mut Instance, FleetError> {
        let id = self.by_name.get(name).copied();
        id.and_then(|id| self.instances.get_mut(id.index()))
            .ok_or_else(|| FleetError::UnknownInstance(name.to_owned()))
    }

    /// To be changed.
    fn named(&mut self, name: &str) -> Result<&mut Instance, FleetError> {
        let id = self.found(name)?.id;
        let instance = &mut self.instances[id.index()];
        self.changes.note(instance);
        Ok(instance)
    }

    fn upsert(&mut self, now: Timestamp, spec: InstanceSpec) {
        let model = self.model_of(&spec);
        let tier = self.tier_of(&spec);
        let slots = spec.slots();
        let (physics, physics_error) = match self.physics_of(&spec) {
            Some(Ok(physics)) => (Some(physics), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let id = self.by_name.get(&spec.name).copied();
        let instance = if let Some(known) = id.and_then(|id| self.instances.get_mut(id.index())) {
            if !known.present {
                // Back from the dead: what it was told before does not hold; what was learned of it does.
                known.health = crate::Health::returned(now);
                known.sample = None;
                known.foreign = 0;
            }
            known.estimator.redeclare(physics, slots);
            known.present = true;
            known.model = model;
            known.tier = tier;
            known.spec = spec;
            known
        } else {
            let id = InstanceId(u32::try_from(self.instances.len()).unwrap_or(u32::MAX));
            self.by_name.insert(spec.name.clone(), id);
            self.instances.push(Instance::new(
                id,
                model,
                tier,
                spec,
                InstanceEstimator::new(physics, slots),
            ));
            let last = self.instances.len() - 1;
            &mut self.instances[last]
        };
        instance.physics_error = physics_error;
        self.changes.note(instance);
    }

    fn model_of(&mut self, spec: &InstanceSpec) -> ModelId {
        let profile = &spec.model;
        let entry = self.models.entry(profile.name.clone());
        let index = entry.index();
        let state = entry.or_insert_with(|| ModelState {
            name: profile.name.clone(),
            canonical_name: canonical_model_name(&profile.name),
            quality: QualityPredictor::new(profile.quality),
            length: LengthPredictor::new(profile.mean_output_tokens),
            company: Company::default(),
            present: 0,
            ejected: 0,
        });
        if profile.quality.is_some() {
            state.quality.redeclare(profile.quality);
        }
        ModelId(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn tier_of(&mut self, spec: &InstanceSpec) -> usize {
        let tier = (
            spec.model.name.clone(),
            spec.gpu.clone(),
            spec.tensor_parallel,
            serving_text(spec),
        );
        let entry = self.calibrations.entry(tier);
        let index = entry.index();
        entry.or_default();
        index
    }

    /// What the times of a prediction for an instance stay below with `confidence`.
    #[must_use]
    pub fn bounds(&self, now: Timestamp, instance: &Instance, prediction: &Prediction, confidence: f64) -> Bounds {
        // Every instance has a tier; one without would be predicted as well as can be, not better.
        let tier = self.calibrations.get_index(instance.tier).filter(|_| !self.unbounded);
        tier.map_or(prediction.estimate.bounds, |(_, tier)| {
            instance.estimator.bounds(tier, now, prediction, confidence)
        })
    }

    /// `None`: nothing is declared. `Some(Err)`: it is, and does not work out.
    fn physics_of(&mut self, spec: &InstanceSpec) -> Option<Result<StepModel, String>> {
        let (architecture, gpu_name) = (spec.model.architecture.clone()?, spec.gpu.clone()?);
        let tier = (
            architecture,
            gpu_name,
            spec.tensor_parallel,
            spec.limits,
            spec.measured.clone(),
            serving_text(spec),
        );
        let physics = self
            .physics
            .entry(tier)
            .or_insert_with_key(|tier| step_model(tier, spec.serving.as_ref()));
        Some(physics.clone())
    }

    /// The instance of an id.
    #[must_use]
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(id.index())
    }

    /// The id of a name, also of instances that are gone.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<InstanceId> {
        self.by_name.get(name).copied()
    }

    /// All instances in order of their ids, also those that are gone.
    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter()
    }

    /// The model of an id.
    #[must_use]
    pub fn model(&self, id: ModelId) -> Option<&ModelState> {
        self.models.get_index(id.index()).map(|(_, model)| model)
    }

    /// The id of a model's name.
    #[must_use]
    pub fn model_id(&self, name: &str) -> Option<ModelId> {
        self.models
            .get_index_of(name)
            .map(|index| ModelId(u32::try_from(index).unwrap_or(u32::MAX)))
    }

    /// All models in order of their ids, also those that nobody serves any more.
    pub fn models(&self) -> impl Iterator<Item = &ModelState> {
        self.models.values()
    }

    /// The models that at least one present instance serves, in order of their ids.
    pub fn served_models(&self) -> impl Iterator<Item = &ModelState> {
        let served = |id: usize| {
            self.instances
                .iter()
                .any(|instance| instance.present && instance.model.index() == id)
        };
        self.models
            .values()
            .enumerate()
            .filter(move |(id, _)| served(*id))
            .map(|(_, model)| model)
    }

    /// The ledger of what this router sent.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Everybody's work on an instance: own bookings, and the larger of what other routers report and what telemetry
    /// shows beyond the own. In whose company a request would be there, the caller knows.
    #[must_use]
    pub fn load(&self, now: Timestamp, instance: &Instance) -> InstanceLoad {
        let mut load = self.ledger.load(now, instance.id);
        let mean_output = || {
            self.model(instance.model)
                .map_or(0.0, |model| model.length.predict(None).mean)
        };
        let sample = instance
            .sample
            .filter(|sample| now.secs_since(sample.at) <= self.telemetry_stale_s);
        let foreign = if sample.is_some() { instance.foreign } else { 0 };
        let peers = instance.peers.now(now);
        if let Some(work) = peers {
            load.in_flight = load.in_flight.saturating_add(work.in_flight.round() as u32);
            load.prefilling = load
                .prefilling
                .saturating_add(work.prefilling.round() as u32)
                .min(load.in_flight);
            load.pending_prefill_tokens = load.pending_prefill_tokens.saturating_add(work.prefill_tokens as u64);
            load.pending_decode_tokens = load.pending_decode_tokens.saturating_add(work.decode_tokens as u64);
            load.overdue_s = load.overdue_s.max(work.overdue_s);
        } else if foreign > 0 {
            load.in_flight = load.in_flight.saturating_add(foreign);
            let more = (f64::from(foreign) * mean_output() / 2.0) as u64;
            load.pending_decode_tokens = load.pending_decode_tokens.saturating_add(more);
        }
        if let (Some(sample), Some(capacity)) = (sample, instance.estimator.kv_capacity_tokens())
            && (foreign > 0 || peers.is_some_and(|work| work.in_flight > 0.0))
        {
            // Others' contexts are not in the own ledger: the engine's own count is the better one then.
            load.kv_tokens = load.kv_tokens.max((sample.value.kv_usage * capacity as f64) as u64);
        }
        if load.in_flight == 0 && instance.estimator.may_sleep() {
            load.idle_s = instance.idle_seconds(now);
        }
        load
    }

    /// What other routers mean for a decision on an instance.
    #[must_use]
    pub fn peers(&self, now: Timestamp, instance: &Instance) -> PeerView {
        if self.peer_routers == 0 {
            return PeerView::default();
        }
        PeerView {
            routers: self.peer_routers,
            own_in_flight: self.ledger.load(now, instance.id).in_flight,
            staying: instance.peers.staying(now),
            newcomers: instance.peers.newcomers(now, self.peer_routers),
            price: instance.peers.fresh(now).map_or(0.0, |(load, _)| load.price),
        }
    }

    /// Other routers that were alive when time was advanced last.
    #[must_use]
    pub fn peer_routers(&self) -> u32 {
        self.peer_routers
    }

    /// How old what others are known to have on an instance is, seconds; `None` without a report that is believed.
    #[must_use]
    pub fn peers_age_s(&self, now: Timestamp, instance: &Instance) -> Option<f64> {
        instance.peers.fresh(now).map(|(_, age_s)| age_s)
    }

    /// Lets time pass for what depends on it.
    pub fn advance(&mut self, now: Timestamp) {
        self.ledger.advance(now);
        let routers = |instance: &Instance| {
            let (load, _) = instance.peers.fresh(now)?;
            // A control plane that does not say how many: one at least, where anything is in flight.
            Some(load.routers.max(u32::from(load.in_flight > 0)))
        };
        if self.changes.peers {
            self.peer_routers = self.instances.iter().filter_map(routers).max().unwrap_or(0);
        }
        while let Some(id) = self.changes.uncounted.pop() {
            self.count(now, id);
        }
    }

    /// Counts a changed instance of its model. An open breaker does not close by time alone.
    fn count(&mut self, now: Timestamp, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(id.index()) else {
            return;
        };
        instance.listed.1 = false;
        let ejected = instance.health.breaker(now) != crate::Breaker::Closed;
        let counts = instance.present.then_some((instance.model, ejected));
        let counted = std::mem::replace(&mut instance.counted, counts);
        if counted == counts {
            return;
        }
        if let Some((model, ejected)) = counted
            && let Some((_, model)) = self.models.get_index_mut(model.index())
        {
            model.present -= 1;
            model.ejected -= u32::from(ejected);
        }
        if let Some((model, ejected)) = counts
            && let Some((_, model)) = self.models.get_index_mut(model.index())
        {
            model.present += 1;
            model.ejected += u32::from(ejected);
        }
    }

    /// Instances that may stand otherwise than when changes were [forgotten](Self::forget_changes) last, but for what time
    /// alone does and for progress of answers; each once.
    #[must_use]
    pub fn changed(&self) -> &[InstanceId] {
        &self.changes.listed
    }

    /// Nobody asks any more what has changed until now.
    pub fn forget_changes(&mut self) {
        for id in self.changes.listed.drain(..) {
            if let Some(instance) = self.instances.get_mut(id.index()) {
                instance.listed.0 = false;
            }
        }
    }

    /// Books a request before it is sent; `false` if it is out already.
    pub fn book(
        &mut self,
        now: Timestamp,
        request: RequestId,
        instance: InstanceId,
        prompt_tokens: u32,
        silent: bool,
        prediction: Prediction,
    ) -> bool {
        let booked = self
            .ledger
            .book(now, request, instance, prompt_tokens, silent, prediction);
        if booked {
            let model = self.instances.get(instance.index()).map(|instance| instance.model);
            if let Some((_, model)) = model.and_then(|model| self.models.get_index_mut(model.index())) {
                model.company.observe(now, prediction.in_flight);
                model.length.sent();
            }
            self.note_in_flight(now, instance);
            if let Some(instance) = self.instances.get_mut(instance.index()) {
                if !self.unbounded {
                    instance.estimator.sent(&prediction);
                }
                instance.health.dispatched(now, request);
                instance.peers.dispatched(now);
                if !self.unbounded
                    && let Some((_, tier)) = self.calibrations.get_index_mut(instance.tier)
                {
                    tier.sent(&prediction);
                }
            }
        }
        booked
    }

    /// A prompt with these blocks was sent to an instance: it will be in its prefix cache.
    pub fn note_prefix(&mut self, instance: InstanceId, blocks: &[u64]) {
        if let Some(instance) = self.instances.get_mut(instance.index()) {
            instance.note_prefix(blocks);
        }
    }

    /// The first token of a booked request came.
    pub fn first_token(&mut self, now: Timestamp, request: RequestId) {
        if self.blind {
            return;
        }
        let Some(booking) = self.ledger.first_token(now, request) else {
            return;
        };
        if !booking.silent && !self.unbounded {
            let ttft_s = now.secs_since(booking.dispatched_at);
            let instance = &mut self.instances[booking.instance.index()];
            instance.estimator.observe_first_token(now, &booking.prediction, ttft_s);
            if let Some((_, tier)) = self.calibrations.get_index_mut(instance.tier) {
                tier.observe_first_token(now, &booking.prediction, ttft_s);
            }
        }
    }

    /// More tokens of a booked request came.
    pub fn tokens(&mut self, request: RequestId, count: u32) {
        self.ledger.tokens(request, count);
    }

    /// A booked request was answered in full: releases it and learns from it.
    pub fn finished(&mut self, now: Timestamp, request: RequestId, output_tokens: Option<u32>) -> Option<Released> {
        let booking = self.release(now, request)?;
        self.length_closed(booking.instance);
        let output_tokens = output_tokens.or((booking.output_tokens > 0).then_some(booking.output_tokens));
        let observation = Observation {
            ttft_s: booking
                .first_token_at
                .filter(|_| !booking.silent)
                .map(|at| at.secs_since(booking.dispatched_at)),
            e2e_s: now.secs_since(booking.dispatched_at),
            output_tokens,
        };
        let instance = &mut self.instances[booking.instance.index()];
        instance.health.succeeded(now);
        instance
            .peers
            .answered(observation.ttft_s.unwrap_or(observation.e2e_s), observation.e2e_s);
        if !self.blind {
            instance.estimator.observe(now, &booking.prediction, &observation);
        }
        if !self.unbounded {
            instance.estimator.observe_error(now, &booking.prediction, &observation);
            if let Some((_, tier)) = self.calibrations.get_index_mut(instance.tier) {
                tier.observe_answer(now, &booking.prediction, &observation);
            }
        }
        if let (Some(tokens), Some((_, model))) = (output_tokens, self.models.get_index_mut(instance.model.index())) {
            model.length.observe(tokens);
            if let Some(forecast) = booking.prediction.forecast_output_tokens {
                model.length.observe_forecast(now, tokens, forecast);
            }
        }
        Some(booking)
    }

    fn length_closed(&mut self, instance: InstanceId) {
        let model = self.instances.get(instance.index()).map(|instance| instance.model);
        if let Some((_, model)) = model.and_then(|model| self.models.get_index_mut(model.index())) {
            model.length.closed();
        }
    }

    /// A booked request ended without an answer; `blame` the instance where it is at fault.
    pub fn abandoned(&mut self, now: Timestamp, request: RequestId, blame: bool) -> Option<Released> {
        let booking = self.release(now, request)?;
        self.length_closed(booking.instance);
        let instance = &mut self.instances[booking.instance.index()];
        let seen = booking.first_token_at.is_some() && !booking.silent;
        if !self.unbounded {
            instance.estimator.withdrawn(&booking.prediction, seen);
            if let Some((_, tier)) = self.calibrations.get_index_mut(instance.tier) {
                tier.withdrawn(&booking.prediction, seen);
            }
        }
        if blame {
            instance.health.failed(now);
        } else {
            instance.health.withdrawn(request);
        }
        Some(booking)
    }

    /// An outcome of one of a model's answers: what was predicted of it before any correction, and its score, both in
    /// [0, 1]. About `memory` outcomes are remembered.
    pub fn graded(&mut self, now: Timestamp, model: ModelId, memory: f64, base: f64, score: f64) {
        if let Some((_, model)) = self.models.get_index_mut(model.index()) {
            model.quality.observe(now, memory, base, score);
        }
    }

    /// An instance was found to be at fault after its booking had ended.
    pub fn blame(&mut self, now: Timestamp, instance: InstanceId) {
        if let Some(instance) = self.instances.get_mut(instance.index()) {
            instance.health.failed(now);
            self.changes.note(instance);
        }
    }

    fn release(&mut self, now: Timestamp, request: RequestId) -> Option<Released> {
        let booking = self.ledger.release(request)?;
        self.note_in_flight(now, booking.instance);
        Some(booking)
    }

    fn note_in_flight(&mut self, now: Timestamp, instance: InstanceId) {
        let in_flight = self.ledger.load(now, instance).in_flight;
        if let Some(instance) = self.instances.get_mut(instance.index()) {
            instance.note_in_flight(now, in_flight);
            self.changes.note(instance);
        }
    }
}

fn serving_text(spec: &InstanceSpec) -> String {
    spec.serving.as_ref().map_or_else(String::new, Serving::to_text)
}

fn step_model(
    (architecture, gpu_name, tensor_parallel, limits, measured, _): &Tier,
    serving: Option<&Serving>,
) -> Result<StepModel, String> {
    let declared = DeclaredEngine {
        model: architecture,
        gpu: gpu_name,
        tensor_parallel: *tensor_parallel,
        limits: limits.engine_limits(),
        measured: measured.as_deref(),
        serving,
    };
    declared.step_model().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
