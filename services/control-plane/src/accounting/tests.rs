use super::*;
use equipoise_proto::v1::{EnergySource as Source, Model, Tier};
use equipoise_store::Precondition;
use equipoise_telemetry::Registry;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const GRACE: Duration = Duration::from_millis(2500);

fn accounting() -> Accounting {
    Accounting::new(GRACE, ControlMetrics::new(&mut Registry::default()))
}

fn instance(name: &str) -> Instance {
    Instance {
        name: name.to_owned(),
        pool: "pool".to_owned(),
        model: Some(Model {
            name: "m".to_owned(),
            ..Model::default()
        }),
        tier: Some(Tier {
            gpu: "H100".to_owned(),
            tensor_parallel: 1,
            measured: String::new(),
            serving: String::new(),
        }),
        ..Instance::default()
    }
}

fn energy(start_s: u64, end_s: u64, measured_mj: u64, idle_mj: u64) -> EnergySample {
    EnergySample {
        instance: "a".to_owned(),
        start_unix_ns: start_s * SECOND,
        end_unix_ns: end_s * SECOND,
        measured_mj,
        idle_mj,
        source: Source::Counter.into(),
        flaws: Vec::new(),
    }
}

fn activity(decision: &str, tenant: &str, start_s: u64, end_s: u64) -> Activity {
    Activity {
        decision: decision.to_owned(),
        instance: "a".to_owned(),
        tenant: tenant.to_owned(),
        start_unix_ns: start_s * SECOND,
        end_unix_ns: end_s * SECOND,
        prefill_tokens: 0,
        decode_tokens: 10,
        context_tokens: 100,
        finished: false,
        wasted: false,
    }
}

fn rows(accounting: &Accounting, by: Grouping) -> BTreeMap<String, EnergyFigures> {
    accounting
        .all
        .report(by)
        .rows
        .into_iter()
        .map(|row| (row.key, row.figures))
        .collect()
}

#[test]
fn an_interval_waits_for_every_router_and_then_is_split() {
    let mut accounting = accounting();
    accounting.take_energy(&instance("a"), &energy(100, 101, 1000, 200), 101 * SECOND);
    accounting.take_activity("r1", vec![activity("d1", "blue", 100, 101)], 101 * SECOND, 101 * SECOND);
    accounting.take_activity(
        "r2",
        vec![activity("d1", "red", 100, 101)],
        101 * SECOND - 1,
        101 * SECOND,
    );
    accounting.settle(101 * SECOND);
    assert_eq!(accounting.total().measured_mj, 0, "r2 has not told all yet");
    accounting.take_activity("r2", Vec::new(), 101 * SECOND, 101 * SECOND);
    accounting.settle(101 * SECOND);
    let tenants = rows(&accounting, Grouping::Tenant);
    assert_eq!(
        (
            tenants["blue"].attributed_mj,
            tenants["red"].attributed_mj,
            tenants["-"].idle_mj
        ),
        (400, 400, 200)
    );
    assert_eq!(rows(&accounting, Grouping::Pool)["pool"].decode_tokens, 20);
}

#[test]
fn without_routers_the_grace_decides() {
    let mut accounting = accounting();
    accounting.take_energy(&instance("a"), &energy(100, 101, 1000, 200), 101 * SECOND);
    accounting.settle(103 * SECOND);
    assert_eq!(accounting.total().measured_mj, 0);
    accounting.settle(101 * SECOND + 2_500_000_000);
    let total = accounting.total();
    assert_eq!(
        (
            total.measured_mj,
            total.idle_mj,
            total.unattributed_mj,
            total.attributed_mj
        ),
        (1000, 200, 800, 0)
    );
}

#[test]
fn an_interval_sent_twice_counts_once() {
    let mut accounting = accounting();
    for _ in 0..2 {
        accounting.take_energy(&instance("a"), &energy(100, 101, 1000, 0), 101 * SECOND);
    }
    accounting.take_energy(&instance("a"), &energy(100, 102, 1000, 0), 101 * SECOND);
    accounting.take_energy(&instance("a"), &energy(105, 105, 1000, 0), 101 * SECOND);
    accounting.settle_all();
    assert_eq!(accounting.total().measured_mj, 1000);
    assert_eq!(accounting.metrics.rejected_energy.get(), 3);
}

#[test]
fn late_activity_gets_no_energy_but_its_tokens_count_once() {
    let mut accounting = accounting();
    accounting.take_energy(&instance("a"), &energy(100, 101, 1000, 0), 101 * SECOND);
    accounting.settle_all();
    accounting.take_activity(
        "r1",
        vec![Activity {
            finished: true,
            ..activity("d1", "blue", 100, 101)
        }],
        101 * SECOND,
        104 * SECOND,
    );
    accounting.take_energy(&instance("a"), &energy(101, 102, 500, 0), 104 * SECOND);
    accounting.take_energy(&instance("a"), &energy(102, 103, 500, 0), 104 * SECOND);
    accounting.settle_all();
    let total = accounting.total();
    assert_eq!(
        (
            total.attributed_mj,
            total.unattributed_mj,
            total.decode_tokens,
            total.requests
        ),
        (0, 2000, 10, 1)
    );
}

#[test]
fn a_request_that_fails_late_has_wasted_all_it_was_charged_for() {
    let mut accounting = accounting();
    let hour_end = 3600 * 10;
    // Two intervals, in two hours; the request fails in the second.
    for start in [hour_end - 1, hour_end] {
        let failed = start == hour_end;
        let slice = Activity {
            finished: failed,
            wasted: failed,
            ..activity("d1", "blue", start, start + 1)
        };
        accounting.take_activity("r1", vec![slice], (start + 1) * SECOND, (start + 1) * SECOND);
        accounting.take_energy(
            &instance("a"),
            &energy(start, start + 1, 1000, 100),
            (start + 1) * SECOND,
        );
        accounting.settle((start + 1) * SECOND);
        assert_eq!(accounting.total().wasted_mj, if failed { 1800 } else { 0 });
    }
    assert!(accounting.charged.is_empty());
    let by_hour: Vec<_> = accounting
        .hours
        .values()
        .map(|ledger| ledger.report(Grouping::Pool).total.wasted_mj)
        .collect();
    assert_eq!(by_hour.iter().sum::<u64>(), 1800);
}

#[test]
fn activity_of_an_instance_without_a_meter_is_given_up_in_time() {
    let mut accounting = accounting();
    accounting.take_activity("r1", vec![activity("d1", "blue", 100, 101)], 101 * SECOND, 101 * SECOND);
    accounting.settle(120 * SECOND);
    assert_eq!(
        (accounting.accounts.len(), accounting.metrics.dropped_activity.get()),
        (1, 0)
    );
    accounting.settle(162 * SECOND);
    assert_eq!(
        (accounting.accounts.len(), accounting.metrics.dropped_activity.get()),
        (0, 1)
    );
}

/// Writes the marked records into the store as a control plane does.
fn plane(accounting: Accounting, store: equipoise_store::SharedStore) -> Plane {
    let mut registry = Registry::default();
    let metrics = ControlMetrics::new(&mut registry);
    Plane {
        config: ControlPlaneConfig::default(),
        store,
        routing: parking_lot::Mutex::new(crate::routing::Routing::new(1)),
        accounting: parking_lot::Mutex::new(accounting),
        leases: dashmap::DashMap::new(),
        changed: tokio::sync::Notify::new(),
        metrics,
        registry,
        shutdown: tokio_util::sync::CancellationToken::new(),
    }
}

#[tokio::test]
async fn old_hours_are_folded_once_even_if_their_records_are_still_there() {
    let store = equipoise_store::open("embedded").await.expect("opens");
    let (old, recent) = (1000 * 3600, (1000 + HOURS_KEPT + 5) * 3600);
    let mut accounting = accounting();
    for start in [old, old + 3600, recent] {
        accounting.take_energy(&instance("a"), &energy(start, start + 1, 1000, 400), start * SECOND);
    }
    accounting.settle_all();
    let first = plane(accounting, store.clone());
    persist(&first).await.expect("writes");
    let hourly = store.list("energy/").await.expect("lists");
    assert_eq!(hourly.entries.len(), 3);

    first.accounting.lock().settle(recent * SECOND);
    persist(&first).await.expect("writes");
    let keys = async || {
        let entries = store.list("energy/").await.expect("lists").entries;
        entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    let folded = keys().await;
    assert!(
        folded.len() == 2 && folded[0] == "energy/control-plane/0/a",
        "{folded:?}"
    );
    // As if the process had ended before it deleted them.
    for entry in &hourly.entries {
        store
            .put(&entry.key, entry.versioned.value.clone(), Precondition::None, None)
            .await
            .expect("puts");
    }
    let metrics = ControlMetrics::new(&mut Registry::default());
    let again = Accounting::load(&first.config, &*store, metrics).await.expect("loads");
    let second = plane(again, store.clone());
    assert_eq!(second.accounting.lock().total(), first.accounting.lock().total());
    assert_eq!(second.accounting.lock().total().measured_mj, 3000);
    let whole = report(&second, Grouping::Pool, 0, 0)
        .await
        .expect("reports")
        .total
        .expect("has a total");
    let late = report(&second, Grouping::Pool, old * SECOND, 0)
        .await
        .expect("reports")
        .total
        .expect("has a total");
    assert_eq!((whole.measured_mj, late.measured_mj), (3000, 1000));
    persist(&second).await.expect("writes");
    assert_eq!(keys().await, folded, "the leftovers are deleted");
}

/// The sums of an instance after a restart over the same file.
async fn restarted(url: &str, config: &ControlPlaneConfig) -> Accounting {
    let store = equipoise_store::open(url).await.expect("opens again");
    let metrics = ControlMetrics::new(&mut Registry::default());
    let again = Accounting::load(config, &*store, metrics).await.expect("loads");
    store.close().await.expect("closes");
    again
}

#[tokio::test]
async fn made_up_tenants_of_one_instance_cost_no_other_its_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("state").display());
    let mut accounting = accounting();
    let mut many = Vec::new();
    for number in 0..3000 {
        many.push(activity(&format!("d{number}"), &format!("{number:0>124}"), 100, 101));
    }
    accounting.take_activity("r1", many, 101 * SECOND, 101 * SECOND);
    accounting.take_energy(&instance("a"), &energy(100, 101, 900_000, 200), 101 * SECOND);
    let mut of_another = energy(100, 101, 7000, 1000);
    "b".clone_into(&mut of_another.instance);
    accounting.take_energy(&instance("b"), &of_another, 101 * SECOND);
    accounting.settle_all();
    let store = equipoise_store::open(&url).await.expect("opens");
    let plane = plane(accounting, store.clone());
    persist(&plane).await.expect("writes");
    store.close().await.expect("closes");

    let again = restarted(&url, &plane.config).await;
    let before = plane.accounting.lock();
    assert_eq!(again.total(), before.total());
    assert_eq!(again.total().measured_mj, 907_000);
    let tenants = rows(&again, Grouping::Tenant);
    assert_eq!(tenants, rows(&before, Grouping::Tenant));
    let others = &tenants[equipoise_energy::OTHER_TENANTS];
    assert_eq!(tenants.len(), equipoise_energy::LIMIT_TENANTS + 2);
    assert_eq!(
        (others.attributed_mj > 0, others.decode_tokens),
        (true, 10 * (3000 - equipoise_energy::LIMIT_TENANTS as u64))
    );
    assert!(tenants.values().all(EnergyFigures::balances));
}

#[tokio::test]
async fn a_record_that_the_store_refuses_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("state").display());
    let mut accounting = accounting();
    // A model whose name alone is more than a value may have, on the first instance by name.
    let mut huge = instance("a");
    huge.model.as_mut().expect("has a model").name = "m".repeat(equipoise_store::LIMIT_VALUE_BYTES);
    accounting.take_energy(&huge, &energy(100, 101, 1000, 0), 101 * SECOND);
    let mut of_another = energy(100, 101, 7000, 1000);
    "b".clone_into(&mut of_another.instance);
    accounting.take_energy(&instance("b"), &of_another, 101 * SECOND);
    accounting.settle_all();
    let store = equipoise_store::open(&url).await.expect("opens");
    let plane = plane(accounting, store.clone());
    for _ in 0..2 {
        let error = persist(&plane).await.expect_err("one is too large");
        assert!(matches!(error, StoreError::ValueTooLarge { .. }), "{error}");
        assert_eq!(plane.accounting.lock().dirty.len(), 1, "only that one is tried again");
    }
    store.close().await.expect("closes");
    let again = restarted(&url, &plane.config).await;
    assert_eq!(again.total().measured_mj, 7000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, in whatever order: what was accepted is what the ledger has measured, every row adds up, the
    /// hours add up to the whole.
    #[test]
    fn nothing_is_lost(
        events in proptest::collection::vec(
            (0..4_u8, 0..3_u8, 0..5_u64, 0..5_u64, 0..50_000_u64, 0..60_000_u64, any::<bool>(), any::<bool>()), 1..120,
        ),
    ) {
        let mut accounting = accounting();
        let mut accepted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut now = 7199 * SECOND;
        for (kind, which, back, length, measured, idle, finished, wasted) in events {
            let name = format!("i{which}");
            match kind {
                0 => {
                    let (until, sum) = accepted.entry(name.clone()).or_default();
                    let start = now - back * SECOND / 4;
                    let end = start + length * SECOND / 4;
                    let mut sample = energy(0, 0, measured, idle);
                    sample.instance.clone_from(&name);
                    (sample.start_unix_ns, sample.end_unix_ns) = (start, end);
                    accounting.take_energy(&instance(&name), &sample, now);
                    if end > start && start >= *until {
                        *until = end;
                        *sum += measured;
                    }
                }
                1 => {
                    let start = now - back * SECOND / 4;
                    let slice = Activity {
                        instance: name,
                        tenant: format!("t{}", measured % 3),
                        start_unix_ns: start,
                        end_unix_ns: start + length * SECOND / 8,
                        finished,
                        wasted,
                        ..activity(&format!("d{}", idle % 7), "", 0, 0)
                    };
                    accounting.take_activity(&format!("r{which}"), vec![slice], now, now);
                }
                2 => now += length * SECOND / 2,
                _ => accounting.settle(now),
            }
        }
        accounting.settle_all();
        let total = accounting.all.report(Grouping::Pool).total;
        prop_assert_eq!(total.measured_mj, accepted.values().map(|(_, sum)| sum).sum::<u64>());
        let mut hours = EnergyFigures::default();
        for ledger in accounting.hours.values() {
            hours += &ledger.report(Grouping::Pool).total;
        }
        prop_assert_eq!(hours, total);
        for by in [Grouping::Pool, Grouping::Tenant] {
            for (key, figures) in rows(&accounting, by) {
                prop_assert!(figures.balances(), "{} {:?}", key, figures);
            }
        }
    }
}
