use super::*;
use crate::{ArrivalsConfig, AutoscalingTarget, DataPath, FaultKind, TraceScaling, WorkloadSource};

const FLEET: &str = "[[fleet.model]]\nname = \"qwen2.5-3b\"\nquality = 0.3\n\
                     [[fleet.pool]]\nname = \"a\"\nmodel = \"qwen2.5-3b\"\ngpu = \"A30\"\ncount = 3\n";
const WORKLOAD: &str = "[workload]\narrivals = \"poisson\"\nrate_per_s = 5\nrequests = 100\n";

fn parse(text: &str) -> Result<ScenarioConfig, ConfigError> {
    ScenarioFile::parse(text, "folder/test.toml")
}

fn with(more: &str) -> Result<ScenarioConfig, ConfigError> {
    parse(&format!("{FLEET}{WORKLOAD}{more}"))
}

fn error(more: &str) -> String {
    with(more).expect_err("wrong").to_string()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let scenario = with("").expect("good");
    assert_eq!((scenario.name.as_str(), scenario.seeds.as_slice()), ("test", &[1][..]));
    assert_eq!(scenario.arms.len(), 1);
    assert_eq!(scenario.arms[0].policy, "equipoise");
    assert_eq!(scenario.mismatch.speed_sd, 0.15, "on unless it is switched off");
    assert_eq!(scenario.mismatch.stall_share, 1e-3);
    assert!(scenario.faults.is_empty() && scenario.facility.carbon_g_per_kwh.is_empty());
    assert_eq!(scenario.fleet.instances.len(), 3);
    let WorkloadSource::Generated(generator) = scenario.workload.source else {
        panic!("a generator")
    };
    assert_eq!(
        (generator.arrivals, generator.rate_per_s),
        (ArrivalsConfig::Poisson, 5.0)
    );
}

/// All but the fleet.
const EVERYTHING: &str = r#"
name = "all of it"
policies = ["random", "least-requests"]
seeds = [1, 2]
[[policy]]
policy = "equipoise"
preset = "green"
[[policy]]
policy = "routebalance"
label = "ours"
weights = { quality = 0.5, cost = 0.5 }
[workload]
trace = "data:traces/x.csv"
format = "azure"
from_s = 10
to_s = 20
rate_per_s = 3
scale = "rate"
prompts = "zeroeval"
[slo]
ttft_ms = 500
enforced = false
[mismatch]
sd = 0
drift_sd = 0.1
[network]
routers = 3
[sweep]
rates_per_s = [1, 2.5]
presets = ["best"]
weights = [{ quality = 1, latency = 0.1 }]
seeds = [3]
[[fault]]
kind = "crash"
instance = "a-1"
at_s = 5
until_s = 10
[[fault]]
kind = "slow"
pool = "a"
factor = 2
at_s = 1
[[fault]]
kind = "router-away"
router = 2
at_s = 0
[[fault]]
kind = "control-plane-away"
at_s = 3
[[fault]]
kind = "telemetry-late"
delay_s = 2
at_s = 3
[[fault]]
kind = "telemetry-lost"
share = 0.5
at_s = 3
[[autoscaling]]
pool = "a"
min = 1
target_queue = 2
start_up_s = 30
[[rack]]
name = "r1"
pools = ["a"]
cap_watts = 400
[facility]
pue = 1.2
carbon_g_per_kwh = 400
"#;

#[test]
fn everything_can_be_said() {
    let text = EVERYTHING.replacen("[[policy]]", &format!("{FLEET}[[policy]]"), 1);
    let scenario = parse(&text).expect("good");
    let labels: Vec<&str> = scenario.arms.iter().map(|arm| arm.label.as_str()).collect();
    assert_eq!(labels, ["random", "least-requests", "equipoise green", "ours"]);
    assert_eq!(scenario.arms[3].settings.routebalance.weights.quality, 0.5);
    let labels: Vec<&str> = scenario.sweep.arms.iter().map(|arm| arm.label.as_str()).collect();
    assert_eq!(labels, ["equipoise best", "equipoise 1/0.1/0/0"]);
    let WorkloadSource::Trace(trace) = &scenario.workload.source else {
        panic!("a trace")
    };
    assert_eq!(trace.path, DataPath::Data("traces/x.csv".into()));
    assert_eq!(
        (trace.from_s, trace.to_s, trace.scaling),
        (10.0, Some(20.0), TraceScaling::Rate)
    );
    assert_eq!(scenario.slo.expect("asked for").ttft_s, Some(0.5));
    assert_eq!((scenario.mismatch.speed_sd, scenario.mismatch.drift_sd), (0.0, 0.1));
    assert_eq!(scenario.faults.len(), 6);
    assert_eq!(scenario.faults[0].kind, FaultKind::Crash { instances: vec![1] });
    assert_eq!(
        scenario.faults[1].kind,
        FaultKind::Slow {
            instances: vec![0, 1, 2],
            factor: 2.0
        }
    );
    let scaling = &scenario.autoscaling[0];
    assert_eq!(
        (scaling.min, scaling.max, scaling.target),
        (1, 3, AutoscalingTarget::Queue(2.0))
    );
    assert_eq!(
        (scenario.racks[0].cap_watts, scenario.racks[0].instances.len()),
        (400.0, 3)
    );
    assert_eq!(scenario.facility.carbon_g_per_kwh, [400.0]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cases = [
        ("colour = 1\n", "folder/test.toml:13:1: unknown field `colour`"),
        ("[slo]\n", "[slo] asks for nothing"),
        ("[slo]\nttft_ms = 0\n", ":14:11: ttft_ms is 0; it must be from 0.001"),
        (
            "[[policy]]\npolicy = \"magic\"\n",
            "policy `magic`: no policy is called `magic`",
        ),
        (
            "[[policy]]\npolicy = \"equipoise\"\nweights = { quality = -1 }\n",
            "weight `quality` is -1; it must be zero or more",
        ),
        (
            "[[policy]]\npolicy = \"random\"\n[[policy]]\npolicy = \"random\"\n",
            ":15:1: `random` is there already",
        ),
        (
            "[[policy]]\npolicy = \"random\"\npreset = \"green\"\n",
            "`random` has no presets",
        ),
        (
            "[[fault]]\nkind = \"crash\"\nat_s = 1\n",
            ":14:8: this fault strikes nobody",
        ),
        (
            "[[fault]]\nkind = \"crash\"\nat_s = 1\ninstance = \"a-9\"\n",
            ":16:12: no instance is called `a-9`: they are called POOL-NUMBER, from `a-0` on",
        ),
        (
            "[[fault]]\nkind = \"slow\"\nat_s = 1\npool = \"a\"\n",
            "this fault needs `factor`",
        ),
        (
            "[[fault]]\nkind = \"crash\"\nat_s = 5\nuntil_s = 5\npool = \"a\"\n",
            ":16:11: until_s is 5: it must be later than at_s, 5",
        ),
        (
            "[[fault]]\nkind = \"control-plane-away\"\nat_s = 5\npool = \"a\"\n",
            ":16:8: `pool` is nothing for this kind of fault",
        ),
        (
            "[[fault]]\nkind = \"router-away\"\nat_s = 5\nrouter = 1\n",
            "there is no router 1",
        ),
        (
            "[[fault]]\nkind = \"flood\"\nat_s = 5\n",
            ":14:8: unknown variant `flood`",
        ),
        (
            "[[autoscaling]]\npool = \"b\"\nmin = 1\ntarget_queue = 1\n",
            "no pool is called `b`; there are a",
        ),
        (
            "[[autoscaling]]\npool = \"a\"\nmin = 0\ntarget_queue = 1\n",
            "min is 0; it must be from 1 to max, 3",
        ),
        ("[[autoscaling]]\npool = \"a\"\nmin = 1\n", "scales by nothing"),
        (
            "[[rack]]\nname = \"r\"\npools = [\"a\"]\ncap_watts = 10\n",
            ":16:13: cap_watts is 10; idle, this rack draws",
        ),
        (
            "[[rack]]\nname = \"r\"\npools = [\"a\"]\ninstances = [\"a-0\"]\ncap_watts = 1e5\n",
            "`a-0` stands in a rack already",
        ),
        ("[facility]\npue = 0.9\n", "pue is 0.9; it must be from 1 to 10"),
        (
            "[facility]\ncarbon_g_per_kwh = [1, 2]\n",
            "has 2 values: give one for all times, or 24",
        ),
        ("[sweep]\nrates_per_s = [0]\n", "a rate is 0"),
        ("[mismatch]\nsd = nan\n", "sd is NaN"),
        ("[network]\nrouters = 0\n", "routers is 0"),
    ];
    for (more, expected) in cases {
        let error = error(more);
        assert!(
            error.contains(expected) && error.starts_with("folder/test.toml:"),
            "{more}\n{error}"
        );
    }
}

#[test]
fn a_workload_is_one_thing() {
    let cases = [
        ("arrivals = \"poisson\"\nrate_per_s = 1\n", "a workload without end"),
        ("arrivals = \"poisson\"\nrequests = 5\n", "no `rate_per_s`"),
        ("requests = 5\n", "neither `trace = \"FILE\"` nor `arrivals`"),
        ("trace = \"x\"\narrivals = \"gamma\"\n", "both `trace` and `arrivals`"),
        ("trace = \"x\"\ncv = 2\n", "`cv` is nothing for a trace"),
        (
            "trace = \"x\"\nfrom_s = 9\nto_s = 3\n",
            "to_s is 3: it must be later than from_s, 9",
        ),
        ("trace = \"\"\n", "the path is empty"),
        (
            "arrivals = \"poisson\"\nrate_per_s = 1\nrequests = 5\ncv = 2\n",
            "`cv` is nothing for poisson arrivals",
        ),
        ("arrivals = \"gamma\"\nrate_per_s = 1\nrequests = 0\n", "requests is 0"),
        (
            "arrivals = \"square\"\nrate_per_s = 1\nrequests = 5\nswing = 2\n",
            "swing is 2; it must be from 0 to 1",
        ),
        (
            "arrivals = \"gamma\"\nrate_per_s = 1\nrequests = 1\nprompt_tokens = { mean = 0 }\n",
            "mean is 0; it must be from 1",
        ),
    ];
    for (workload, expected) in cases {
        let error = parse(&format!("{FLEET}[workload]\n{workload}"))
            .expect_err("wrong")
            .to_string();
        assert!(error.contains(expected), "{workload}\n{error}");
    }
    let error = parse(WORKLOAD).expect_err("no fleet").to_string();
    assert!(error.contains("there is no fleet"), "{error}");
    let error = parse(FLEET).expect_err("no workload").to_string();
    assert!(error.contains("there is no workload"), "{error}");
    let missing = format!("[fleet]\nfile = \"nowhere.toml\"\n{WORKLOAD}");
    let error = parse(&missing).expect_err("no file").to_string();
    assert!(
        error.starts_with("folder/test.toml:2:8: cannot read the fleet file folder/nowhere.toml"),
        "{error}"
    );
}
