use std::collections::{BTreeMap, BTreeSet};

use equipoise_fleet::{EngineSample, InstanceSpec, LimitsSpec, ModelProfile};
use equipoise_policy::{Prefix, Preset, Wishes};
use proptest::prelude::*;

use super::*;
use crate::TokenUsage;

pub(super) fn spec(name: &str, model: &str, slots: u32, context_tokens: Option<u32>) -> InstanceSpec {
    InstanceSpec {
        name: name.to_owned(),
        pool: "pool".to_owned(),
        model: ModelProfile {
            context_tokens,
            ..ModelProfile::named(model)
        },
        gpu: None,
        tensor_parallel: 1,
        endpoint: None,
        limits: LimitsSpec {
            max_num_seqs: Some(slots),
            ..LimitsSpec::default()
        },
        labels: BTreeMap::new(),
        gpus: Vec::new(),
        emulated: false,
        measured: None,
        serving: None,
    }
}

/// A model of so much declared quality on one instance with so many slots.
pub(super) fn graded(name: &str, quality: f64, slots: u32) -> InstanceSpec {
    let mut spec = spec(name, name, slots, None);
    spec.model.quality = Some(quality);
    spec
}

pub(crate) fn request(id: u64) -> Request {
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

/// A scheduler with its actions, for tests that tell a story.
pub(super) struct Stage {
    pub(super) scheduler: Scheduler,
    pub(super) now: Timestamp,
}

impl Stage {
    pub(super) fn new(config: SchedulerConfig, specs: &[InstanceSpec]) -> Self {
        let mut stage = Self {
            scheduler: Scheduler::new(config).expect("valid"),
            now: Timestamp::ZERO,
        };
        for spec in specs {
            stage.on(Event::Fleet(FleetDelta::Upsert(spec.clone())));
        }
        stage
    }

    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.scheduler.on_event(self.now, event, &mut actions);
        actions
    }

    pub(super) fn arrive(&mut self, request: Request) -> Vec<Action> {
        self.on(Event::Arrived(vec![request]))
    }

    pub(super) fn pass(&mut self, seconds: f64) -> Vec<Action> {
        self.now += Duration::from_secs_f64(seconds);
        self.on(Event::Timer)
    }
}

fn dispatched(actions: &[Action]) -> Vec<(u64, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Dispatch(dispatch) => Some((dispatch.request.0, dispatch.instance.0)),
            _ => None,
        })
        .collect()
}

fn refusal(actions: &[Action]) -> Option<&Refusal> {
    actions.iter().find_map(|action| match action {
        Action::Refuse { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn what_does_not_fit_waits_here_and_goes_to_whoever_is_free_first() {
    let mut stage = Stage::new(
        SchedulerConfig::default(),
        &[spec("a", "m", 1, None), spec("b", "m", 1, None)],
    );
    assert_eq!(dispatched(&stage.arrive(request(0))), [(0, 0)]);
    assert_eq!(dispatched(&stage.arrive(request(1))), [(1, 1)]);
    assert_eq!(
        stage.arrive(request(2)),
        [Action::Queue {
            request: RequestId(2),
            ahead: 0
        }]
    );
    assert_eq!(
        stage.arrive(request(3)),
        [Action::Queue {
            request: RequestId(3),
            ahead: 1
        }]
    );
    stage.now = Timestamp::from_secs_f64(0.5);
    assert_eq!(
        dispatched(&stage.on(Event::Cancelled { request: RequestId(0) })),
        [(2, 0)]
    );
    assert_eq!(
        dispatched(&stage.on(Event::Finished {
            request: RequestId(1),
            usage: None
        })),
        [(3, 1)]
    );
    assert_eq!(stage.scheduler.queued(), 0);
}

#[test]
fn an_slo_that_nobody_can_meet_any_more_is_refused_and_not_kept() {
    let mut stage = Stage::new(SchedulerConfig::default(), &[spec("a", "m", 1, None)]);
    assert_eq!(dispatched(&stage.arrive(request(0))), [(0, 0)]);
    let mut urgent = request(1);
    urgent.wishes.ttft_slo_s = Some(0.5);
    assert_eq!(
        stage.arrive(urgent),
        [Action::Queue {
            request: RequestId(1),
            ahead: 0
        }]
    );
    let due = stage.scheduler.next_wakeup().expect("waits");
    assert!(due <= Timestamp::from_secs_f64(0.5), "{due:?}");
    let late = stage.pass(0.45);
    assert!(matches!(refusal(&late), Some(Refusal::SloMissed { .. })), "{late:?}");
    assert_eq!(stage.scheduler.queued(), 0);
}

#[test]
fn whoever_waits_for_the_best_model_holds_nobody_up_who_would_take_another() {
    let of = |name: &str, model: &str, quality: f64, slots: u32| {
        let mut spec = spec(name, model, slots, None);
        spec.model.quality = Some(quality);
        spec
    };
    let specs = [of("best", "large", 0.9, 1), of("quick", "small", 0.3, 8)];
    let mut stage = Stage::new(SchedulerConfig::default(), &specs);
    let wants = |id: u64, quality: f64, latency: f64| {
        let mut request = request(id);
        request.wishes.weights = Some(equipoise_policy::Weights {
            quality,
            latency,
            energy: 0.0,
            cost: 0.0,
        });
        request
    };
    assert_eq!(dispatched(&stage.arrive(wants(0, 1.0, 0.0))), [(0, 0)]);
    assert_eq!(
        dispatched(&stage.arrive(wants(1, 1.0, 0.0))),
        [],
        "it waits for the large model"
    );
    assert_eq!(
        dispatched(&stage.arrive(wants(2, 0.0, 1.0))),
        [(2, 1)],
        "and this one need not"
    );
    assert_eq!(dispatched(&stage.arrive(wants(3, 1.0, 0.0))), [], "behind the first");
    let done = |id: u64| Event::Finished {
        request: RequestId(id),
        usage: None,
    };
    assert_eq!(dispatched(&stage.on(done(0))), [(1, 0)]);
    assert_eq!(dispatched(&stage.on(done(1))), [(3, 0)]);
}

#[test]
fn priority_goes_first_and_arrival_order_holds_otherwise() {
    let mut stage = Stage::new(SchedulerConfig::default(), &[spec("a", "m", 1, None)]);
    stage.arrive(request(0));
    stage.arrive(request(1));
    let mut urgent = request(2);
    urgent.wishes.priority = 5;
    assert_eq!(
        stage.arrive(urgent),
        [Action::Queue {
            request: RequestId(2),
            ahead: 0
        }]
    );
    stage.now = Timestamp::from_secs_f64(0.5);
    assert_eq!(
        dispatched(&stage.on(Event::Finished {
            request: RequestId(0),
            usage: None
        })),
        [(2, 0)]
    );
    assert_eq!(
        dispatched(&stage.on(Event::Finished {
            request: RequestId(2),
            usage: None
        })),
        [(1, 0)]
    );
}

#[test]
fn patience_and_bounds_end_in_a_clear_refusal() {
    let config = SchedulerConfig {
        queue_limit: 1,
        queue_timeout_s: 2.0,
        ..SchedulerConfig::default()
    };
    let mut stage = Stage::new(config, &[spec("a", "m", 1, None)]);
    stage.arrive(request(0));
    stage.arrive(request(1));
    assert!(matches!(
        refusal(&stage.arrive(request(2))),
        Some(Refusal::QueueFull { limit: 1, .. })
    ));
    assert!(
        stage
            .scheduler
            .next_wakeup()
            .is_some_and(|at| at <= Timestamp::from_secs_f64(2.0))
    );
    assert_eq!(stage.pass(1.0), []);
    assert!(matches!(
        refusal(&stage.pass(1.0)),
        Some(Refusal::QueueTimeout { waited_ms: 2000, .. })
    ));
    assert_eq!(stage.scheduler.next_wakeup(), None);
}

#[test]
fn a_failed_request_goes_elsewhere_and_ends_after_its_attempts() {
    let specs = [
        spec("a", "m", 8, None),
        spec("b", "m", 8, None),
        spec("c", "m", 8, None),
    ];
    let mut stage = Stage::new(
        SchedulerConfig {
            attempts_max: 2,
            ..SchedulerConfig::default()
        },
        &specs,
    );
    let first = dispatched(&stage.arrive(request(0)))[0].1;
    let fail = |failure| Event::Failed {
        request: RequestId(0),
        failure,
    };
    let second = dispatched(&stage.on(fail(Failure::Unreached)))[0].1;
    assert_ne!(first, second);
    assert!(matches!(
        refusal(&stage.on(fail(Failure::Unreached))),
        Some(Refusal::Exhausted { attempts: 2, .. })
    ));
    assert_eq!(stage.on(fail(Failure::Unreached)), [], "it has ended");
    assert!(stage.scheduler.fleet().ledger().is_empty());
}

#[test]
fn a_single_instance_that_fails_ends_the_request_at_once() {
    let mut stage = Stage::new(SchedulerConfig::default(), &[spec("a", "m", 8, None)]);
    stage.arrive(request(0));
    let actions = stage.on(Event::Failed {
        request: RequestId(0),
        failure: Failure::Unreached,
    });
    assert_eq!(
        refusal(&actions),
        Some(&Refusal::Exhausted {
            attempts: 1,
            instance: "a".into()
        })
    );
}

#[test]
fn a_second_opinion_tells_whose_fault_a_server_error_is() {
    let mut stage = Stage::new(
        SchedulerConfig::default(),
        &[spec("a", "m", 8, None), spec("b", "m", 8, None)],
    );
    let fail = |id| Event::Failed {
        request: RequestId(id),
        failure: Failure::Errored,
    };
    // Poison: both fail it, neither is blamed, however often it comes.
    for id in 0..20 {
        assert_eq!(dispatched(&stage.arrive(request(id))).len(), 1);
        assert_eq!(dispatched(&stage.on(fail(id))).len(), 1);
        assert!(matches!(
            refusal(&stage.on(fail(id))),
            Some(Refusal::Errored { attempts: 2, .. })
        ));
    }
    assert!(
        stage
            .scheduler
            .fleet()
            .iter()
            .all(|instance| instance.is_available(stage.now))
    );
    // A broken instance: what it fails the other answers. It is taken out.
    let mut failed_at_a = 0;
    for id in 100..120 {
        let mut at = dispatched(&stage.arrive(request(id)))[0].1;
        if at == 0 {
            failed_at_a += 1;
            at = dispatched(&stage.on(fail(id)))[0].1;
        }
        assert_eq!(at, 1);
        stage.on(Event::Finished {
            request: RequestId(id),
            usage: None,
        });
    }
    assert_eq!(failed_at_a, 3);
    assert!(
        !stage
            .scheduler
            .fleet()
            .instance(InstanceId(0))
            .expect("there")
            .is_available(stage.now)
    );
}

#[test]
fn engines_without_room_are_no_fault() {
    let mut stage = Stage::new(SchedulerConfig::default(), &[spec("a", "m", 8, None)]);
    for id in 0..9 {
        stage.arrive(request(id));
        let actions = stage.on(Event::Failed {
            request: RequestId(id),
            failure: Failure::Overloaded,
        });
        assert_eq!(
            refusal(&actions),
            Some(&Refusal::Overloaded {
                attempts: 1,
                instance: "a".into()
            })
        );
    }
}

#[test]
fn refusals_name_the_reason() {
    let mut stage = Stage::new(SchedulerConfig::default(), &[]);
    assert!(matches!(
        refusal(&stage.arrive(request(0))),
        Some(Refusal::Unavailable { .. })
    ));
    for spec in [spec("a", "m", 8, Some(120)), spec("b", "n", 8, None)] {
        stage.on(Event::Fleet(FleetDelta::Upsert(spec)));
    }
    let ask = |model: &str, id| Request {
        target: Target::Model(model.into()),
        ..request(id)
    };
    let unknown = stage.arrive(ask("gpt-9", 1));
    assert_eq!(
        refusal(&unknown),
        Some(&Refusal::UnknownModel {
            model: "gpt-9".into(),
            served: "m, n".into()
        })
    );
    let long = stage.arrive(ask("m", 2));
    assert!(
        refusal(&long).is_some_and(|reason| reason.to_string().contains("too short a context")),
        "{long:?}"
    );
    stage.on(Event::Fleet(FleetDelta::Admin {
        name: "b".into(),
        draining: true,
        weight: 1.0,
    }));
    let draining = stage.arrive(ask("n", 3));
    assert!(
        matches!(refusal(&draining), Some(Refusal::Unavailable { reasons }) if reasons == "1 draining or without weight"),
        "{draining:?}"
    );
}

#[test]
fn an_slo_that_cannot_be_met_now_waits_and_one_that_never_can_is_refused() {
    let mut stage = Stage::new(SchedulerConfig::default(), &[spec("a", "m", 2, None)]);
    for id in 0..2 {
        stage.arrive(request(id));
    }
    let with_slo = |id, ttft_slo_s| {
        let mut request = request(id);
        request.wishes.ttft_slo_s = Some(ttft_slo_s);
        request
    };
    assert!(matches!(
        stage.arrive(with_slo(2, 0.5)).as_slice(),
        [Action::Queue { .. }]
    ));
    assert!(matches!(
        refusal(&stage.arrive(with_slo(3, 1e-6))),
        Some(Refusal::Infeasible { .. })
    ));
}

#[test]
fn a_decision_is_explained_afterwards() {
    let specs = [
        spec("a", "m", 8, None),
        spec("b", "m", 8, None),
        spec("c", "n", 8, None),
    ];
    let mut stage = Stage::new(SchedulerConfig::default(), &specs);
    stage.on(Event::Fleet(FleetDelta::Admin {
        name: "b".into(),
        draining: true,
        weight: 1.0,
    }));
    let ask = Request {
        target: Target::Model("m".into()),
        ..request(7)
    };
    let actions = stage.arrive(ask);
    let [Action::Dispatch(dispatch)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    let explanation = stage.scheduler.explanation(dispatch.decision).expect("kept");
    assert_eq!((explanation.request, explanation.chosen), (RequestId(7), InstanceId(0)));
    let scores: Vec<_> = explanation
        .scored()
        .map(|(candidate, score)| (candidate.instance, score))
        .collect();
    assert_eq!(scores, [(InstanceId(0), dispatch.score)]);
    let ruled_out = [
        (InstanceId(1), Constraint::Draining),
        (InstanceId(2), Constraint::Model),
    ];
    assert_eq!(explanation.ruled_out, ruled_out);
    assert_eq!(stage.scheduler.explanation(DecisionId(99)), None);
    for id in 100..20_000 {
        stage.arrive(request(id));
        stage.on(Event::Cancelled { request: RequestId(id) });
    }
    assert_eq!(stage.scheduler.explanation(dispatch.decision), None, "it is long ago");
}

#[test]
fn those_with_wishes_of_their_own_do_not_hold_up_the_rest() {
    let in_zone = |zone: &str, mut spec: InstanceSpec| {
        spec.labels.insert("zone".into(), zone.into());
        spec
    };
    let specs = [
        in_zone("a", spec("a", "m", 1, None)),
        in_zone("b", spec("b", "m", 1, None)),
        spec("big", "m", 64, None),
    ];
    let mut stage = Stage::new(SchedulerConfig::default(), &specs);
    let wants = |zone: &str, id| {
        let mut request = request(id);
        request.wishes.labels.insert("zone".into(), zone.into());
        request
    };
    assert_eq!(dispatched(&stage.arrive(wants("a", 0))), [(0, 0)]);
    assert_eq!(dispatched(&stage.arrive(wants("b", 1))), [(1, 1)]);
    for id in 2..40 {
        assert_eq!(dispatched(&stage.arrive(wants("a", id))), []);
    }
    assert_eq!(dispatched(&stage.arrive(wants("b", 40))), []);
    assert_eq!(
        dispatched(&stage.arrive(request(100))),
        [(100, 2)],
        "there is room elsewhere"
    );
    // Thirty-eight stand before the one that there is room for now: it is reached within a few walks.
    let mut served = dispatched(&stage.on(Event::Finished {
        request: RequestId(1),
        usage: None,
    }));
    for _ in 0..6 {
        served.extend(dispatched(&stage.pass(0.02)));
    }
    assert_eq!(served, [(40, 1)]);
}

#[test]
fn batches_of_the_paper_baseline_wait_for_their_window() {
    let config = SchedulerConfig {
        policy: "routebalance".into(),
        ..SchedulerConfig::default()
    };
    let mut stage = Stage::new(config, &[spec("a", "m", 8, None)]);
    assert_eq!(stage.arrive(request(0)), []);
    assert_eq!(stage.scheduler.next_wakeup(), Some(Timestamp::from_secs_f64(0.1)));
    assert_eq!(dispatched(&stage.pass(0.1)), [(0, 0)]);
    for id in 1..4 {
        assert_eq!(stage.arrive(request(id)), []);
    }
    assert_eq!(dispatched(&stage.arrive(request(4))).len(), 4);
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(u64, i32, bool),
    FirstToken(u64),
    Tokens(u64, u32),
    Finish(u64),
    Judge(u64, bool),
    Fail(u64, u8),
    Cancel(u64),
    Sample(usize, bool, u32),
    Admin(usize, bool),
    Remove(usize),
    Upsert(usize),
    Pass(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let id = 0_u64..40;
    prop_oneof![
        6 => (id.clone(), -1..2_i32, any::<bool>()).prop_map(|(id, priority, auto)| Step::Arrive(id, priority, auto)),
        2 => id.clone().prop_map(Step::FirstToken),
        2 => (id.clone(), 1..90_u32).prop_map(|(id, count)| Step::Tokens(id, count)),
        5 => id.clone().prop_map(Step::Finish),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, sure)| Step::Judge(id, sure)),
        2 => (id.clone(), 0..4_u8).prop_map(|(id, kind)| Step::Fail(id, kind)),
        1 => id.prop_map(Step::Cancel),
        1 => (0..3_usize, any::<bool>(), 0..9_u32).prop_map(|(at, healthy, running)| Step::Sample(at, healthy, running)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(at, draining)| Step::Admin(at, draining)),
        1 => (0..3_usize).prop_map(Step::Remove),
        1 => (0..3_usize).prop_map(Step::Upsert),
        3 => (0..900_u32).prop_map(Step::Pass),
    ]
}

/// What every third request asks for.
const SLO_S: f64 = 0.4;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Two small ones and one that is better.
fn declared(at: usize) -> InstanceSpec {
    let (model, quality) = if at == 2 { ("n", 0.8) } else { ("m", 0.5) };
    let mut spec = spec(NAMES[at], model, 2, None);
    spec.model.quality = Some(quality);
    spec
}

fn event_of(step: &Step) -> Event {
    let request_id = |id: &u64| RequestId(*id);
    match step {
        Step::Arrive(id, priority, auto) => {
            let target = if *auto { Target::Auto } else { Target::Model("m".into()) };
            let wishes = Wishes {
                priority: *priority,
                weights: Some(Preset::Balanced.weights()),
                ttft_slo_s: id.is_multiple_of(3).then_some(SLO_S),
                ..Wishes::default()
            };
            Event::Arrived(vec![Request {
                target,
                wishes,
                ..request(*id)
            }])
        }
        Step::FirstToken(id) => Event::FirstToken {
            request: request_id(id),
        },
        Step::Tokens(id, count) => Event::Tokens {
            request: request_id(id),
            count: *count,
        },
        Step::Finish(id) => Event::Finished {
            request: request_id(id),
            usage: Some(TokenUsage {
                prompt_tokens: 100,
                output_tokens: 30,
            }),
        },
        Step::Judge(id, sure) => Event::Judged {
            request: request_id(id),
            confidence: if *sure { 0.9 } else { 0.1 },
            usage: None,
        },
        Step::Fail(id, kind) => {
            let failure = [
                Failure::Unreached,
                Failure::Overloaded,
                Failure::Final,
                Failure::Errored,
            ][usize::from(*kind)];
            Event::Failed {
                request: request_id(id),
                failure,
            }
        }
        Step::Cancel(id) => Event::Cancelled {
            request: request_id(id),
        },
        Step::Sample(at, healthy, running) => Event::Fleet(FleetDelta::Sample {
            name: NAMES[*at].into(),
            sample: EngineSample {
                healthy: *healthy,
                running: *running,
                waiting: 0,
                kv_usage: 0.1,
                power: None,
                age_s: 0.1,
            },
        }),
        Step::Admin(at, draining) => Event::Fleet(FleetDelta::Admin {
            name: NAMES[*at].into(),
            draining: *draining,
            weight: 1.0,
        }),
        Step::Remove(at) => Event::Fleet(FleetDelta::Remove {
            name: NAMES[*at].into(),
        }),
        Step::Upsert(at) => Event::Fleet(FleetDelta::Upsert(declared(*at))),
        Step::Pass(_) => Event::Timer,
    }
}

/// What the outside knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Out,
}

/// What the outside does to its own picture before it tells the scheduler.
fn follow(step: &Step, stage: &mut Stage, fates: &mut BTreeMap<u64, Fate>, down: &mut BTreeSet<u32>) {
    let state_of = |at: &usize| {
        let instance = stage
            .scheduler
            .fleet()
            .instance(InstanceId(*at as u32))
            .expect("declared at the start");
        (instance.present, instance.draining)
    };
    let out = |id: &u64| fates.get(id) == Some(&Fate::Out);
    match step {
        Step::Arrive(id, ..) => _ = fates.entry(*id).or_insert(Fate::Waiting),
        Step::Pass(ms) => stage.now += Duration::from_millis(u64::from(*ms)),
        Step::Cancel(id) => _ = fates.remove(id),
        Step::Finish(id) | Step::Fail(id, 2) if out(id) => _ = fates.remove(id),
        Step::Judge(id, _) | Step::Fail(id, _) if out(id) => _ = fates.insert(*id, Fate::Waiting),
        Step::Admin(at, true) | Step::Remove(at) => _ = down.insert(*at as u32),
        Step::Admin(at, false) if state_of(at).0 => _ = down.remove(&(*at as u32)),
        Step::Upsert(at) if !state_of(at).1 => _ = down.remove(&(*at as u32)),
        _ => {}
    }
}

fn run(policy: &str, steps: &[Step]) -> Result<Vec<String>, TestCaseError> {
    let config = SchedulerConfig {
        policy: policy.into(),
        queue_limit: 5,
        queue_timeout_s: 1.0,
        cascade: Some(crate::CascadeSettings::default()),
        ..SchedulerConfig::default()
    };
    let specs = [0, 1, 2].map(declared);
    let mut stage = Stage::new(config, &specs);
    let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
    let mut down: BTreeSet<u32> = BTreeSet::new();
    let mut log = Vec::new();
    for step in steps {
        follow(step, &mut stage, &mut fates, &mut down);
        for action in stage.on(event_of(step)) {
            match &action {
                Action::Dispatch(dispatch) => {
                    // Never twice, and never to an instance that is gone or draining.
                    prop_assert_eq!(fates.insert(dispatch.request.0, Fate::Out), Some(Fate::Waiting));
                    prop_assert!(!down.contains(&dispatch.instance.0), "{:?} {:?}", step, dispatch);
                    // Never where what is left of its SLO is less than the bound.
                    let by_then_s = dispatch.waited_s + dispatch.estimate.bounds.ttft_s;
                    prop_assert!(
                        !dispatch.request.0.is_multiple_of(3) || by_then_s <= SLO_S + 1e-9,
                        "{:?}",
                        dispatch
                    );
                }
                Action::Refuse { request, .. } | Action::Deliver { request } => {
                    prop_assert_eq!(fates.remove(&request.0), Some(Fate::Waiting));
                }
                Action::Queue { request, .. } => {
                    prop_assert_eq!(fates.get(&request.0), Some(&Fate::Waiting));
                }
            }
            log.push(format!("{:?} {action:?}", stage.now));
        }
        let out = fates.values().filter(|fate| **fate == Fate::Out).count();
        prop_assert_eq!(stage.scheduler.in_flight(), out);
        prop_assert_eq!(stage.scheduler.fleet().ledger().len(), out);
        let (queue, fleet) = (&stage.scheduler.queue, stage.scheduler.fleet());
        let models = fleet.models().map(|model| Target::Model(model.name.clone()));
        for target in models.chain([Target::Auto]) {
            prop_assert!(queue.waiting_for(&target) <= 5);
        }
        if policy != "routebalance" {
            prop_assert_eq!(stage.scheduler.queued(), fates.len() - out);
        }
    }
    Ok(log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    // No request is lost or answered twice, the ledger and the outside agree after every event, and the same events
    // give the same actions.
    #[test]
    fn every_request_has_one_fate(policy in 0..equipoise_policy::names().len(), steps in proptest::collection::vec(any_step(), 0..150)) {
        let policy = equipoise_policy::names()[policy];
        prop_assert_eq!(run(policy, &steps)?, run(policy, &steps)?);
    }
}

#[test]
fn a_retry_that_waited_for_the_budget_is_paid_once() {
    let config = SchedulerConfig {
        retries: crate::RetrySettings {
            share: 0.0,
            floor_per_s: 0.2,
        },
        ..SchedulerConfig::default()
    };
    let mut stage = Stage::new(config, &["a", "b", "c", "d"].map(|name| spec(name, "m", 4, None)));
    for id in 0..3 {
        stage.arrive(request(id));
        stage.on(Event::Failed {
            request: RequestId(id),
            failure: Failure::Unreached,
        });
    }
    assert_eq!(stage.scheduler.queued(), 1, "two in ten seconds are allowed");
    // A half of what was spent has faded.
    assert_eq!(dispatched(&stage.pass(7.0)).len(), 1);
    let now = stage.now;
    assert!(!stage.scheduler.retries.allows(now, 0));
    let later = now + Duration::from_secs(7);
    assert!(stage.scheduler.retries.allows(later, 0), "paid twice it would not be");
}
