use super::*;
use crate::{Distribution, EnergyByCause, FaultSpan, RunFigures, Spread, Timeline};

fn run(arm: &str, rate_per_s: Option<f64>, seed: u64, level: f64) -> RunOutcome {
    let level = level + 0.01 * seed as f64;
    let spread = |scale: f64| Spread {
        mean: scale * level,
        p50: 0.8 * scale * level,
        p95: 3.0 * scale * level,
        p99: 5.0 * scale * level,
    };
    let mut times = Distribution::default();
    (1..200_u32).for_each(|step| times.observe(level * f64::from(step)));
    RunOutcome {
        arm: arm.to_owned(),
        rate_per_s,
        seed,
        figures: RunFigures {
            offered: 100,
            finished: 99,
            refused: 1,
            refusals: [("infeasible".to_owned(), 1)].into(),
            duration_s: 50.0,
            quality: Some(0.3 + 0.1 * level),
            ttft_s: Some(spread(0.1)),
            tpot_s: Some(spread(0.01)),
            e2e_s: Some(spread(1.0)),
            joules_per_request: Some(100.0 * level),
            usd_per_1000_requests: Some(0.1),
            energy: EnergyByCause {
                prefill_joules: 10.0,
                decode_joules: 50.0,
                idle_joules: 30.0,
                unattributed_joules: 0.0,
            },
            models: vec![("small".to_owned(), 60), ("large".to_owned(), 39)],
            ..RunFigures::default()
        },
        ttft_s: times.clone(),
        e2e_s: times,
        timeline: Timeline {
            bin_s: 10.0,
            seconds: vec![10.0; 5],
            arrived: vec![20.0; 5],
            ended: vec![20.0; 5],
            queued: vec![1.0; 5],
            running: vec![3.0; 5],
            watts: vec![900.0; 5],
            serving: vec![4.0; 5],
        },
        faults: vec![FaultSpan {
            from_s: 10.0,
            until_s: None,
            what: "crash of <a>".to_owned(),
        }],
    }
}

fn report(loads: &[Option<f64>]) -> Report {
    let mut runs = Vec::new();
    for rate in loads {
        for seed in 1..=3 {
            runs.push(run("a<b> & c", *rate, seed, 1.0));
            runs.push(run("second", *rate, seed, 2.0));
        }
    }
    Report {
        title: "A \"test\" <of> reports".to_owned(),
        notes: vec!["13 instances & more".to_owned()],
        runs,
    }
}

#[test]
fn the_page_stands_alone_and_holds_every_part() {
    let page = report(&[None]).html();
    for part in [
        "Quality and energy",
        "Quality and time",
        "Time to first token",
        "End-to-end time",
        "Energy by cause",
        "Who answered",
        "Waiting at the router",
        "Power",
        "prefers-color-scheme:dark",
        "name=\"viewport\"",
        "class=\"fault\"><title>crash of &lt;a&gt;, from 10 s on</title>",
        "a&lt;b&gt; &amp; c",
        "a&lt;b&gt; &amp; c refused: 3 infeasible",
        "A &quot;test&quot; &lt;of&gt; reports",
    ] {
        assert!(page.contains(part), "{part} is missing");
    }
    for forbidden in ["<script", "href=", "src=", "url(", "@import", "NaN", "inf\"", "a<b>"] {
        assert!(!page.contains(forbidden), "{forbidden} is in the page");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<details open").count(), 1);
    assert!(!page.contains("Over the load"));
    assert_eq!(page, report(&[None]).html(), "the same bytes");
}

#[test]
fn several_loads_come_in_order_with_an_overview() {
    let report = report(&[Some(30.0), Some(6.0), Some(12.0)]);
    let page = report.html();
    assert!(page.contains("Over the load"));
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(place("<h2>6 requests/s") < place("<h2>12 requests/s"));
    assert!(place("<h2>12 requests/s") < place("<h2>30 requests/s"));
    assert_eq!(page.matches("<details open").count(), 1, "the last");
    let table = render_report(&report);
    assert_eq!(table.matches("second ").count(), 3, "{table}");
    assert!(
        table.contains("0.402 ±0.002") && table.contains("Means over 3 seeds"),
        "{table}"
    );
}

#[test]
fn nothing_to_report_is_no_fault() {
    assert!(Report::default().html().contains("</html>"));
    assert_eq!(render_report(&Report::default()), "");
    let mut empty = run("a", None, 1, 1.0);
    empty.figures = RunFigures::default();
    empty.timeline = Timeline::default();
    empty.ttft_s = Distribution::default();
    empty.e2e_s = Distribution::default();
    let report = Report {
        runs: vec![empty],
        ..Report::default()
    };
    assert!(!report.html().contains("NaN"));
}
