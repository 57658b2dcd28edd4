//! Decisions of policies that look at loads alone: from the roster, without a look at every instance.

use equipoise_policy::{Request, Targeted};
use equipoise_types::{InstanceId, RequestId, Timestamp};

use super::Scheduler;
use crate::Event;
use crate::placement::Placement;
use crate::queue::Pending;
use crate::roster::Room;

/// A choice that was made before its event came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreseen {
    now: Timestamp,
    request: RequestId,
    instance: InstanceId,
}

/// What a scheduler will look at in its ledger because of an event, beside counts of requests: tokens of answers, that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// At nothing.
    Nothing,
    /// At one instance.
    Of(InstanceId),
    /// Perhaps at every one.
    Everything,
}

impl Scheduler {
    /// What it will look at because of `event`, so that who drives it need not tell it more of how answers get on. The event
    /// must follow, at the same time.
    pub fn foresee(&mut self, now: Timestamp, event: &Event) -> Sight {
        if self.is_blind() {
            return Sight::Nothing;
        }
        let requests = match event {
            Event::Arrived(requests) => requests,
            Event::FirstToken { .. } | Event::Tokens { .. } | Event::Feedback { .. } => return Sight::Nothing,
            Event::Finished { .. } | Event::Fleet(_) if self.queue.is_empty() => return Sight::Nothing,
            _ => return Sight::Everything,
        };
        let due = [self.batch_due, self.queue_poll];
        let alone = self.arrivals.is_empty() && self.policy.batching().window_s <= 0.0;
        let [request] = &requests[..] else {
            return Sight::Everything;
        };
        let bound = request
            .tenant
            .as_ref()
            .is_some_and(|name| self.config.tenants.contains_key(name));
        let quiet = due.into_iter().flatten().all(|due| due > now);
        if !alone || bound || !quiet || !self.is_terse(request, 0) || !self.queue.is_empty() || self.knows(request.id) {
            return Sight::Everything;
        }
        self.fleet.advance(now);
        match self.choose_by_load(now, request) {
            Some(Some(instance)) => {
                self.foreseen = Some(Foreseen {
                    now,
                    request: request.id,
                    instance,
                });
                Sight::Of(instance)
            }
            Some(None) => Sight::Nothing,
            None => Sight::Everything,
        }
    }

    /// Whether nobody ever sees what is predicted of the instances that a decision passes over.
    pub(super) fn looks_at_load_only(&self) -> bool {
        !self.explains && self.policy.looks_at_load_only() && self.config.exploration.share <= 0.0
    }

    /// Whether a decision is about loads alone, with so many requests ahead of it.
    pub(super) fn is_terse(&self, request: &Request, ahead: u32) -> bool {
        let shown_free_ones = self.config.late_binding && !self.policy.binds_late();
        self.looks_at_load_only() && request.wishes.are_plain() && (ahead == 0 || shown_free_ones)
    }

    /// Decides from the roster; `None` where that does not do.
    pub(super) fn decide_by_load(&mut self, now: Timestamp, pending: &Pending, ahead: u32) -> Option<Placement> {
        let request = &pending.request;
        let foreseen = self.foreseen.take();
        let bounded = self.tenants.left(now, request.tenant.as_deref()).is_some();
        if !self.is_terse(request, ahead) || !pending.tried.is_empty() || bounded {
            return None;
        }
        let instance = match foreseen.filter(|foreseen| (foreseen.now, foreseen.request) == (now, request.id)) {
            Some(foreseen) => foreseen.instance,
            None => match self.choose_by_load(now, request)? {
                Some(instance) => instance,
                None => return Some(Placement::Wait),
            },
        };
        // The roster is lent out beside the rest.
        let roster = std::mem::take(&mut self.roster);
        let placement = self
            .decision(now, pending, ahead)
            .0
            .take_by_load(request, instance, roster.of_models());
        self.roster = roster;
        placement
    }

    /// The policy's choice from the roster; within, `None` where all are full.
    fn choose_by_load(&mut self, now: Timestamp, request: &Request) -> Option<Option<InstanceId>> {
        let leaves_full = self.config.late_binding && !self.policy.binds_late();
        self.roster.renew(now, &mut self.fleet, leaves_full);
        match self.roster.room(request, Targeted::of(&self.fleet, request)) {
            Room::At(rows) => {
                let index = self.policy.choose_by_load(rows, &mut self.random)?;
                Some(rows.get(index).map(|row| row.instance))
            }
            Room::Full => Some(None),
            Room::Unsure => None,
        }
    }
}
