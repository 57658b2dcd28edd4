use super::*;
use crate::attribution::StepTerms;
use crate::interval::{ActivitySlice, attribute_interval};
use crate::report::Grouping;
use crate::source::EnergyFlaw;
use equipoise_types::Timestamp;
use proptest::prelude::*;

fn facts(instance: &str, pool: &str, model: &str, gpu: &str) -> InstanceFacts {
    let [instance, pool, model, gpu] = [instance, pool, model, gpu].map(str::to_owned);
    InstanceFacts {
        instance,
        pool,
        model,
        gpu,
    }
}

fn interval(seconds: u64, measured: u64, idle: u64, source: EnergySource) -> IntervalEnergy {
    IntervalEnergy {
        start: Timestamp(0),
        end: Timestamp(seconds * 1_000_000_000),
        measured: MilliJoules(measured),
        idle: MilliJoules(idle),
        source,
        flaws: Vec::new(),
    }
}

fn owner(tenant: &str, wasted: bool) -> SliceOwner<'_> {
    SliceOwner {
        tenant,
        prefill_tokens: 100,
        decode_tokens: 50,
        requests: 1,
        wasted,
    }
}

fn sample_ledger() -> EnergyLedger {
    let mut ledger = EnergyLedger::new();
    let large = facts("a", "chat", "Llama-3.1-70B", "H100");
    let split = IntervalSplit {
        idle: MilliJoules(700_000),
        unattributed: MilliJoules(1),
        parts: vec![(0, MilliJoules(900_000)), (1, MilliJoules(399_999))],
    };
    let owners = [owner("acme", false), owner("zeta", true)];
    ledger
        .record(
            &large,
            &interval(10, 2_000_000, 700_000, EnergySource::Counter),
            &split,
            &owners,
        )
        .expect("balanced");
    let small = facts("b", "batch", "Qwen2.5-7B", "A30");
    let split = IntervalSplit {
        idle: MilliJoules(10_000),
        unattributed: MilliJoules(0),
        parts: vec![(0, MilliJoules(90_000))],
    };
    let mut flawed = interval(10, 100_000, 10_000, EnergySource::Power);
    flawed.flaws.push(EnergyFlaw::CounterFrozen);
    ledger
        .record(&small, &flawed, &split, &[owner("acme", false)])
        .expect("balanced");
    ledger
}

#[test]
fn groups_are_sorted_and_tenants_carry_no_idle_energy() {
    let ledger = sample_ledger();
    let by_pool = ledger.report(Grouping::Pool);
    assert_eq!(
        by_pool.rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
        ["batch", "chat"]
    );
    assert_eq!(by_pool.rows[0].figures.flawed_intervals, 1);
    assert_eq!(by_pool.rows[0].figures.power_mj, 100_000);
    assert_eq!(by_pool.total.measured_mj, 2_100_000);
    assert_eq!((by_pool.total.requests, by_pool.total.decode_tokens), (3, 150));
    let by_tenant = ledger.report(Grouping::Tenant);
    let rows: Vec<_> = by_tenant
        .rows
        .iter()
        .map(|row| (row.key.as_str(), row.figures.measured_mj, row.figures.wasted_mj))
        .collect();
    assert_eq!(
        rows,
        [("-", 710_001, 0), ("acme", 990_000, 0), ("zeta", 399_999, 399_999)]
    );
    assert_eq!(by_tenant.total, by_pool.total);
}

#[test]
fn the_table_ends_with_the_balance() {
    let text = sample_ledger().report(Grouping::Pool).render();
    println!("{text}");
    let last = text.lines().last().expect("not empty");
    assert_eq!(
        last,
        "attributed + idle + unattributed = measured: 1,389,999 + 710,000 + 1 = 2,100,000 mJ"
    );
    let widths: Vec<_> = text.lines().take(6).map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|&width| width == widths[0]), "{widths:?}");
    assert!(text.contains("66.2"), "share that was used");
    let empty = EnergyLedger::new().report(Grouping::Tenant).render();
    assert!(empty.ends_with("0 + 0 + 0 = 0 mJ\n"), "{empty}");
}

#[test]
fn what_does_not_add_up_is_refused_and_changes_nothing() {
    let mut ledger = sample_ledger();
    let before = ledger.clone();
    let facts = facts("a", "chat", "Llama-3.1-70B", "H100");
    let sample = interval(1, 100, 0, EnergySource::Counter);
    let parts = |energy| IntervalSplit {
        parts: vec![(0, MilliJoules(energy))],
        ..IntervalSplit::default()
    };
    assert!(matches!(
        ledger.record(&facts, &sample, &parts(99), &[owner("t", false)]),
        Err(LedgerError::Unbalanced { .. })
    ));
    assert!(matches!(
        ledger.record(&facts, &sample, &parts(100), &[]),
        Err(LedgerError::NoOwner { .. })
    ));
    let huge = interval(1, u64::MAX, 0, EnergySource::Counter);
    assert!(matches!(
        ledger.record(&facts, &huge, &parts(u64::MAX), &[owner("t", false)]),
        Err(LedgerError::Implausible { .. })
    ));
    let mut row = ledger.rows().next().expect("has rows");
    row.figures.measured_mj += 1;
    assert!(matches!(ledger.restore([row]), Err(LedgerError::CorruptRow { .. })));
    assert_eq!(ledger, before);
}

#[test]
fn waste_that_is_known_later_is_moved_once() {
    let mut ledger = sample_ledger();
    let facts = facts("b", "batch", "Qwen2.5-7B", "A30");
    assert_eq!(
        ledger.mark_wasted(&facts, "acme", MilliJoules(60_000)),
        MilliJoules(60_000)
    );
    assert_eq!(
        ledger.mark_wasted(&facts, "acme", MilliJoules(60_000)),
        MilliJoules(30_000)
    );
    assert!(
        ledger
            .report(Grouping::Pool)
            .rows
            .iter()
            .all(|row| row.figures.balances())
    );
}

#[test]
fn stored_rows_come_back() {
    let ledger = sample_ledger();
    let json = serde_json::to_string(&ledger.rows().collect::<Vec<_>>()).expect("plain data");
    let mut restored = EnergyLedger::new();
    restored
        .restore(serde_json::from_str::<Vec<LedgerRow>>(&json).expect("as written"))
        .expect("adds up");
    assert_eq!(restored, ledger);
    restored.merge(&ledger);
    assert_eq!(restored.report(Grouping::Gpu).total.measured_mj, 2 * 2_100_000);
}

#[test]
fn made_up_tenants_are_summed_under_one_name_and_nothing_is_lost() {
    let (a, b) = (facts("a", "p", "m", "g"), facts("b", "p", "m", "g"));
    let mut ledger = EnergyLedger::new();
    let names: Vec<String> = (0..LIMIT_TENANTS + 7).map(|number| format!("t{number:04}")).collect();
    for name in &names {
        let split = IntervalSplit {
            idle: MilliJoules(1),
            unattributed: MilliJoules(0),
            parts: vec![(0, MilliJoules(9))],
        };
        ledger
            .record(
                &a,
                &interval(1, 10, 1, EnergySource::Counter),
                &split,
                &[owner(name, false)],
            )
            .expect("balanced");
    }
    // The idle row, the named tenants, and all others.
    assert_eq!(ledger.rows().count(), LIMIT_TENANTS + 2);
    let others = |ledger: &EnergyLedger| {
        let report = ledger.report(Grouping::Tenant);
        report.rows.into_iter().find(|row| row.key == OTHER_TENANTS)
    };
    let figures = others(&ledger).expect("summed").figures;
    assert_eq!((figures.attributed_mj, figures.requests), (7 * 9, 7));
    // One of them failed: what it had is wasted, where it stands.
    let last = names.last().expect("some");
    assert_eq!(ledger.mark_wasted(&a, last, MilliJoules(9)), MilliJoules(9));
    assert_eq!(others(&ledger).expect("summed").figures.wasted_mj, 9);
    // Another instance has room of its own, and one that is known keeps its row.
    let row = |facts: &InstanceFacts, tenant: &str| LedgerRow {
        facts: facts.clone(),
        tenant: tenant.to_owned(),
        figures: EnergyFigures {
            measured_mj: 5,
            attributed_mj: 5,
            power_mj: 5,
            ..EnergyFigures::default()
        },
    };
    ledger
        .restore([row(&b, "late"), row(&a, "t0000"), row(&a, "late")])
        .expect("add up");
    let tenants = ledger.report(Grouping::Tenant).rows;
    let attributed = |name: &str| {
        tenants
            .iter()
            .find(|row| row.key == name)
            .map(|row| row.figures.attributed_mj)
    };
    assert_eq!(attributed("late"), Some(5));
    assert_eq!(attributed("t0000"), Some(14));
    assert_eq!(attributed(OTHER_TENANTS), Some(7 * 9 + 5));
    let mut merged = EnergyLedger::new();
    merged.merge(&ledger);
    assert_eq!(merged.report(Grouping::Pool).total, ledger.report(Grouping::Pool).total);
    assert_eq!(
        merged.report(Grouping::Pool).total.measured_mj,
        10 * names.len() as u64 + 15
    );
    assert!(merged.rows().all(|row| row.figures.balances()));
}

proptest! {
    #[test]
    fn every_row_and_every_total_adds_up(
        records in proptest::collection::vec(
            (0_usize..3, 0_u64..1_000_000, 0_u64..500_000, 0_usize..3,
             proptest::collection::vec((0_usize..3, 0_u64..10, 0_u64..10, 0_u32..500, any::<bool>()), 0..6)),
            0..20,
        ),
    ) {
        let instances = [facts("a", "p", "m", "H100"), facts("b", "p", "n", "A30"), facts("c", "q", "m", "A30")];
        let tenants = ["acme", "zeta", ""];
        let sources = [EnergySource::Counter, EnergySource::Power, EnergySource::Modelled];
        let terms = StepTerms { fixed_joules: 1.0, joules_per_decode_token: 0.1, ..StepTerms::default() };
        let mut ledger = EnergyLedger::new();
        let mut measured = 0;
        for (instance, energy, idle, source, slices) in records {
            let sample = interval(5, energy, idle, sources[source]);
            let activity: Vec<_> = slices.iter().map(|&(_, start, end, decode_tokens, _)| ActivitySlice {
                key: 0,
                start: Timestamp(start * 1_000_000_000),
                end: Timestamp(end * 1_000_000_000),
                prefill_tokens: 0,
                decode_tokens,
                context_tokens: 0,
            }).collect();
            let owners: Vec<_> = slices.iter().map(|&(tenant, _, _, _, wasted)| owner(tenants[tenant], wasted)).collect();
            let split = attribute_interval(&sample, &activity, &terms);
            prop_assert_eq!(ledger.record(&instances[instance], &sample, &split, &owners), Ok(()));
            measured += energy;
        }
        for by in [Grouping::Pool, Grouping::Model, Grouping::Gpu, Grouping::Tenant] {
            let report = ledger.report(by);
            prop_assert_eq!(report.total.measured_mj, measured);
            prop_assert!(report.total.balances());
            let mut sum = EnergyFigures::default();
            for row in &report.rows {
                prop_assert!(row.figures.balances(), "{row:?}");
                let reserved = row.figures.idle_mj + row.figures.unattributed_mj;
                prop_assert!(by != Grouping::Tenant || row.key == NO_TENANT || reserved == 0);
                sum += &row.figures;
            }
            prop_assert_eq!(sum, report.total);
        }
    }
}
