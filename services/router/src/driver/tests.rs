use std::collections::BTreeSet;
use std::sync::Arc;

use equipoise_fleet::{FleetDelta, InstanceSpec, LimitsSpec, ModelProfile};
use equipoise_policy::{Prefix, Target, Wishes};

use super::*;

fn driver() -> Driver {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = RouterMetrics::new(&mut registry);
    let driver = Driver::new(SchedulerConfig::default(), None, metrics).expect("valid");
    driver.on_event(Event::Fleet(FleetDelta::Upsert(InstanceSpec {
        name: "a".to_owned(),
        pool: "pool".to_owned(),
        model: ModelProfile::named("m"),
        gpu: None,
        tensor_parallel: 1,
        endpoint: None,
        measured: None,
        serving: None,
        limits: LimitsSpec {
            max_num_seqs: Some(100_000),
            ..LimitsSpec::default()
        },
        labels: std::collections::BTreeMap::new(),
        gpus: Vec::new(),
        emulated: false,
    })));
    driver
}

fn request(id: RequestId) -> Request {
    Request {
        id,
        target: Target::Auto,
        tenant: None,
        prompt_tokens: 10,
        max_output_tokens: Some(10),
        streams: true,
        forecast: None,
        prefix: Prefix::default(),
        wishes: Wishes::default(),
    }
}

#[test]
fn who_finds_the_lock_taken_is_decided_by_whoever_has_it() {
    let driver = driver();
    let (first, mut first_mail) = driver.open_mailbox();
    let (second, mut second_mail) = driver.open_mailbox();
    driver.with_core(|core| {
        let decided = core.scheduler.in_flight();
        driver.arrive(request(first));
        driver.arrive(request(second));
        assert_eq!(
            core.scheduler.in_flight(),
            decided,
            "nothing happens behind the owner's back"
        );
        assert_eq!(driver.arrivals.lock().len(), 2);
    });
    for mail in [&mut first_mail, &mut second_mail] {
        assert!(matches!(mail.try_recv(), Some(Verdict::Dispatch(_))));
    }
    assert!(driver.arrivals.lock().is_empty());
}

#[test]
fn a_cancellation_never_overtakes_its_request() {
    let driver = driver();
    let (id, mut mail) = driver.open_mailbox();
    // As if the arrival had found the lock taken and its owner had not looked yet.
    driver.arrivals.lock().push(request(id));
    driver.on_event(Event::Cancelled { request: id });
    assert!(mail.try_recv().is_some());
    driver.with_scheduler(|scheduler| {
        assert_eq!(scheduler.in_flight(), 0);
        assert!(scheduler.fleet().ledger().is_empty());
    });
}

#[test]
fn a_full_queue_waits_for_the_lock_and_loses_nobody() {
    let driver = driver();
    for _ in 0..MOST_ARRIVALS {
        let id = driver.open_mailbox().0;
        driver.arrivals.lock().push(request(id));
    }
    let (id, mut mail) = driver.open_mailbox();
    driver.arrive(request(id));
    assert!(matches!(mail.try_recv(), Some(Verdict::Dispatch(_))));
    assert_eq!(driver.with_scheduler(Scheduler::in_flight), MOST_ARRIVALS + 1);
}

#[test]
fn many_threads_each_get_one_verdict_for_each_request() {
    const THREADS: usize = 8;
    const EACH: usize = 200;
    let driver = Arc::new(driver());
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let driver = Arc::clone(&driver);
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                for turn in 0..EACH {
                    let (id, mut mail) = driver.open_mailbox();
                    driver.arrive(request(id));
                    if (thread + turn) % 3 == 0 {
                        driver.on_event(Event::Cancelled { request: id });
                    }
                    let verdict = loop {
                        match mail.try_recv() {
                            Some(verdict) => break Some(verdict),
                            None => std::thread::yield_now(),
                        }
                    };
                    match verdict {
                        Some(Verdict::Dispatch(dispatch)) => assert_eq!(dispatch.request, id),
                        other => panic!("{other:?}"),
                    }
                    assert!(mail.try_recv().is_none(), "one verdict");
                    driver.close_mailbox(id);
                    driver.on_event(Event::Finished {
                        request: id,
                        usage: None,
                    });
                    seen.push(id);
                }
                seen
            })
        })
        .collect();
    let ids: BTreeSet<RequestId> = threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("ends"))
        .collect();
    assert_eq!(ids.len(), THREADS * EACH);
    assert!(driver.arrivals.lock().is_empty());
    driver.with_scheduler(|scheduler| assert!(scheduler.fleet().ledger().is_empty()));
}
