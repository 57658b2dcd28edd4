//! Other settings for a scheduler that is at work.

use equipoise_types::{RandomStream, Timestamp};

use super::Scheduler;
use crate::cascade::Cascade;
use crate::exploration::Exploration;
use crate::{Action, SchedulerConfig};

impl Scheduler {
    /// Takes other settings over. What is in flight or waits stays as it is; what is learned is kept where its settings are the
    /// same. The seed, and how prompts are cut into blocks, are those of the start. Settings that make no sense change nothing: whoever sends them checks before.
    pub(super) fn configure(&mut self, now: Timestamp, config: SchedulerConfig, actions: &mut Vec<Action>) {
        let (Ok(()), Ok((policy, cascade)), Ok((_, cascade_before))) =
            (config.validate(), config.policy(), self.config.policy())
        else {
            return;
        };
        // A policy may remember whom it sent to last.
        if (&config.policy, config.settings) != (&self.config.policy, self.config.settings) {
            self.policy = policy;
        }
        if cascade != cascade_before {
            self.cascade = Cascade::new(cascade);
        }
        if config.exploration != self.config.exploration {
            let random = RandomStream::new(self.config.seed).derive("exploration");
            let random = random.derive(&self.decisions.to_string());
            self.exploration = Exploration::new(config.exploration, random);
        }
        self.tenants.configure(now, &config.tenants);
        self.retries.configure(config.retries);
        self.fleet.set_telemetry_stale_s(config.telemetry_stale_s);
        self.config = SchedulerConfig {
            seed: self.config.seed,
            prefix: self.config.prefix,
            ..config
        };
        self.serve_queue(now, actions);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use equipoise_fleet::FleetDelta;
    use equipoise_policy::{Prefix, Request, Target, Wishes};
    use equipoise_types::RequestId;

    use super::*;
    use crate::{Dispatch, Event, Refusal, TenantSettings};

    fn request(id: u64, tenant: &str) -> Request {
        Request {
            id: RequestId(id),
            target: Target::Auto,
            tenant: Some(tenant.to_owned()),
            prompt_tokens: 1000,
            max_output_tokens: Some(100),
            streams: true,
            forecast: None,
            prefix: Prefix::default(),
            wishes: Wishes::default(),
        }
    }

    fn ask(scheduler: &mut Scheduler, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        scheduler.on_event(Timestamp::from_secs_f64(1.0), event, &mut actions);
        actions
    }

    fn arrive(scheduler: &mut Scheduler, id: u64, tenant: &str) -> Vec<Action> {
        ask(scheduler, Event::Arrived(vec![request(id, tenant)]))
    }

    fn configured(config: &SchedulerConfig) -> Event {
        Event::Configured {
            config: Box::new(config.clone()),
        }
    }

    fn one_instance(config: &SchedulerConfig) -> Scheduler {
        let mut scheduler = Scheduler::new(config.clone()).expect("valid");
        let mut spec = super::super::tests::spec("a", "m", 1, None);
        spec.labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        ask(&mut scheduler, Event::Fleet(FleetDelta::Upsert(spec)));
        scheduler
    }

    fn is_dispatch(actions: &[Action]) -> bool {
        matches!(actions, [Action::Dispatch(Dispatch { .. })])
    }

    #[test]
    fn settings_change_while_requests_are_out_and_wait() {
        let mut config = SchedulerConfig::default();
        let mut scheduler = one_instance(&config);
        assert!(is_dispatch(&arrive(&mut scheduler, 1, "acme")));
        assert!(matches!(arrive(&mut scheduler, 2, "acme")[..], [Action::Queue { .. }]));
        config.queue_limit = 0;
        config.policy = "round-robin".to_owned();
        let tenant = TenantSettings {
            labels: BTreeMap::from([("zone".to_owned(), "b".to_owned())]),
            ..TenantSettings::default()
        };
        config.tenants.insert("other".to_owned(), tenant);
        assert!(ask(&mut scheduler, configured(&config)).is_empty());
        assert_eq!((scheduler.in_flight(), scheduler.queued()), (1, 1));
        assert_eq!(scheduler.config(), &config);
        let refused = arrive(&mut scheduler, 3, "acme");
        assert!(matches!(
            &refused[..],
            [Action::Refuse {
                reason: Refusal::QueueFull { .. },
                ..
            }]
        ));
        let refused = arrive(&mut scheduler, 4, "other");
        assert!(matches!(
            &refused[..],
            [Action::Refuse {
                reason: Refusal::Infeasible { .. },
                ..
            }]
        ));
        let finished = Event::Finished {
            request: RequestId(1),
            usage: None,
        };
        assert!(is_dispatch(&ask(&mut scheduler, finished)), "who waited is served");
    }

    #[test]
    fn nonsense_changes_nothing() {
        let config = SchedulerConfig::default();
        let mut scheduler = one_instance(&config);
        let mut bad = config.clone();
        bad.attempts_max = 0;
        bad.queue_limit = 0;
        ask(&mut scheduler, configured(&bad));
        assert_eq!(scheduler.config(), &config);
    }

    #[test]
    fn a_budget_that_is_spent_stays_spent() {
        let mut config = SchedulerConfig::default();
        let budget = |joules: f64| TenantSettings {
            joules_per_day: Some(joules),
            ..TenantSettings::default()
        };
        config.tenants.insert("acme".to_owned(), budget(1e-3));
        let mut scheduler = one_instance(&config);
        let exhausted = |actions: Vec<Action>| {
            matches!(
                &actions[..],
                [Action::Refuse {
                    reason: Refusal::BudgetExhausted { .. },
                    ..
                }]
            )
        };
        assert!(exhausted(arrive(&mut scheduler, 1, "acme")));
        ask(&mut scheduler, configured(&config));
        assert!(exhausted(arrive(&mut scheduler, 2, "acme")));
        config.tenants.insert("acme".to_owned(), budget(1e9));
        ask(&mut scheduler, configured(&config));
        assert!(is_dispatch(&arrive(&mut scheduler, 3, "acme")));
    }
}
