//! What becomes of a first answer that was held back.

use equipoise_types::{RequestId, Timestamp};

use super::Scheduler;
use crate::placement::Placement;
use crate::{Action, TokenUsage};

impl Scheduler {
    /// The answer is there: its work is done and learned from, whatever becomes of it. Where it is not sure enough, a
    /// better model is asked, once; who has an answer is never refused for want of a better one.
    pub(super) fn judged(
        &mut self,
        now: Timestamp,
        request: RequestId,
        confidence: f64,
        usage: Option<TokenUsage>,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut pending) = self.out.swap_remove(&request) else {
            return;
        };
        if let Some(suspect) = pending.suspect.take() {
            self.fleet.blame(now, suspect);
        }
        let released = self
            .fleet
            .finished(now, request, usage.map(|usage| usage.output_tokens));
        self.settle(now, request, released, true, usage);
        let unsure = pending.gated.take().filter(|gated| {
            self.outcomes.note_confidence(gated.decision, confidence);
            // No number is not sure either.
            confidence.is_nan() || confidence < gated.gate.threshold
        });
        let better = unsure.and_then(|gated| {
            pending.escalated = true;
            // Better than what is there, or not at all.
            let floor = gated.quality.next_up();
            let wished = &mut pending.request.wishes.quality_min;
            *wished = Some(wished.map_or(floor, |least| least.max(floor)));
            self.begin_batch(now);
            match self.decide(now, &pending, 0) {
                Placement::Take(candidate, score) => Some((candidate, score)),
                Placement::Wait | Placement::Refuse(_) => None,
            }
        });
        match better {
            Some((candidate, score)) => self.dispatch(now, pending, &candidate, score, actions),
            None => actions.push(Action::Deliver { request }),
        }
        self.serve_queue(now, actions);
    }
}

#[cfg(test)]
mod tests {
    use equipoise_fleet::{InstanceSpec, Price};
    use equipoise_policy::{PolicySettings, Target, Weights};
    use equipoise_types::{DecisionId, InstanceId};

    use super::super::tests::{Stage, graded, request};
    use super::*;
    use crate::{CascadeSettings, Dispatch, Event, Failure, SchedulerConfig};

    /// The better, the dearer.
    fn priced(name: &str, quality: f64, slots: u32) -> InstanceSpec {
        let mut spec = graded(name, quality, slots);
        spec.model.price = Some(Price {
            input_usd_per_mtok: quality,
            output_usd_per_mtok: quality,
        });
        spec
    }

    /// A small and cheap model, and a large one with so many slots; only dollars count for the first choice.
    fn stage(slots: u32) -> Stage {
        let weights = Weights {
            quality: 0.0,
            latency: 0.0,
            energy: 0.0,
            cost: 1.0,
        };
        let config = SchedulerConfig {
            settings: PolicySettings {
                weights,
                ..PolicySettings::default()
            },
            cascade: Some(CascadeSettings {
                threshold: 0.7,
                risk: 0.2,
                memory: 100,
            }),
            ..SchedulerConfig::default()
        };
        Stage::new(config, &[priced("small", 0.4, 64), priced("large", 0.8, slots)])
    }

    fn dispatch(actions: Vec<Action>) -> Dispatch {
        match actions.into_iter().next() {
            Some(Action::Dispatch(dispatch)) => dispatch,
            other => panic!("no dispatch: {other:?}"),
        }
    }

    fn judged(id: u64, confidence: f64) -> Event {
        Event::Judged {
            request: RequestId(id),
            confidence,
            usage: Some(TokenUsage {
                prompt_tokens: 100,
                output_tokens: 20,
            }),
        }
    }

    #[test]
    fn a_sure_answer_is_shown_and_an_unsure_one_replaced() {
        let mut stage = stage(64);
        let first = dispatch(stage.arrive(request(0)));
        assert_eq!(
            (first.instance, first.gate.map(|gate| gate.threshold)),
            (InstanceId(0), Some(0.7))
        );
        let deliver = |id| [Action::Deliver { request: RequestId(id) }];
        assert_eq!(stage.on(judged(0, 0.7)), deliver(0));
        assert_eq!(stage.on(judged(0, 0.7)), [], "it has ended");
        assert!(stage.scheduler.fleet().ledger().is_empty());

        dispatch(stage.arrive(request(1)));
        let second = dispatch(stage.on(judged(1, 0.69)));
        assert_eq!((second.instance, second.gate), (InstanceId(1), None));
        assert_ne!(second.decision, first.decision);
        let load = |stage: &Stage, id| {
            stage
                .scheduler
                .fleet()
                .ledger()
                .load(stage.now, InstanceId(id))
                .in_flight
        };
        assert_eq!(
            (load(&stage, 0), load(&stage, 1)),
            (0, 1),
            "released there, booked here"
        );
        stage.on(Event::Finished {
            request: RequestId(1),
            usage: None,
        });
        assert!(stage.scheduler.fleet().ledger().is_empty());
        dispatch(stage.arrive(request(2)));
        assert_eq!(dispatch(stage.on(judged(2, f64::NAN))).instance, InstanceId(1));
    }

    #[test]
    fn who_has_an_answer_is_not_refused_for_want_of_a_better_one() {
        let mut stage = stage(1);
        dispatch(stage.arrive(request(0)));
        dispatch(stage.on(judged(0, 0.1)));
        // The large one is full now.
        dispatch(stage.arrive(request(1)));
        assert_eq!(stage.on(judged(1, 0.1)), [Action::Deliver { request: RequestId(1) }]);
        // Where the better one fails, the driver has the first answer still.
        let failed = stage.on(Event::Failed {
            request: RequestId(0),
            failure: Failure::Unreached,
        });
        assert!(matches!(failed.as_slice(), [Action::Refuse { .. }]), "{failed:?}");
        assert!(stage.scheduler.fleet().ledger().is_empty());
    }

    #[test]
    fn there_is_a_gate_only_where_somebody_better_could_take_over() {
        let mut stage = stage(64);
        let mut named = request(0);
        named.target = Target::Model("small".into());
        assert_eq!(dispatch(stage.arrive(named)).gate, None);
        let mut demanding = request(1);
        demanding.wishes.quality_min = Some(0.5);
        assert_eq!(
            dispatch(stage.arrive(demanding)).gate,
            None,
            "the best is asked at once"
        );
        // A driver that cannot tell how sure an answer is ends the request as always.
        assert!(dispatch(stage.arrive(request(2))).gate.is_some());
        let ended = Event::Finished {
            request: RequestId(2),
            usage: None,
        };
        assert_eq!(stage.on(ended), []);
    }

    #[test]
    fn bad_outcomes_raise_the_threshold() {
        let mut stage = stage(64);
        for id in 0..30 {
            let first = dispatch(stage.arrive(request(id)));
            // Sure of itself at 0.75, and wrong.
            if stage.on(judged(id, 0.75)) == [Action::Deliver { request: RequestId(id) }] {
                stage.on(Event::Feedback {
                    decision: first.decision,
                    score: 0.0,
                });
            } else {
                stage.on(Event::Cancelled { request: RequestId(id) });
            }
        }
        let gate = dispatch(stage.arrive(request(99))).gate.expect("a gate");
        assert!(gate.threshold > 0.75, "{gate:?}");
        // Feedback on a decision without a gate teaches quality alone.
        stage.on(Event::Feedback {
            decision: DecisionId(1_000_000),
            score: 0.0,
        });
    }
}
