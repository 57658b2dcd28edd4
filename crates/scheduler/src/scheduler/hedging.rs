//! A request that is out and late goes out a second time, under an id of its own.

use equipoise_types::{RequestId, Timestamp};

use super::{Action, Pending, Placement, Refusal, Scheduler};

impl Scheduler {
    /// Sends `request` a second time, as `twin`, to another instance that is free, if the retry budget allows it; else
    /// refuses the twin. Both are booked and charged from here on, and each ends by itself.
    pub(super) fn hedge(&mut self, now: Timestamp, request: RequestId, twin: RequestId, actions: &mut Vec<Action>) {
        let Some((pending, instance)) = self.twin_of(request, twin) else {
            return refuse(twin, actions);
        };
        if !self.retries.allows(now, self.out.len()) {
            return refuse(twin, actions);
        }
        self.begin_batch(now);
        let ahead = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        match self.decide(now, &pending, ahead) {
            // Who waits in a full engine is no sooner there than here.
            Placement::Take(candidate, score) if !candidate.is_saturated() && candidate.instance != instance => {
                self.retries.spend(now);
                self.dispatch(now, pending, &candidate, score, actions);
            }
            _ => refuse(twin, actions),
        }
    }

    fn twin_of(&self, request: RequestId, twin: RequestId) -> Option<(Pending, equipoise_types::InstanceId)> {
        let pending = self.out.get(&request)?;
        let instance = self.fleet.ledger().booking(request)?.instance;
        if self.knows(twin) || pending.gated.is_some() {
            return None;
        }
        let mut pending = pending.clone();
        pending.request.id = twin;
        pending.tried.push(instance);
        // Its answer says nothing of a failure of the first.
        pending.suspect = None;
        pending.owes_retry = false;
        Some((pending, instance))
    }
}

/// The reason is for the driver alone: nobody waits for a twin.
fn refuse(twin: RequestId, actions: &mut Vec<Action>) {
    actions.push(Action::Refuse {
        request: twin,
        reason: Refusal::Unavailable {
            reasons: "nobody else is free".to_owned(),
        },
    });
}

#[cfg(test)]
mod tests {
    use equipoise_types::InstanceId;

    use super::super::tests::{Stage, request, spec};
    use super::*;
    use crate::{Event, RetrySettings, SchedulerConfig};

    fn stage(config: SchedulerConfig) -> Stage {
        Stage::new(config, &[spec("a", "m", 1, None), spec("b", "m", 1, None)])
    }

    fn hedge(stage: &mut Stage, request: u64, twin: u64) -> Option<(RequestId, InstanceId)> {
        let (request, twin) = (RequestId(request), RequestId(twin));
        let actions = stage.on(Event::Hedged { request, twin });
        assert_eq!(actions.len(), 1, "one answer, at once: {actions:?}");
        match &actions[0] {
            Action::Dispatch(dispatch) => Some((dispatch.request, dispatch.instance)),
            _ => None,
        }
    }

    #[test]
    fn a_twin_goes_elsewhere_and_each_ends_by_itself() {
        let mut stage = stage(SchedulerConfig::default());
        stage.arrive(request(0));
        assert_eq!(hedge(&mut stage, 0, 1), Some((RequestId(1), InstanceId(1))));
        assert_eq!(stage.scheduler.in_flight(), 2);
        assert_eq!(hedge(&mut stage, 0, 2), None, "nobody else is free");
        assert_eq!(hedge(&mut stage, 7, 2), None, "nobody knows it");
        stage.on(Event::Cancelled { request: RequestId(0) });
        assert_eq!(stage.scheduler.in_flight(), 1);
        stage.on(Event::Finished {
            request: RequestId(1),
            usage: None,
        });
        assert_eq!(stage.scheduler.in_flight(), 0);
        assert!(stage.scheduler.fleet().ledger().is_empty());
    }

    #[test]
    fn twins_are_paid_from_the_retry_budget() {
        let retries = RetrySettings {
            share: 1.0,
            floor_per_s: 0.0,
        };
        let mut stage = stage(SchedulerConfig {
            retries,
            ..SchedulerConfig::default()
        });
        stage.arrive(request(0));
        // One that came and one that is out: two.
        for twin in [1, 2] {
            assert!(hedge(&mut stage, 0, twin).is_some(), "twin {twin}");
            stage.on(Event::Cancelled {
                request: RequestId(twin),
            });
        }
        assert_eq!(hedge(&mut stage, 0, 3), None);
    }
}
