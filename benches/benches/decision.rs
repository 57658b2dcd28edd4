//! One decision, estimates included. See `decision-latency` for percentiles.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use equipoise_benches::BusyScheduler;
use equipoise_policy::names;

fn decision(criterion: &mut Criterion) {
    for instances in [13, 100, 1000] {
        let mut group = criterion.benchmark_group(format!("decision/{instances}"));
        group.sample_size(20).measurement_time(Duration::from_secs(3));
        for &policy in names() {
            let mut busy = BusyScheduler::new(policy, instances).expect("the policy exists and the work fits");
            group.bench_function(BenchmarkId::from_parameter(policy), |bencher| {
                // Only the decision is timed; the cancellation that keeps the ledger level is not.
                bencher.iter_custom(|iterations| (0..iterations).filter_map(|_| busy.time_one().ok()).sum());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decision);
criterion_main!(benches);
