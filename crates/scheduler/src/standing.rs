//! How every instance stands when a batch is decided: what does not depend on the request, worked out once for all of them.
//!
//! A large fleet's instances do not fit into a processor's cache, and a decision looks at all of them. These rows do, one
//! after the other; within a batch only the instance that gets a request changes.

use std::cell::OnceCell;

use equipoise_estimate::{InstanceLoad, Moment};
use equipoise_fleet::{Fleet, Instance, PeerView};
use equipoise_policy::{Constraint, check_instance};
use equipoise_types::{InstanceId, ModelId, Timestamp};

/// One instance's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) model: ModelId,
    /// Whether it takes anything at all.
    pub(crate) verdict: Result<(), Constraint>,
    pub(crate) present: bool,
    pub(crate) context_tokens: Option<u32>,
    pub(crate) slots: u32,
    /// Everybody's work on it. The company of its model changes with every request; see `Prospect`.
    pub(crate) load: InstanceLoad,
    pub(crate) peers: PeerView,
    /// The next request should show whether it serves again.
    awaits_trial: bool,
    /// Worked out when the first prediction asks for it: it costs more than all the rest.
    moment: OnceCell<Moment>,
}

impl Standing {
    // Built in its place: a large fleet's rows would otherwise be copied at every decision.
    #[inline(always)]
    pub(crate) fn of(now: Timestamp, fleet: &Fleet, instance: &Instance) -> Self {
        Self {
            model: instance.model,
            verdict: check_instance(now, fleet, instance),
            present: instance.present,
            context_tokens: instance.spec.model.context_tokens,
            slots: instance.slots(now),
            load: fleet.load(now, instance),
            peers: fleet.peers(now, instance),
            awaits_trial: instance.health.awaits_trial(now),
            moment: OnceCell::new(),
        }
    }

    /// What predictions of it, the instance, have in common.
    pub(crate) fn moment(&self, now: Timestamp, instance: &Instance) -> &Moment {
        self.moment.get_or_init(|| instance.estimator.moment(now, &self.load))
    }
}

/// Of all instances, by their ids, as of the last call of [`Standings::take`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Standings {
    rows: Vec<Standing>,
    /// None awaits a trial, as almost always.
    all_tried: bool,
}

impl Standings {
    /// Looks at the whole fleet.
    pub(crate) fn take(&mut self, now: Timestamp, fleet: &Fleet) {
        self.rows.clear();
        self.rows
            .extend(fleet.iter().map(|instance| Standing::of(now, fleet, instance)));
        self.all_tried = !self.rows.iter().any(|standing| standing.awaits_trial);
    }

    /// Looks at one instance again: its ledger has changed.
    pub(crate) fn renew(&mut self, now: Timestamp, fleet: &Fleet, id: InstanceId) {
        if let (Some(standing), Some(instance)) = (self.rows.get_mut(id.index()), fleet.instance(id)) {
            *standing = Standing::of(now, fleet, instance);
        }
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<&Standing> {
        self.rows.get(id.index())
    }

    /// Whether it is this instance's turn whatever the policy says.
    pub(crate) fn awaits_trial(&self, id: InstanceId) -> bool {
        !self.all_tried && self.get(id).is_some_and(|standing| standing.awaits_trial)
    }

    /// Whether some instance's is.
    pub(crate) fn any_awaits_trial(&self) -> bool {
        !self.all_tried
    }

    /// In the order of their ids, which are their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Standing)> {
        (0..).map(InstanceId).zip(&self.rows)
    }
}
