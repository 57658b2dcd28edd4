//! The energy ledger through the rpc: conserved to the millijoule, over restarts too.

use crate::harness::{Clients, instance, soon, start_on, unix_ns};
use equipoise_proto::v1::{
    Activity, EnergyGrouping, EnergyReport, EnergyReportRequest, EnergySample, EnergySource, LedgerReport,
    TelemetryBatch,
};
use equipoise_store::open;
use equipoise_types::RandomStream;
use std::time::Duration;

const MILLISECOND: u64 = 1_000_000;

/// What the control plane was told, for comparison.
#[derive(Default)]
struct Told {
    measured_mj: u64,
    decode_tokens: u64,
    requests: u64,
}

impl Told {
    fn energy(&mut self, batch: &TelemetryBatch) {
        self.measured_mj += batch.energy.iter().map(|sample| sample.measured_mj).sum::<u64>();
    }

    fn activity(&mut self, activity: &[Activity]) {
        self.decode_tokens += activity.iter().map(|slice| u64::from(slice.decode_tokens)).sum::<u64>();
        self.requests += activity.iter().map(|slice| u64::from(slice.finished)).sum::<u64>();
    }
}

/// Four energy intervals on each of two instances, from `start_ns` on.
fn random_energy(random: &mut RandomStream, start_ns: u64) -> TelemetryBatch {
    let mut batch = TelemetryBatch::default();
    for (name, source) in [("a", EnergySource::Counter), ("b", EnergySource::Modelled)] {
        for quarter in 0..4_u64 {
            let start_unix_ns = start_ns + quarter * 250 * MILLISECOND;
            let measured_mj = random.below(200_000) as u64;
            batch.energy.push(EnergySample {
                instance: name.to_owned(),
                start_unix_ns,
                end_unix_ns: start_unix_ns + 250 * MILLISECOND,
                measured_mj,
                idle_mj: measured_mj * random.below(100) as u64 / 100,
                source: source.into(),
                flaws: Vec::new(),
            });
        }
    }
    batch
}

/// What requests did in the second from `start_ns` on.
fn random_activity(random: &mut RandomStream, start_ns: u64) -> Vec<Activity> {
    let slice = |number: usize| {
        let start_unix_ns = start_ns + random.below(900) as u64 * MILLISECOND;
        let finished = random.below(2) == 0;
        Activity {
            decision: format!("{start_ns}-{number}"),
            instance: if number.is_multiple_of(2) { "a" } else { "b" }.to_owned(),
            tenant: format!("tenant-{}", random.below(3)),
            start_unix_ns,
            end_unix_ns: start_unix_ns + random.below(100) as u64 * MILLISECOND,
            prefill_tokens: random.below(500) as u32,
            decode_tokens: random.below(40) as u32,
            context_tokens: random.below(4000) as u32,
            finished,
            wasted: finished && random.below(4) == 0,
        }
    };
    (0..10).map(slice).collect()
}

async fn report(clients: &mut Clients, by: EnergyGrouping) -> EnergyReport {
    let request = EnergyReportRequest {
        by: by.into(),
        ..EnergyReportRequest::default()
    };
    let report = clients.energy.report(request).await.expect("reports").into_inner();
    let total = report.total.clone().expect("has a total");
    for row in report.rows.iter().chain([&total]) {
        assert_eq!(
            row.attributed_mj + row.idle_mj + row.unattributed_mj,
            row.measured_mj,
            "{row:?}"
        );
        assert_eq!(
            row.counter_mj + row.power_mj + row.modelled_mj,
            row.measured_mj,
            "{row:?}"
        );
        assert!(row.wasted_mj <= row.attributed_mj, "{row:?}");
    }
    assert_eq!(
        report.rows.iter().map(|row| row.measured_mj).sum::<u64>(),
        total.measured_mj
    );
    report
}

#[tokio::test]
async fn what_was_measured_is_what_is_reported_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("embedded:{}", folder.path().join("store.redb").display());
    let mut random = RandomStream::new(20_261_124);
    let mut told = Told::default();
    let mut start_ns = unix_ns() - 3600 * 1_000_000_000;
    let mut unacknowledged = TelemetryBatch::default();
    for _life in 0..3 {
        let store = open(&url).await.expect("opens");
        let plane = start_on(store.clone()).await;
        let mut clients = Clients::of(&plane).await;
        let instances = vec![instance("a", "red"), instance("b", "blue")];
        let lease = clients.register("n1", instances, 30_000).await.expect("registers");
        let kept = report(&mut clients, EnergyGrouping::Pool)
            .await
            .total
            .expect("has a total");
        assert_eq!(
            (kept.measured_mj, kept.requests),
            (told.measured_mj, told.requests),
            "over the restart"
        );
        let mut telemetry = clients.telemetry(lease.lease_id).await;
        // The agent missed the last acknowledgement of the life before: it sends that batch again.
        telemetry.send(unacknowledged).await.expect("takes");
        let reports = clients.publish();
        for _ in 0..20 {
            let (batch, activity) = (
                random_energy(&mut random, start_ns),
                random_activity(&mut random, start_ns),
            );
            told.energy(&batch);
            told.activity(&activity);
            start_ns += 1000 * MILLISECOND;
            let ledger = LedgerReport {
                router: "r1".to_owned(),
                unix_ns: start_ns,
                in_flight: Vec::new(),
                activity,
                in_flight_only: false,
            };
            reports.send(ledger).await.expect("sends");
            telemetry.send(batch).await.expect("takes");
        }
        soon(async {
            loop {
                let total = report(&mut clients, EnergyGrouping::Pool)
                    .await
                    .total
                    .expect("has a total");
                if (total.measured_mj, total.decode_tokens) == (told.measured_mj, told.decode_tokens) {
                    assert_eq!(total.requests, told.requests);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        for by in [EnergyGrouping::Model, EnergyGrouping::Gpu, EnergyGrouping::Tenant] {
            report(&mut clients, by).await;
        }
        // What still waits for activity when the process ends is settled by the shutdown.
        let batch = random_energy(&mut random, start_ns);
        told.energy(&batch);
        start_ns += 1000 * MILLISECOND;
        telemetry.send(batch.clone()).await.expect("takes");
        unacknowledged = batch;
        soon(plane.shutdown()).await.expect("drains");
        store.close().await.expect("closes");
    }
    assert!(unacknowledged.energy.len() == 8 && told.measured_mj > 0);
}

#[tokio::test]
async fn a_range_that_ends_before_it_starts_is_refused() {
    let plane = start_on(open("embedded").await.expect("opens")).await;
    let mut clients = Clients::of(&plane).await;
    let request = EnergyReportRequest {
        start_unix_ns: 2,
        end_unix_ns: 1,
        ..EnergyReportRequest::default()
    };
    let error = clients.energy.report(request).await.expect_err("no range");
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let empty = report(&mut clients, EnergyGrouping::Tenant).await;
    assert!(empty.rows.is_empty());
}
