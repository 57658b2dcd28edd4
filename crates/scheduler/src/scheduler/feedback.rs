//! Feedback: outcomes correct the quality that is predicted of a model, and say what choices have cost.

use equipoise_types::{DecisionId, Timestamp};

use super::Scheduler;
use crate::{FeedbackError, Judgement};

impl Scheduler {
    /// Somebody says how good an answer was.
    pub(super) fn feedback(
        &mut self,
        now: Timestamp,
        decision: DecisionId,
        score: f64,
    ) -> Result<Judgement, FeedbackError> {
        if !(0.0..=1.0).contains(&score) {
            return Err(FeedbackError::OutOfRange);
        }
        let judged = self.outcomes.judge(decision)?;
        let fleet = &self.fleet;
        let regret = judged.regret(|model, base| {
            fleet
                .model(model)
                .map_or(base, |model| model.quality.shift(now).correct(base))
        });
        let (model, base, predicted) = (judged.model, judged.base, judged.predicted);
        if let Some(confidence) = judged.confidence {
            self.cascade.observe(model, confidence, score);
        }
        self.fleet.graded(now, model, self.config.feedback_memory, base, score);
        self.regret += regret;
        Ok(Judgement {
            decision,
            model,
            predicted,
            score,
            regret,
        })
    }

    /// What became of the last [`Event::Feedback`](crate::Event::Feedback).
    #[must_use]
    pub fn last_feedback(&self) -> Option<Result<Judgement, FeedbackError>> {
        self.last_feedback
    }

    /// The sum of [`Judgement::regret`] over all feedback: in units of the policy's score where it has an absolute one,
    /// else of quality.
    #[must_use]
    pub fn cumulative_regret(&self) -> f64 {
        self.regret
    }
}

#[cfg(test)]
mod tests {
    use equipoise_policy::{PolicySettings, Target, Weights};
    use equipoise_types::{InstanceId, RandomStream, RequestId};

    use super::super::tests::{Stage, graded, request};
    use super::*;
    use crate::{Action, Dispatch, Event, ExplorationSettings, SchedulerConfig};

    /// Only quality counts.
    fn config(exploration: ExplorationSettings) -> SchedulerConfig {
        let weights = Weights {
            quality: 1.0,
            latency: 0.0,
            energy: 0.0,
            cost: 0.0,
        };
        SchedulerConfig {
            settings: PolicySettings {
                weights,
                ..PolicySettings::default()
            },
            exploration,
            ..SchedulerConfig::default()
        }
    }

    impl Stage {
        /// A request, decided and answered.
        fn answer(&mut self, id: u64) -> Dispatch {
            let actions = self.arrive(request(id));
            let Some(Action::Dispatch(dispatch)) = actions.into_iter().next() else {
                panic!("it is dispatched");
            };
            self.on(Event::Finished {
                request: RequestId(id),
                usage: None,
            });
            dispatch
        }

        fn judge(&mut self, decision: DecisionId, score: f64) -> Result<Judgement, FeedbackError> {
            let actions = self.on(Event::Feedback { decision, score });
            assert_eq!(actions, []);
            self.scheduler.last_feedback().expect("was given")
        }
    }

    #[test]
    fn a_model_that_became_bad_loses_its_traffic() {
        let mut stage = Stage::new(
            config(ExplorationSettings::default()),
            &[graded("good", 0.8, 64), graded("fair", 0.6, 64)],
        );
        let mut random = RandomStream::new(7);
        let mut served_by_good = [0_u32; 6];
        let mut predicted = Vec::new();
        let mut regret = Vec::new();
        for (hundred, count) in served_by_good.iter_mut().enumerate() {
            for request in 0..100 {
                let dispatch = stage.answer(hundred as u64 * 100 + request);
                let good = dispatch.instance == InstanceId(0);
                *count += u32::from(good);
                // The better one turns bad after three hundred answers.
                let truth = match (good, hundred < 3) {
                    (true, true) => 0.8,
                    (true, false) => 0.2,
                    (false, _) => 0.6,
                };
                let score = f64::from(u8::from(random.uniform() < truth));
                stage.judge(dispatch.decision, score).expect("is taken");
            }
            let model = stage
                .scheduler
                .fleet()
                .model_id("good")
                .and_then(|id| stage.scheduler.fleet().model(id));
            predicted.push(model.expect("served").quality.predict(stage.now).mean);
            regret.push(stage.scheduler.cumulative_regret());
        }
        assert!(
            served_by_good[..3].iter().all(|&count| count > 90),
            "{served_by_good:?}"
        );
        assert!(
            served_by_good[4..].iter().all(|&count| count < 10),
            "{served_by_good:?}"
        );
        assert!((predicted[2] - 0.8).abs() < 0.12, "{predicted:?}");
        assert!(predicted[5] < 0.6, "{predicted:?}");
        assert!(regret.is_sorted(), "{regret:?}");
    }

    #[test]
    fn only_a_first_judgement_of_a_known_decision_counts() {
        let mut stage = Stage::new(config(ExplorationSettings::default()), &[graded("m", 0.8, 64)]);
        let decision = stage.answer(0).decision;
        let untouched = format!("{:?}", stage.scheduler.fleet());
        assert_eq!(stage.judge(decision, 1.5), Err(FeedbackError::OutOfRange));
        assert_eq!(stage.judge(decision, f64::NAN), Err(FeedbackError::OutOfRange));
        assert_eq!(stage.judge(DecisionId(77), 1.0), Err(FeedbackError::Unknown));
        assert_eq!(format!("{:?}", stage.scheduler.fleet()), untouched);
        let judgement = stage.judge(decision, 0.0).expect("is taken");
        assert!(
            (judgement.predicted - 0.8).abs() < 1e-6 && judgement.regret == 0.0,
            "{judgement:?}"
        );
        let taught = format!("{:?}", stage.scheduler.fleet());
        assert_ne!(taught, untouched);
        assert_eq!(stage.judge(decision, 1.0), Err(FeedbackError::Duplicate));
        assert_eq!(format!("{:?}", stage.scheduler.fleet()), taught);
    }

    #[test]
    fn regret_is_what_the_best_would_have_been_worth_more() {
        let explore = ExplorationSettings {
            share: 1.0,
            budget_per_hour: 10.0,
        };
        let mut stage = Stage::new(config(explore), &[graded("good", 0.8, 64), graded("fair", 0.6, 64)]);
        let dispatch = stage.answer(0);
        assert!(dispatch.explored && dispatch.instance == InstanceId(1));
        let judgement = stage.judge(dispatch.decision, 1.0).expect("is taken");
        assert!((judgement.regret - 0.2).abs() < 1e-6, "{judgement:?}");
        assert!((stage.scheduler.cumulative_regret() - 0.2).abs() < 1e-6);
    }

    #[test]
    fn exploring_stays_within_its_budget_and_spares_hard_wishes() {
        let explore = ExplorationSettings {
            share: 1.0,
            budget_per_hour: 0.5,
        };
        let mut stage = Stage::new(config(explore), &[graded("good", 0.8, 64), graded("fair", 0.6, 64)]);
        let explored = |stage: &mut Stage, from: u64| (from..from + 10).filter(|&id| stage.answer(id).explored).count();
        assert_eq!(explored(&mut stage, 0), 2, "a third would cost 0.6 in all");
        stage.pass(1800.0);
        assert_eq!(explored(&mut stage, 10), 0);
        stage.pass(1800.0);
        assert_eq!(explored(&mut stage, 20), 2, "another hour");
        stage.pass(3600.0);
        let asked = |stage: &mut Stage, id: u64, change: fn(&mut crate::Request)| {
            let mut request = request(id);
            change(&mut request);
            let actions = stage.arrive(request);
            actions
                .iter()
                .any(|action| matches!(action, Action::Dispatch(dispatch) if dispatch.explored))
        };
        assert!(!asked(&mut stage, 30, |request| request.wishes.quality_min = Some(0.1)));
        assert!(!asked(&mut stage, 31, |request| request.wishes.deadline = Some(Timestamp::MAX)));
        assert!(!asked(&mut stage, 32, |request| request.target = Target::Model("good".into())));
        assert!(asked(&mut stage, 33, |_| {}), "nothing else was in the way");
    }

    #[test]
    fn nothing_is_explored_unless_asked_for() {
        let mut stage = Stage::new(
            SchedulerConfig::default(),
            &[graded("good", 0.8, 64), graded("fair", 0.79, 64)],
        );
        assert!((0..50).all(|id| !stage.answer(id).explored));
    }
}
