//! What holds for every fleet, every request and every order of events.

#![expect(clippy::expect_used, reason = "a test that cannot start has nothing to say")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use equipoise_fleet::{EngineSample, FleetDelta, InstanceSpec, LimitsSpec, ModelProfile, Price};
use equipoise_policy::{CAPABILITIES_LABEL, Capability, Prefix, Request, Target, Wishes, all_names};
use equipoise_scheduler::{Action, Event, Failure, Refusal, Scheduler, SchedulerConfig, TenantSettings, TokenUsage};
use equipoise_types::{RequestId, Timestamp};
use proptest::prelude::*;

fn spec(index: usize, kind: u32) -> InstanceSpec {
    let model = ["small", "large"][(kind % 2) as usize];
    let mut labels = BTreeMap::from([("region".to_owned(), ["eu", "us"][(kind / 2 % 2) as usize].to_owned())]);
    match kind / 4 % 3 {
        0 => {}
        1 => drop(labels.insert(CAPABILITIES_LABEL.to_owned(), "tools structured".to_owned())),
        _ => drop(labels.insert(CAPABILITIES_LABEL.to_owned(), String::new())),
    }
    InstanceSpec {
        name: format!("i-{index}"),
        pool: "pool".to_owned(),
        model: ModelProfile {
            quality: Some(if model == "small" { 0.4 } else { 0.8 }),
            context_tokens: Some(1000 << (kind / 12 % 3)),
            price: Some(Price {
                input_usd_per_mtok: if model == "small" { 1.0 } else { 5.0 },
                output_usd_per_mtok: if model == "small" { 2.0 } else { 10.0 },
            }),
            ..ModelProfile::named(model)
        },
        gpu: None,
        tensor_parallel: 1,
        endpoint: None,
        measured: None,
        serving: None,
        limits: LimitsSpec {
            max_num_seqs: Some(1 + kind % 5),
            ..LimitsSpec::default()
        },
        labels,
        gpus: Vec::new(),
        emulated: false,
    }
}

fn plain(id: u64) -> Request {
    Request {
        id: RequestId(id),
        target: Target::Auto,
        tenant: None,
        prompt_tokens: 100,
        max_output_tokens: Some(50),
        streams: true,
        forecast: None,
        prefix: Prefix::default(),
        wishes: Wishes::default(),
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    (0..4_u32, 1..5000_u32, any::<u16>(), 0..3_u32).prop_map(|(target, prompt_tokens, bits, tenant)| {
        let has = |bit: u32| bits & (1 << bit) != 0 && bits & (1 << (bit + 8)) != 0;
        let mut request = plain(0);
        request.target = match target {
            0 => Target::Model("small".to_owned()),
            1 => Target::Model("large".to_owned()),
            _ => Target::Auto,
        };
        request.prompt_tokens = prompt_tokens;
        request.streams = bits & 1 == 0;
        request.tenant = ["acme", "rich"].get(tenant as usize).map(|name| (*name).to_owned());
        if has(1) {
            request.wishes.needs = BTreeSet::from([Capability::Tools]);
        }
        if has(2) {
            request.wishes.labels = BTreeMap::from([("region".to_owned(), "us".to_owned())]);
        }
        request.wishes.quality_min = has(3).then_some(0.6);
        request.wishes.cost_max_usd = has(4).then_some(0.005);
        request.wishes.e2e_slo_s = has(5).then_some(5.0);
        request
    })
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Vec<Request>),
    FirstToken(usize),
    Finish(usize, u32),
    Fail(usize, u8),
    Cancel(usize),
    Admin(usize, bool, f64),
    Sample(usize, bool, u32),
    Remove(usize),
    Pass(f64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(any_request(), 1..6).prop_map(Step::Arrive),
        2 => any::<usize>().prop_map(Step::FirstToken),
        3 => (any::<usize>(), 0..400_u32).prop_map(|(which, tokens)| Step::Finish(which, tokens)),
        1 => (any::<usize>(), 0..4_u8).prop_map(|(which, how)| Step::Fail(which, how)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => (any::<usize>(), any::<bool>(), 0.0..2.0_f64).prop_map(|(i, d, w)| Step::Admin(i, d, w)),
        1 => (any::<usize>(), any::<bool>(), 0..9_u32).prop_map(|(i, healthy, n)| Step::Sample(i, healthy, n)),
        1 => any::<usize>().prop_map(Step::Remove),
        2 => (0.0..20.0_f64).prop_map(Step::Pass),
    ]
}

const BUDGET_USD: f64 = 0.05;

fn config(policy: &str) -> SchedulerConfig {
    let acme = TenantSettings {
        labels: BTreeMap::from([("region".to_owned(), "eu".to_owned())]),
        usd_per_hour: Some(BUDGET_USD),
        ..TenantSettings::default()
    };
    SchedulerConfig {
        policy: policy.to_owned(),
        tenants: BTreeMap::from([("acme".to_owned(), acme)]),
        ..SchedulerConfig::default()
    }
}

struct Run {
    scheduler: Scheduler,
    now: Timestamp,
    requests: BTreeMap<u64, Request>,
    out: Vec<u64>,
    waiting: Vec<u64>,
    events: Vec<(Timestamp, Event)>,
    actions: Vec<Action>,
    acme_usd: f64,
    acme_errors: f64,
    estimates: BTreeMap<u64, f64>,
    instances: usize,
}

impl Run {
    fn new(policy: &str, kinds: &[u32]) -> Self {
        let mut run = Self {
            scheduler: Scheduler::new(config(policy)).expect("valid"),
            now: Timestamp::ZERO,
            requests: BTreeMap::new(),
            out: Vec::new(),
            waiting: Vec::new(),
            events: Vec::new(),
            actions: Vec::new(),
            acme_usd: 0.0,
            acme_errors: 0.0,
            estimates: BTreeMap::new(),
            instances: kinds.len(),
        };
        for (index, kind) in kinds.iter().enumerate() {
            run.on(Event::Fleet(FleetDelta::Upsert(spec(index, *kind))))
                .expect("no work yet");
        }
        run
    }

    fn on(&mut self, event: Event) -> Result<(), TestCaseError> {
        let mut actions = Vec::new();
        self.events.push((self.now, event.clone()));
        self.scheduler.on_event(self.now, event, &mut actions);
        for action in &actions {
            match action {
                Action::Dispatch(dispatch) => {
                    let id = dispatch.request.0;
                    self.waiting.retain(|waiting| *waiting != id);
                    self.out.push(id);
                    self.estimates.insert(id, dispatch.estimate.cost_usd);
                    self.is_feasible(id, dispatch)?;
                }
                Action::Queue { request, .. } => self.waiting.push(request.0),
                Action::Deliver { .. } => {}
                Action::Refuse { request, .. } => self.waiting.retain(|waiting| *waiting != request.0),
            }
        }
        self.actions.extend(actions);
        self.accounts_are_right()
    }

    /// Every hard constraint, judged from outside.
    fn is_feasible(&self, id: u64, dispatch: &equipoise_scheduler::Dispatch) -> Result<(), TestCaseError> {
        let request = &self.requests[&id];
        let instance = self.scheduler.fleet().instance(dispatch.instance).expect("exists");
        let (spec, wishes) = (&instance.spec, &request.wishes);
        prop_assert!(instance.present && !instance.draining && instance.weight > 0.0);
        if let Target::Model(model) = &request.target {
            prop_assert_eq!(&spec.model.name, model);
        }
        let whole = request.prompt_tokens + request.max_output_tokens.unwrap_or(1);
        prop_assert!(spec.model.context_tokens.is_none_or(|context| whole <= context));
        let region = if request.tenant.as_deref() == Some("acme") {
            Some("eu")
        } else {
            wishes.labels.get("region").map(String::as_str)
        };
        prop_assert!(region.is_none_or(|region| spec.labels["region"] == region));
        for need in &wishes.needs {
            let declared = spec.labels.get(CAPABILITIES_LABEL);
            prop_assert!(declared.is_none_or(|declared| declared.contains(need.name())));
        }
        let estimate = &dispatch.estimate;
        prop_assert!(wishes.quality_min.is_none_or(|floor| estimate.quality >= floor));
        prop_assert!(wishes.cost_max_usd.is_none_or(|most| estimate.cost_usd <= most));
        prop_assert!(wishes.e2e_slo_s.is_none_or(|slo| estimate.e2e_s <= slo));
        Ok(())
    }

    /// The ledger holds exactly those who are out; a budget is overdrawn by the errors of estimates only.
    fn accounts_are_right(&self) -> Result<(), TestCaseError> {
        let fleet = self.scheduler.fleet();
        prop_assert_eq!(fleet.ledger().len(), self.out.len());
        let mut in_flight = 0;
        for instance in fleet.iter() {
            let load = fleet.ledger().load(self.now, instance.id);
            prop_assert!(load.prefilling <= load.in_flight);
            prop_assert!(load.in_flight < 1 << 20 && load.pending_decode_tokens < 1 << 40);
            prop_assert!(
                load.in_flight > 0
                    || (load.pending_prefill_tokens, load.pending_decode_tokens, load.kv_tokens) == (0, 0, 0)
            );
            in_flight += load.in_flight as usize;
        }
        prop_assert_eq!(in_flight, self.out.len());
        let reserved: f64 = self.acmes().map(|id| self.estimates[&id]).sum();
        let allowed = BUDGET_USD * (1.0 + self.now.as_secs_f64() / 3600.0) + self.acme_errors;
        prop_assert!(
            self.acme_usd + reserved <= allowed + 1e-9,
            "{} + {reserved} > {allowed}",
            self.acme_usd
        );
        Ok(())
    }

    fn acmes(&self) -> impl Iterator<Item = u64> {
        let of_acme = |id: &u64| self.requests[id].tenant.as_deref() == Some("acme");
        self.out.iter().copied().filter(of_acme)
    }

    fn ended(&mut self, id: u64, tokens: Option<u32>) {
        if let (Some("acme"), Some(output)) = (self.requests[&id].tenant.as_deref(), tokens) {
            let booking = self.scheduler.fleet().ledger().booking(RequestId(id)).expect("out");
            let price = self
                .scheduler
                .fleet()
                .instance(booking.instance)
                .expect("exists")
                .price();
            let prompt = f64::from(self.requests[&id].prompt_tokens);
            let actual = prompt * price.input_usd + f64::from(output) * price.output_usd;
            self.acme_usd += actual;
            self.acme_errors += (actual - self.estimates[&id]).max(0.0);
        }
        self.out.retain(|out| *out != id);
    }

    fn follow(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let pick = |of: &[u64], which: usize| (!of.is_empty()).then(|| of[which % of.len()]);
        let name = |which: usize| format!("i-{}", which % self.instances);
        let event = match step {
            Step::Arrive(requests) => {
                let mut arrived = requests.clone();
                for request in &mut arrived {
                    request.id = RequestId(self.requests.len() as u64);
                    self.requests.insert(request.id.0, request.clone());
                }
                Event::Arrived(arrived)
            }
            Step::FirstToken(which) => match pick(&self.out, *which) {
                Some(id) => Event::FirstToken { request: RequestId(id) },
                None => return Ok(()),
            },
            Step::Finish(which, tokens) => match pick(&self.out, *which) {
                Some(id) => {
                    self.ended(id, Some(*tokens));
                    let prompt_tokens = self.requests[&id].prompt_tokens;
                    let usage = TokenUsage {
                        prompt_tokens,
                        output_tokens: *tokens,
                    };
                    Event::Finished {
                        request: RequestId(id),
                        usage: Some(usage),
                    }
                }
                None => return Ok(()),
            },
            Step::Fail(which, how) => match pick(&self.out, *which) {
                Some(id) => {
                    self.ended(id, None);
                    let all = [
                        Failure::Unreached,
                        Failure::Errored,
                        Failure::Overloaded,
                        Failure::Final,
                    ];
                    Event::Failed {
                        request: RequestId(id),
                        failure: all[usize::from(*how)],
                    }
                }
                None => return Ok(()),
            },
            Step::Cancel(which) => match pick(&[self.out.clone(), self.waiting.clone()].concat(), *which) {
                Some(id) => {
                    if self.out.contains(&id) {
                        self.ended(id, None);
                    }
                    self.waiting.retain(|waiting| *waiting != id);
                    Event::Cancelled { request: RequestId(id) }
                }
                None => return Ok(()),
            },
            Step::Admin(which, draining, weight) => Event::Fleet(FleetDelta::Admin {
                name: name(*which),
                draining: *draining,
                weight: *weight,
            }),
            Step::Sample(which, healthy, running) => Event::Fleet(FleetDelta::Sample {
                name: name(*which),
                sample: EngineSample {
                    healthy: *healthy,
                    running: *running,
                    waiting: 0,
                    kv_usage: 0.1,
                    power: None,
                    age_s: 0.1,
                },
            }),
            Step::Remove(which) => Event::Fleet(FleetDelta::Remove { name: name(*which) }),
            Step::Pass(seconds) => {
                self.now += Duration::from_secs_f64(*seconds);
                Event::Timer
            }
        };
        self.on(event)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_dispatch_is_feasible_and_every_account_right(
        policy in 0..all_names().len(),
        kinds in proptest::collection::vec(0..36_u32, 1..7),
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let policy = all_names()[policy];
        let mut run = Run::new(policy, &kinds);
        for step in &steps {
            run.follow(step)?;
        }
        // The same events bring the same actions.
        let mut again = Scheduler::new(config(policy)).expect("valid");
        let mut actions = Vec::new();
        for (at, event) in run.events {
            again.on_event(at, event, &mut actions);
        }
        prop_assert_eq!(actions, run.actions);
    }

    /// The scores of a batch add up to at least what the greedy pass alone reaches.
    #[test]
    fn a_batch_is_never_worse_for_being_improved(
        kinds in proptest::collection::vec(0..36_u32, 2..7),
        requests in proptest::collection::vec(any_request(), 2..12),
    ) {
        let total = |improve_batches: bool| {
            let settings = SchedulerConfig { improve_batches, ..SchedulerConfig::default() };
            let mut scheduler = Scheduler::new(settings).expect("valid");
            let mut actions = Vec::new();
            for (index, kind) in kinds.iter().enumerate() {
                scheduler.on_event(Timestamp::ZERO, Event::Fleet(FleetDelta::Upsert(spec(index, *kind))), &mut actions);
            }
            let mut batch = requests.clone();
            for (id, request) in batch.iter_mut().enumerate() {
                request.id = RequestId(id as u64);
            }
            scheduler.on_event(Timestamp::ZERO, Event::Arrived(batch), &mut actions);
            let scores = actions.iter().filter_map(|action| match action {
                Action::Dispatch(dispatch) => dispatch.score,
                _ => None,
            });
            (scores.clone().count(), scores.sum::<f64>())
        };
        let ((greedily, greedy), (improvedly, improved)) = (total(false), total(true));
        prop_assert_eq!(greedily, improvedly);
        prop_assert!(improved >= greedy - 1e-9, "{improved} < {greedy}");
    }
}

fn refusal(actions: &[Action]) -> Option<&Refusal> {
    actions.iter().find_map(|action| match action {
        Action::Refuse { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn a_tenant_that_has_spent_its_budget_is_told_when_to_come_back() {
    let mut settings = config("equipoise");
    settings.tenants.insert(
        "acme".to_owned(),
        TenantSettings {
            usd_per_hour: Some(0.001),
            ..TenantSettings::default()
        },
    );
    let mut scheduler = Scheduler::new(settings).expect("valid");
    let mut actions = Vec::new();
    let mut large = spec(0, 1);
    large.limits.max_num_seqs = Some(100);
    scheduler.on_event(Timestamp::ZERO, Event::Fleet(FleetDelta::Upsert(large)), &mut actions);
    let mut refused = None;
    for id in 0..10 {
        let mut request = plain(id);
        request.tenant = Some("acme".to_owned());
        actions.clear();
        scheduler.on_event(Timestamp::ZERO, Event::Arrived(vec![request]), &mut actions);
        if let Some(reason) = refusal(&actions) {
            refused = Some((id, reason.clone()));
            break;
        }
    }
    // 100 tokens at 5 $/M and at most 50 at 10 $/M: 1,000 µ$ pay for one, with the answer's mean as expected not for many.
    let (id, reason) = refused.expect("the budget binds");
    assert!(id >= 1, "the first fits");
    assert_eq!(reason.code(), "budget_exhausted");
    assert!(
        matches!(&reason, Refusal::BudgetExhausted { tenant, retry_after_s, .. } if tenant == "acme" && *retry_after_s > 1)
    );
    // Another tenant is not concerned; and in an hour the first is back.
    let mut other = plain(20);
    other.tenant = Some("rich".to_owned());
    actions.clear();
    scheduler.on_event(Timestamp::ZERO, Event::Arrived(vec![other]), &mut actions);
    assert_eq!(refusal(&actions), None);
    let mut later = plain(21);
    later.tenant = Some("acme".to_owned());
    actions.clear();
    scheduler.on_event(
        Timestamp::from_secs_f64(3600.0),
        Event::Arrived(vec![later]),
        &mut actions,
    );
    assert_eq!(refusal(&actions), None);
}
