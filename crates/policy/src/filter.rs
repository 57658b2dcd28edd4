//! Hard constraints: what an instance must have before any score is looked at. Each refusal has a reason.

use equipoise_estimate::{Bounds, Estimate};
use equipoise_fleet::{Fleet, Instance};
use equipoise_types::{ModelId, Timestamp};

use crate::{Request, Target};

/// Why an instance cannot take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constraint {
    /// It serves another model.
    Model,
    /// It was removed.
    Gone,
    /// An operator drains it, or gave it no weight.
    Draining,
    /// Its probe fails.
    Unhealthy,
    /// Requests sent there failed in a row; it comes back by itself within seconds.
    Ejected,
    /// It was tried for this request already.
    Tried,
    /// It is not among those that whoever asks offers.
    NotOffered,
    /// It lacks a label the request asks for.
    Label,
    /// It lacks a capability that the request needs.
    Capability,
    /// Prompt and answer do not fit its context.
    Context,
    /// Its answers are predicted to be worse than asked for.
    Quality,
    /// It is predicted to cost more than allowed.
    Cost,
    /// It is predicted to cost more dollars or joules than the tenant has left.
    Budget,
    /// It is predicted to be too slow for the SLO even when idle.
    TooSlow,
    /// It could have met the SLO; the request has waited too long for that.
    TooLate,
    /// It is predicted to miss the SLO with what it has to do now.
    BusyForSlo,
}

impl Constraint {
    /// All of them, in order.
    pub const ALL: [Self; 16] = [
        Self::Model,
        Self::Gone,
        Self::Draining,
        Self::Unhealthy,
        Self::Ejected,
        Self::Tried,
        Self::NotOffered,
        Self::Label,
        Self::Capability,
        Self::Context,
        Self::Quality,
        Self::Cost,
        Self::Budget,
        Self::TooSlow,
        Self::TooLate,
        Self::BusyForSlo,
    ];

    /// True where time alone mends it soon: waiting at the router makes sense.
    #[must_use]
    pub fn passes_soon(self) -> bool {
        matches!(self, Self::Ejected | Self::BusyForSlo)
    }

    /// True where the fleet is at fault, not the request.
    #[must_use]
    pub fn is_outage(self) -> bool {
        matches!(self, Self::Gone | Self::Draining | Self::Unhealthy | Self::Ejected)
    }

    /// A short name, for tables.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Model => "other_model",
            Self::Gone => "gone",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Tried => "tried",
            Self::NotOffered => "not_offered",
            Self::Label => "label",
            Self::Capability => "capability",
            Self::Context => "context",
            Self::Quality => "quality_floor",
            Self::Cost => "cost_limit",
            Self::Budget => "tenant_budget",
            Self::TooSlow => "slo_never",
            Self::TooLate => "slo_late",
            Self::BusyForSlo => "slo_busy",
        }
    }

    /// In words, for a client.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Model => "of another model",
            Self::Gone => "gone",
            Self::Draining => "draining or without weight",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected after failures in a row",
            Self::Tried => "tried already",
            Self::NotOffered => "not among those it may go to",
            Self::Label => "without a label it asks for",
            Self::Capability => "without a capability it needs (tools, images, audio or structured answers)",
            Self::Context => "with too short a context for it",
            Self::Quality => "below its quality floor",
            Self::Cost => "above its cost limit",
            Self::Budget => "above what its tenant has left to spend",
            Self::TooSlow => "too slow for its SLO even when idle",
            Self::TooLate => "too slow for what is left of its SLO",
            Self::BusyForSlo => "too busy for its SLO",
        }
    }
}

/// The models that a request may go to: its target, looked up once for all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targeted {
    /// Any.
    Any,
    /// This one; `None`: one that nobody has.
    Only(Option<ModelId>),
}

impl Targeted {
    /// The target of a request.
    #[must_use]
    pub fn of(fleet: &Fleet, request: &Request) -> Self {
        match &request.target {
            Target::Auto => Self::Any,
            Target::Model(name) => Self::Only(fleet.model_id(name)),
        }
    }

    /// True where requests may go to this model.
    #[must_use]
    pub fn includes(self, model: ModelId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(wanted) => wanted == Some(model),
        }
    }
}

/// Checks what does not need a prediction. `targeted`: the target of `request`.
///
/// # Errors
/// The first constraint that is not met.
pub fn check(
    now: Timestamp,
    fleet: &Fleet,
    instance: &Instance,
    request: &Request,
    targeted: Targeted,
) -> Result<(), Constraint> {
    if !targeted.includes(instance.model) {
        return Err(Constraint::Model);
    }
    check_instance(now, fleet, instance)?;
    check_fit(instance, instance.spec.model.context_tokens, request)
}

/// The part of [`check`] that no request has a say in: the same for a whole batch.
///
/// # Errors
/// The first constraint that is not met.
pub fn check_instance(now: Timestamp, fleet: &Fleet, instance: &Instance) -> Result<(), Constraint> {
    if !instance.present {
        return Err(Constraint::Gone);
    }
    if instance.draining || instance.weight <= 0.0 {
        return Err(Constraint::Draining);
    }
    if !instance.health.is_probed_healthy() {
        return Err(Constraint::Unhealthy);
    }
    if !instance.health.admits(now) {
        let panicking = fleet
            .model(instance.model)
            .is_some_and(equipoise_fleet::ModelState::is_panicking);
        if !panicking {
            return Err(Constraint::Ejected);
        }
    }
    Ok(())
}

/// The part of [`check`] that is about a request's wishes. `context_tokens`: the instance's, which a caller may have at hand.
///
/// # Errors
/// The first constraint that is not met.
pub fn check_fit(instance: &Instance, context_tokens: Option<u32>, request: &Request) -> Result<(), Constraint> {
    if !request.wishes.only.is_empty() && !request.wishes.only.contains(&instance.spec.name) {
        return Err(Constraint::NotOffered);
    }
    let labels = &instance.spec.labels;
    let carries = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    if !request.wishes.labels.iter().all(carries) {
        return Err(Constraint::Label);
    }
    if !request.wishes.needs.iter().all(|need| need.is_in(labels)) {
        return Err(Constraint::Capability);
    }
    if let Some(context) = context_tokens {
        // An answer of unknown length needs at least one token.
        let wanted = u64::from(request.prompt_tokens) + u64::from(request.max_output_tokens.unwrap_or(1).max(1));
        if wanted > u64::from(context) {
            return Err(Constraint::Context);
        }
    }
    Ok(())
}

/// Checks what needs a prediction. `waited_s`: since the request arrived at the router; an SLO counts from there and is
/// held against the bounds of `loaded`, not its means. `idle`: the bounds of the same instance without load.
///
/// # Errors
/// The first constraint that is not met.
pub fn check_prediction(
    request: &Request,
    waited_s: f64,
    loaded: &Estimate,
    idle: impl FnOnce() -> Bounds,
) -> Result<(), Constraint> {
    let wishes = &request.wishes;
    if wishes.quality_min.is_some_and(|floor| loaded.quality < floor) {
        return Err(Constraint::Quality);
    }
    if wishes.cost_max_usd.is_some_and(|limit| loaded.cost_usd > limit) {
        return Err(Constraint::Cost);
    }
    if wishes.slo_slack_s(waited_s, &loaded.bounds) >= 0.0 {
        return Ok(());
    }
    let at_best_s = wishes.slo_slack_s(0.0, &idle());
    Err(if at_best_s < 0.0 {
        Constraint::TooSlow
    } else if at_best_s < waited_s {
        Constraint::TooLate
    } else {
        Constraint::BusyForSlo
    })
}

/// How many instances failed which constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts([u32; Constraint::ALL.len()]);

impl Verdicts {
    /// Counts one.
    pub fn note(&mut self, constraint: Constraint) {
        self.0[constraint as usize] += 1;
    }

    fn count(&self, constraint: Constraint) -> u32 {
        self.0[constraint as usize]
    }

    fn any(&self, which: impl Fn(Constraint) -> bool) -> bool {
        Constraint::ALL
            .into_iter()
            .any(|constraint| which(constraint) && self.count(constraint) > 0)
    }

    /// True where waiting may mend at least one.
    #[must_use]
    pub fn passes_soon(&self) -> bool {
        self.any(Constraint::passes_soon)
    }

    /// True where at least one instance would take the request if the fleet were well.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.any(Constraint::is_outage)
    }

    /// True where at least one instance could have met the SLO of a request that had not waited.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.count(Constraint::TooLate) > 0
    }

    /// True where a tenant with more left would be served.
    #[must_use]
    pub fn any_over_budget(&self) -> bool {
        self.count(Constraint::Budget) > 0
    }

    /// True where at least one instance has failed this very request.
    #[must_use]
    pub fn any_tried(&self) -> bool {
        self.count(Constraint::Tried) > 0
    }

    /// In words: `2 draining or without weight, 1 unhealthy`; what serves another model is nobody's concern.
    #[must_use]
    pub fn reasons(&self) -> String {
        let parts: Vec<String> = Constraint::ALL
            .into_iter()
            .filter(|constraint| *constraint != Constraint::Model && self.count(*constraint) > 0)
            .map(|constraint| format!("{} {}", self.count(constraint), constraint.reason()))
            .collect();
        if parts.is_empty() {
            "none is registered".to_owned()
        } else {
            parts.join(", ")
        }
    }
}
