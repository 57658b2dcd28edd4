use super::*;
use crate::{Arrivals, LengthSource, Synthesis, WorkloadGenerator};

fn record(arrival_s: f64, prompt_tokens: u32) -> WorkloadRecord {
    WorkloadRecord {
        arrival: Timestamp::from_secs_f64(arrival_s),
        prompt_tokens,
        output_tokens: 10,
        ..WorkloadRecord::default()
    }
}

fn summary(records: impl IntoIterator<Item = WorkloadRecord>) -> WorkloadSummary {
    let mut statistics = WorkloadStatistics::default();
    for record in records {
        statistics.observe(&record);
    }
    statistics.summary()
}

fn synthetic(arrivals: Arrivals) -> WorkloadSummary {
    let WorkloadGenerator { prompt, output, .. } = WorkloadGenerator::default();
    let synthesis = Synthesis {
        arrivals,
        rate_per_s: 10.0,
        lengths: LengthSource::LogNormal { prompt, output },
        requests: Some(50_000),
        duration_s: None,
        seed: 2,
    };
    summary(
        synthesis
            .requests()
            .expect("in range")
            .map(|record| record.expect("soon")),
    )
}

#[test]
fn a_small_workload_by_hand() {
    let mut records: Vec<_> = [(10.0, 1), (10.5, 2), (12.0, 3), (70.0, 4)]
        .map(|(at, tokens)| record(at, tokens))
        .into();
    records[0].prefix_blocks = Some(vec![1, 2]);
    records[1].prefix_blocks = Some(vec![1, 3]);
    records[1].tenant = Some("a".to_owned());
    records[2].tenant = Some("a".to_owned());
    let summary = summary(records);
    assert_eq!((summary.requests, summary.first_s, summary.span_s), (4, 10.0, 60.0));
    assert_eq!(summary.rate_per_s, Some(0.05));
    // Gaps 0.5, 1.5 and 58 s around 20 s.
    let variance = ((19.5_f64).powi(2) + (18.5_f64).powi(2) + (38.0_f64).powi(2)) / 3.0;
    assert!((summary.gap_cv.expect("gaps") - variance.sqrt() / 20.0).abs() < 1e-9);
    // Seconds 0 to 59 from the first: 2, 0, 1 and 57 times none; the last one is not whole.
    let (mean, squares) = (3.0 / 60.0, 5.0);
    let dispersion = (squares - 60.0 * mean * mean) / 59.0 / mean;
    assert_eq!(summary.counts[0].peak_per_s, 2.0);
    assert!((summary.counts[0].dispersion.expect("sixty windows") - dispersion).abs() < 1e-9);
    assert_eq!(summary.counts[1].dispersion, None);
    assert_eq!(
        (
            summary.prompt_tokens.p50,
            summary.prompt_tokens.p99,
            summary.prompt_tokens.total
        ),
        (2, 4, 10)
    );
    let prefix = summary.prefix.expect("blocks");
    assert_eq!((prefix.requests, prefix.blocks, prefix.reuse_share), (2, 4, 0.25));
    assert_eq!(summary.tenants, 1);
}

#[test]
fn nothing_and_one_have_no_rate() {
    let nothing = summary([]);
    assert_eq!(
        (nothing.requests, nothing.rate_per_s, nothing.gap_cv, nothing.prefix),
        (0, None, None, None)
    );
    let one = summary([record(3.0, 7)]);
    assert_eq!((one.rate_per_s, one.gap_cv, one.prompt_tokens.p50), (None, None, 7));
    let at_once = summary([record(3.0, 7), record(3.0, 7)]);
    assert_eq!((at_once.rate_per_s, at_once.gap_cv), (None, None));
}

#[test]
fn poisson_arrivals_have_dispersion_one_and_bursts_more() {
    let poisson = synthetic(Arrivals::Poisson);
    assert!((poisson.gap_cv.expect("gaps") - 1.0).abs() < 0.03, "{poisson:?}");
    for counts in &poisson.counts {
        assert!((counts.dispersion.expect("windows") - 1.0).abs() < 0.3, "{poisson:?}");
    }
    // In long windows the counts of a renewal process have the dispersion cv².
    let bursty = synthetic(Arrivals::Gamma { cv: 3.0 });
    let dispersion = bursty.counts[1].dispersion.expect("windows");
    assert!((dispersion / 9.0 - 1.0).abs() < 0.35, "{dispersion}");
}
