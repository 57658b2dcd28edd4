use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn reading(seconds: f64, energy_mj: Option<u64>, power_mw: Option<u32>) -> CounterReading {
    CounterReading {
        at: Timestamp::from_secs_f64(seconds),
        energy_mj,
        power_mw,
    }
}

fn integrator() -> CounterIntegrator {
    CounterIntegrator::new(MeterLimits {
        frozen_after: 3,
        ..MeterLimits::new(Watts(50.0), Watts(400.0))
    })
}

fn run(readings: &[CounterReading]) -> Vec<GpuEnergy> {
    let mut integrator = integrator();
    readings
        .iter()
        .filter_map(|&reading| integrator.observe(reading))
        .collect()
}

fn total(energies: &[GpuEnergy]) -> u64 {
    energies.iter().map(|energy| energy.energy.0).sum()
}

#[test]
fn a_counter_that_moves_is_the_truth() {
    let energies = run(&[
        reading(0.0, Some(1000), Some(200_000)),
        reading(1.0, Some(201_000), Some(200_000)),
        reading(2.0, Some(421_000), Some(220_000)),
    ]);
    assert_eq!(
        energies.iter().map(|energy| energy.energy.0).collect::<Vec<_>>(),
        [200_000, 220_000]
    );
    assert!(
        energies
            .iter()
            .all(|energy| energy.source == EnergySource::Counter && energy.flaws.is_empty())
    );
    assert_eq!(
        (energies[1].start, energies[1].end),
        (Timestamp(SECOND), Timestamp(2 * SECOND))
    );
}

#[test]
fn a_counter_that_steps_holds_the_interval_open() {
    let energies = run(&[
        reading(0.0, Some(0), Some(200_000)),
        reading(0.05, Some(0), Some(200_000)),
        reading(0.1, Some(20_000), Some(200_000)),
    ]);
    assert_eq!(energies.len(), 1);
    assert_eq!(
        (energies[0].start, energies[0].end, energies[0].energy.0),
        (Timestamp(0), Timestamp(SECOND / 10), 20_000)
    );
    assert!(energies[0].flaws.is_empty());
}

#[test]
fn a_driver_reload_starts_a_new_epoch() {
    let energies = run(&[
        reading(0.0, Some(9_000_000), Some(100_000)),
        reading(1.0, Some(40_000), Some(100_000)),
        reading(2.0, Some(140_000), Some(100_000)),
    ]);
    assert_eq!(
        (energies[0].energy.0, energies[0].source),
        (100_000, EnergySource::Power)
    );
    assert_eq!(energies[0].flaws, [EnergyFlaw::CounterReset]);
    assert_eq!((energies[1].energy.0, energies[1].flaws.len()), (100_000, 0));
    let without_power = run(&[reading(0.0, Some(9_000_000), None), reading(1.0, Some(40_000), None)]);
    assert_eq!(
        (without_power[0].energy.0, &without_power[0].flaws[..]),
        (0, &[EnergyFlaw::CounterReset][..])
    );
}

#[test]
fn a_leap_that_no_board_can_draw_is_not_believed() {
    let energies = run(&[
        reading(0.0, Some(0), Some(100_000)),
        reading(1.0, Some(u64::MAX), Some(100_000)),
    ]);
    assert_eq!(
        (energies[0].energy.0, &energies[0].flaws[..]),
        (100_000, &[EnergyFlaw::CounterReset][..])
    );
}

#[test]
fn a_frozen_counter_is_replaced_by_power_and_does_not_count_twice() {
    let mut readings: Vec<_> = (0..=6)
        .map(|second| reading(f64::from(second), Some(5000), Some(200_000)))
        .collect();
    let frozen = run(&readings);
    assert_eq!(total(&frozen), 6 * 200_000);
    assert!(frozen.iter().all(|energy| energy.source == EnergySource::Power));
    assert!(frozen.iter().all(|energy| energy.flaws == [EnergyFlaw::CounterFrozen]));
    assert_eq!(frozen[0].start, Timestamp(0));

    // It wakes up and makes up for all of it ...
    readings.push(reading(7.0, Some(5000 + 7 * 200_000), Some(200_000)));
    assert_eq!(total(&run(&readings)), 7 * 200_000);
    // ... or goes on where it stood.
    readings.pop();
    readings.push(reading(7.0, Some(5000 + 200_000), Some(200_000)));
    assert_eq!(total(&run(&readings)), 7 * 200_000);
}

#[test]
fn without_a_counter_power_is_integrated() {
    let energies = run(&[
        reading(0.0, None, Some(100_000)),
        reading(1.0, None, Some(300_000)),
        reading(2.0, None, Some(300_000)),
    ]);
    assert_eq!(total(&energies), 500_000);
    assert!(
        energies
            .iter()
            .all(|energy| energy.source == EnergySource::Power && energy.flaws.is_empty())
    );
}

#[test]
fn a_counter_that_is_away_for_a_while_does_not_count_twice() {
    let energies = run(&[
        reading(0.0, Some(0), Some(100_000)),
        reading(1.0, None, Some(100_000)),
        reading(2.0, None, Some(100_000)),
        reading(3.0, Some(300_000), Some(100_000)),
    ]);
    assert_eq!(total(&energies), 300_000);
}

#[test]
fn a_lost_gpu_is_flagged_and_its_counter_tells_later() {
    let energies = run(&[
        reading(0.0, Some(0), Some(100_000)),
        reading(1.0, None, None),
        reading(2.0, None, None),
        reading(3.0, Some(250_000), Some(100_000)),
        reading(4.0, Some(350_000), Some(100_000)),
    ]);
    assert_eq!(
        energies.iter().map(|energy| energy.energy.0).collect::<Vec<_>>(),
        [0, 0, 250_000, 100_000]
    );
    assert!(energies[..3].iter().all(|energy| energy.flaws == [EnergyFlaw::GpuLost]));
    assert!(energies[3].flaws.is_empty());
}

#[test]
fn a_disagreement_is_flagged() {
    let apart = |power| {
        let readings: Vec<_> = (0..=6)
            .map(|second| reading(f64::from(second), Some(100_000 * second as u64), Some(power)))
            .collect();
        run(&readings)
            .iter()
            .any(|energy| energy.flaws.contains(&EnergyFlaw::Disagreement))
    };
    assert!(apart(110_000));
    assert!(apart(90_000));
    assert!(!apart(103_000));
}

#[test]
fn readings_out_of_order_are_ignored() {
    let energies = run(&[
        reading(1.0, Some(0), None),
        reading(0.5, Some(9), None),
        reading(1.0, Some(9), None),
        reading(2.0, Some(50), None),
    ]);
    assert_eq!(energies.len(), 1);
    assert_eq!(energies[0].energy.0, 50);
}

proptest! {
    #[test]
    fn never_negative_never_huge_never_a_gap(
        steps in proptest::collection::vec(
            (0_u64..3 * SECOND, proptest::option::of(prop_oneof![0_u64..2_000_000, any::<u64>()]), proptest::option::of(any::<u32>())),
            1..60,
        ),
    ) {
        let mut integrator = integrator();
        let mut now = 0;
        let mut first = None;
        let mut closed = None;
        let mut sum = 0_u128;
        for (step, energy_mj, power_mw) in steps {
            now += step;
            first.get_or_insert(now);
            if let Some(energy) = integrator.observe(CounterReading { at: Timestamp(now), energy_mj, power_mw }) {
                prop_assert!(energy.start < energy.end);
                prop_assert_eq!(energy.start, closed.unwrap_or(Timestamp(first.unwrap_or(0))));
                closed = Some(energy.end);
                sum += u128::from(energy.energy.0);
            }
        }
        // Every interval may be off by the half second of counter granularity, the sum over all of them by as much each.
        let seconds = (now - first.unwrap_or(0)) as f64 / 1e9;
        let most = 500.0 * 1e3 * (seconds + 0.5 * 60.0);
        prop_assert!(sum as f64 <= 2.0 * most, "{sum} mJ in {seconds} s");
    }
}
