use equipoise_config::ScenarioFile;

use super::*;

const FLEET: &str = "
[[fleet.model]]
name = \"qwen2.5-3b\"
quality = 0.3
[[fleet.model]]
name = \"qwen2.5-7b\"
quality = 0.4
[[fleet.pool]]
name = \"a\"
model = \"qwen2.5-3b\"
gpu = \"A30\"
count = 3
[[fleet.pool]]
name = \"b\"
model = \"qwen2.5-7b\"
gpu = \"A30\"
count = 2
";

pub(crate) fn scenario(more: &str) -> Scenario {
    let text = format!("{more}\n{FLEET}");
    let config = ScenarioFile::parse(&text, "test.toml").expect("a good scenario");
    Scenario::open(config, None).expect("opens")
}

const POISSON: &str = "[workload]\narrivals = \"poisson\"\nrate_per_s = 4\nrequests = 300\n";

#[test]
fn the_grid_is_every_combination_and_only_a_sweep_runs_all_of_it() {
    let text = format!(
        "policies = [\"random\", \"equipoise\"]\nseeds = [3, 4]\n{POISSON}[sweep]\nrates_per_s = [2, 4]\nseeds = [4, 5]\n\
         presets = [\"green\"]\n"
    );
    let scenario = scenario(&text);
    assert_eq!(scenario.cells(false).len(), 4);
    let cells = scenario.cells(true);
    assert_eq!(cells.len(), 2 * 3 * 3);
    assert!(cells.iter().enumerate().all(|(index, cell)| cell.index == index));
    let mut names: Vec<String> = cells.iter().map(|cell| scenario.fingerprint(cell)).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cells.len(), "every run has a name of its own");
}

#[test]
fn a_name_stands_for_everything_that_decides_a_run() {
    let name = |more: &str| {
        let scenario = scenario(more);
        scenario.fingerprint(&scenario.cells(true)[0])
    };
    let plain = name(POISSON);
    assert_eq!(plain, name(POISSON));
    assert_eq!(
        plain,
        name(&format!("name = \"other\"\n{POISSON}[sweep]\nseeds = [7]\n"))
    );
    for other in [
        format!("seeds = [2]\n{POISSON}"),
        format!("{POISSON}[mismatch]\nsd = 0\n"),
        format!("{POISSON}[sweep]\nrates_per_s = [9]\n"),
        POISSON.replace("300", "301"),
        format!("policies = [\"random\"]\n{POISSON}"),
    ] {
        assert_ne!(plain, name(&other), "{other}");
    }
}

#[test]
fn a_run_has_every_figure() {
    let scenario = scenario(&format!(
        "{POISSON}[facility]\npue = 1.5\ncarbon_g_per_kwh = 400\n[slo]\nttft_ms = 2000\nenforced = false\n"
    ));
    let mut requests = 0;
    let mut sink = |_: &RequestRecord<'_>| requests += 1;
    let outcome = scenario.run(&scenario.cells(false)[0], &mut sink).expect("runs");
    let figures = &outcome.figures;
    assert_eq!((requests, figures.offered, figures.unfinished), (300, 300, 0));
    assert_eq!(outcome.e2e_s.count(), figures.finished);
    let spread = figures.e2e_s.expect("some");
    let sketched = outcome.e2e_s.quantile(0.95).expect("some");
    assert!((sketched / spread.p95 - 1.0).abs() < 0.05, "{sketched} {}", spread.p95);
    let energy = figures.energy;
    let sum = energy.prefill_joules + energy.decode_joules + energy.idle_joules + energy.unattributed_joules;
    let all = figures.joules_per_request.expect("known") * figures.finished as f64;
    assert!(
        (sum / all - 1.0).abs() < 1e-6 && energy.prefill_joules > 0.0,
        "{sum} {all}"
    );
    let facility = figures.facility.expect("known");
    assert!((facility.kwh / (1.5 * all / 3.6e6) - 1.0).abs() < 1e-6);
    let carbon = facility.carbon_g.expect("known");
    assert!((carbon / (400.0 * facility.kwh) - 1.0).abs() < 1e-3, "{carbon}");
    let watts: f64 = outcome
        .timeline
        .watts
        .iter()
        .zip(&outcome.timeline.seconds)
        .map(|(w, s)| f64::from(w * s))
        .sum();
    assert!((watts / all - 1.0).abs() < 1e-3, "{watts} {all}");
    assert!((outcome.timeline.arrived.iter().sum::<f32>() - 300.0).abs() < 0.01);
}

fn records(scenario: &Scenario, cell: &ScenarioCell) -> Vec<WorkloadRecord> {
    let records = scenario.workload(cell).expect("a workload");
    records.map(|record| record.expect("readable")).collect()
}

#[test]
fn a_rate_that_is_exact_ends_where_it_should() {
    let scenario = scenario(&POISSON.replace("requests = 300", "requests = 300\nexact_rate = true"));
    let mut cell = scenario.cells(false).remove(0);
    for rate in [4.0, 12.0] {
        cell.rate_per_s = Some(rate);
        let records = records(&scenario, &cell);
        let last = records.last().expect("300").arrival.as_secs_f64();
        assert!((last - 300.0 / rate).abs() < 1e-6, "{last}");
    }
}

#[test]
fn a_trace_is_cut_and_scaled() {
    let folder = std::env::temp_dir().join(format!("equipoise-scenario-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let trace = folder.join("t.jsonl");
    let line = |index: u32| format!("{{\"arrival_s\": {index}, \"prompt_tokens\": 10, \"output_tokens\": 5}}\n");
    std::fs::write(&trace, (0..100).map(line).collect::<String>()).expect("written");
    let open = |keys: &str| {
        let text = format!("[workload]\ntrace = \"t.jsonl\"\n{keys}\n{FLEET}");
        let config = ScenarioFile::parse(&text, &folder.join("s.toml").display().to_string()).expect("good");
        Scenario::open(config, None)
    };
    let arrivals = |keys: &str| {
        let scenario = open(keys).expect("opens");
        let records = records(&scenario, &scenario.cells(false)[0]);
        records
            .iter()
            .map(|record| record.arrival.as_secs_f64())
            .collect::<Vec<_>>()
    };
    assert_eq!(arrivals("from_s = 10\nto_s = 13"), [0.0, 1.0, 2.0]);
    assert_eq!(arrivals("from_s = 10\nrequests = 2\nrate_per_s = 2"), [0.0, 0.5]);
    let thinned = arrivals("scale = \"rate\"\nrate_per_s = 0.5").len();
    assert!((30..70).contains(&thinned), "{thinned}");
    assert!(matches!(open("from_s = 500"), Err(ScenarioError::EmptySegment(_))));
    std::fs::remove_dir_all(&folder).expect("removed");
    let text = format!("[workload]\ntrace = \"data:t.jsonl\"\n{FLEET}");
    let config = ScenarioFile::parse(&text, "s.toml").expect("good");
    assert!(matches!(Scenario::open(config, None), Err(ScenarioError::NoData(_))));
}

#[test]
fn steps_taken_together_come_to_the_same_whatever_goes_wrong() {
    let text = format!(
        "{POISSON}[network]\nrouters = 2\n[[fault]]\nkind = \"crash\"\ninstance = \"a-1\"\nat_s = 10\nuntil_s = 20\n\
         [[fault]]\nkind = \"slow\"\ninstance = \"b-0\"\nfactor = 2\nat_s = 5\nuntil_s = 30\n[[fault]]\n\
         kind = \"router-away\"\nrouter = 1\nat_s = 25\nuntil_s = 30\n[[autoscaling]]\npool = \"b\"\nmin = 1\n\
         target_in_flight = 4\nstart_up_s = 5\n[[rack]]\nname = \"r\"\npools = [\"a\"]\ncap_watts = 300\n"
    );
    let scenario = scenario(&text);
    let cell = scenario.cells(false).remove(0);
    let records = records(&scenario, &cell);
    let run = |step_by_step: bool| {
        let options = SimulationOptions {
            step_by_step,
            ..scenario.options(cell.seed)
        };
        let requests = records.iter().cloned().map(Ok);
        simulate_stream(&scenario.config.fleet, requests, &options, &mut ()).expect("runs")
    };
    let together = run(false);
    assert!(
        together.refused > 0 && together.energy.is_conserved(),
        "{:?}",
        together.refusals
    );
    assert_eq!(run(true), together);
}
