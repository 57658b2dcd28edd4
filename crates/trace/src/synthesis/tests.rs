use super::*;
use crate::WorkloadGenerator;

fn synthesis(arrivals: Arrivals, rate_per_s: f64, requests: u64) -> Synthesis {
    let WorkloadGenerator { prompt, output, .. } = WorkloadGenerator::default();
    Synthesis {
        arrivals,
        rate_per_s,
        lengths: LengthSource::LogNormal { prompt, output },
        requests: Some(requests),
        duration_s: None,
        seed: 11,
    }
}

fn arrivals_s(synthesis: &Synthesis) -> Vec<f64> {
    let requests = synthesis.requests().expect("in range");
    requests
        .map(|record| record.expect("soon").arrival.as_secs_f64())
        .collect()
}

/// Rate and coefficient of variation of the gaps.
fn moments(arrivals_s: &[f64]) -> (f64, f64) {
    let gaps: Vec<f64> = arrivals_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    (1.0 / mean, variance.sqrt() / mean)
}

#[test]
fn gaps_have_the_rate_and_the_variation_asked_for() {
    let cases = [
        (Arrivals::Poisson, 1.0),
        (Arrivals::Gamma { cv: 0.3 }, 0.3),
        (Arrivals::Gamma { cv: 3.0 }, 3.0),
        (Arrivals::Weibull { cv: 0.5 }, 0.5),
        (Arrivals::Weibull { cv: 3.0 }, 3.0),
    ];
    for (arrivals, expected) in cases {
        let (rate, cv) = moments(&arrivals_s(&synthesis(arrivals, 20.0, 200_000)));
        assert!((rate / 20.0 - 1.0).abs() < 0.03, "{arrivals:?}: {rate}");
        assert!((cv / expected - 1.0).abs() < 0.05, "{arrivals:?}: {cv}");
    }
}

#[test]
fn a_wave_has_its_rate_in_each_part_of_a_period() {
    let count = |arrivals_s: &[f64], period_s: f64, from: f64, to: f64| {
        let inside = |at: &&f64| (from..to).contains(&(at.rem_euclid(period_s) / period_s));
        arrivals_s.iter().filter(inside).count() as f64
    };
    let (swing, period_s) = (2.0 / 3.0, 60.0);
    // 30 and 6 requests per second in turns.
    let square = Synthesis {
        requests: None,
        duration_s: Some(6000.0),
        ..synthesis(Arrivals::Square { swing, period_s }, 18.0, 0)
    };
    let arrivals = arrivals_s(&square);
    let (high, low) = (
        count(&arrivals, period_s, 0.0, 0.5),
        count(&arrivals, period_s, 0.5, 1.0),
    );
    assert!(
        (high / 90_000.0 - 1.0).abs() < 0.02 && (low / 18_000.0 - 1.0).abs() < 0.03,
        "{high} {low}"
    );
    assert!(arrivals.last().is_some_and(|last| *last <= 6000.0));
    let diurnal = Synthesis {
        arrivals: Arrivals::Diurnal { swing: 0.5, period_s },
        ..square
    };
    let arrivals = arrivals_s(&diurnal);
    // A quarter around the top of the sine: 1/4 + swing · sin(π/4) / π of all requests.
    let top = count(&arrivals, period_s, 0.375, 0.625) / arrivals.len() as f64;
    let expected = 0.25 + 0.5 * std::f64::consts::FRAC_PI_4.sin() / std::f64::consts::PI;
    assert!((top / expected - 1.0).abs() < 0.02, "{top} {expected}");
    assert!(
        (arrivals.len() as f64 / 108_000.0 - 1.0).abs() < 0.02,
        "{}",
        arrivals.len()
    );
}

#[test]
fn the_older_generator_makes_the_same_workload() {
    let generator = WorkloadGenerator {
        requests: 300,
        seed: 11,
        ..WorkloadGenerator::default()
    };
    let streamed = synthesis(Arrivals::Poisson, generator.rate_per_s, 300);
    let streamed: Vec<_> = streamed
        .requests()
        .expect("in range")
        .map(|record| record.expect("soon"))
        .collect();
    assert_eq!(generator.generate().expect("a workload").records, streamed);
}

#[test]
fn other_arrivals_keep_the_lengths() {
    let lengths = |arrivals| -> Vec<(u32, u32)> {
        let requests = synthesis(arrivals, 3.0, 50).requests().expect("in range");
        let records = requests.map(|record| record.expect("soon"));
        records
            .map(|record| (record.prompt_tokens, record.output_tokens))
            .collect()
    };
    assert_eq!(lengths(Arrivals::Poisson), lengths(Arrivals::Gamma { cv: 4.0 }));
}

#[test]
fn pairs_of_lengths_stay_together() {
    let records = (1..=1000_u32).map(|tokens| {
        Ok(WorkloadRecord {
            prompt_tokens: tokens,
            output_tokens: 2 * tokens,
            ..WorkloadRecord::default()
        })
    });
    let sample = sample_lengths(records, 400, 1).expect("no error in it");
    assert_eq!(sample.len(), 400);
    let mean = sample.iter().map(|pair| f64::from(pair.0)).sum::<f64>() / 400.0;
    assert!((mean / 500.5 - 1.0).abs() < 0.1, "{mean}");
    let mut drawn = synthesis(Arrivals::Poisson, 1.0, 500);
    drawn.lengths = LengthSource::Empirical(sample.into());
    for record in drawn.requests().expect("in range") {
        let record = record.expect("soon");
        assert_eq!(record.output_tokens, 2 * record.prompt_tokens);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |change: fn(&mut Synthesis)| {
        let mut asked = synthesis(Arrivals::Poisson, 1.0, 5);
        change(&mut asked);
        asked.requests().expect_err("nonsense").to_string()
    };
    assert!(refused(|asked| asked.rate_per_s = f64::NAN).contains("the rate"));
    assert!(refused(|asked| asked.rate_per_s = 0.0).contains("from 0.000000001 to 1000000"));
    assert!(refused(|asked| asked.arrivals = Arrivals::Gamma { cv: 0.0 }).contains("variation"));
    assert!(refused(|asked| asked.arrivals = Arrivals::Weibull { cv: 1e9 }).contains("variation"));
    assert!(
        refused(|asked| asked.arrivals = Arrivals::Square {
            swing: 1.5,
            period_s: 1.0
        })
        .contains("swing")
    );
    assert!(refused(|asked| asked.requests = None).contains("without end"));
    assert!(refused(|asked| asked.lengths = LengthSource::Empirical(Arc::new([]))).contains("lengths"));
    let silent = Synthesis {
        arrivals: Arrivals::Diurnal {
            swing: 1.0,
            period_s: 10.0,
        },
        rate_per_s: 1e-9,
        ..synthesis(Arrivals::Poisson, 1.0, 1000)
    };
    assert!(
        silent.requests().expect("in range").any(|record| record.is_err()),
        "a century ends it"
    );
}
