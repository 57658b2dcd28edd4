//! Booking a request and releasing it, beside many others.

use criterion::{Criterion, criterion_group, criterion_main};
use equipoise_estimate::{Estimate, Prediction};
use equipoise_fleet::Ledger;
use equipoise_types::{InstanceId, Joules, RequestId, Timestamp};

const INSTANCES: u64 = 100;

fn prediction(id: u64) -> Prediction {
    let ttft_s = 0.05 + (id % 17) as f64 * 0.01;
    Prediction {
        estimate: Estimate {
            quality: 0.5,
            quality_sd: 0.1,
            output_tokens: 200.0,
            queue_s: 0.0,
            ttft_s,
            tpot_s: 0.02,
            e2e_s: ttft_s + 4.0,
            energy: Joules(100.0),
            idle_energy: Joules(0.0),
            others_s: 0.0,
            cost_usd: 0.0,
            bounds: Default::default(),
        },
        quality: equipoise_estimate::QualityEstimate::default(),
        base_ttft_s: ttft_s,
        base_tpot_s: 0.02,
        forecast_output_tokens: None,
        in_flight: 0,
        load_factor: 1.0,
        length: equipoise_estimate::LengthEstimate::default(),
        regime: Default::default(),
    }
}

fn book(ledger: &mut Ledger, id: u64, silent: bool) -> bool {
    let now = Timestamp::from_secs_f64(id as f64 * 1e-3);
    let instance = InstanceId((id % INSTANCES) as u32);
    ledger.book(now, RequestId(id), instance, 1000, silent, prediction(id))
}

fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    for in_flight in [100_u64, 10_000] {
        for (kind, silent) in [("streamed", false), ("in one piece", true)] {
            let mut ledger = Ledger::default();
            for id in 0..in_flight {
                book(&mut ledger, id, silent);
            }
            let mut next = in_flight;
            group.bench_function(
                format!("book, first token, release/{kind}/{in_flight} in flight"),
                |bencher| {
                    bencher.iter(|| {
                        let booked = book(&mut ledger, next, silent);
                        let first = RequestId(next - in_flight);
                        ledger.first_token(Timestamp::from_secs_f64(next as f64 * 1e-3), first);
                        next += 1;
                        (booked, ledger.release(first))
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
