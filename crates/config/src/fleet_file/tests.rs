mod serving;

use super::*;
use equipoise_scheduler::SchedulerConfig;

const MODEL: &str = "[[model]]\nname = \"qwen2.5-3b\"\nquality = 0.3\n";

fn parse(text: &str) -> Result<FleetConfig, ConfigError> {
    FleetFile::parse(text, "fleet.toml")
}

fn error_of(text: &str) -> String {
    parse(text).expect_err("wrong").to_string()
}

/// A file with one good model and this pool.
fn pool(keys: &str) -> String {
    format!("{MODEL}[[pool]]\nname = \"a\"\nmodel = \"qwen2.5-3b\"\n{keys}\n")
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let fleet = parse(&pool("gpu = \"NVIDIA A30\"\ncount = 2")).expect("good");
    assert_eq!(fleet.scheduler, SchedulerConfig::default());
    let names: Vec<&str> = fleet
        .instances
        .iter()
        .map(|instance| instance.spec.name.as_str())
        .collect();
    assert_eq!(names, ["a-0", "a-1"]);
    let first = &fleet.instances[0];
    assert_eq!(first.spec.gpu.as_deref(), Some("A30"), "the catalogue's own name");
    assert_eq!(
        first.spec.model.architecture.as_deref(),
        Some("Qwen2.5-3B"),
        "guessed from the name"
    );
    assert_eq!(first.spec.tensor_parallel, 1);
    assert!(first.spec.emulated && first.spec.endpoint.is_none());
    let context = first.spec.model.context_tokens.expect("bounded");
    assert_eq!(context, 32_768, "the architecture's: the KV cache holds more");
    assert!(first.step_model().expect("physics").idle_watts().0 > 0.0);
}

#[test]
fn the_blocks_of_prefix_caches_are_as_the_engines_cut_them() {
    let with = |keys: &str| format!("[scheduler.prefix]\n{keys}\n{}", pool("gpu = \"A30\"\ncount = 1"));
    let prefix = parse(&with("block_tokens = 32\nbytes_per_token = 2.5\nhash_seed = 7"))
        .expect("good")
        .scheduler
        .prefix;
    assert_eq!(
        (prefix.block_tokens, prefix.block_bytes(), prefix.hash_seed),
        (32, 80, 7)
    );
    let error = error_of(&with("block_tokens = 0"));
    assert!(
        error.contains("block_tokens") && error.contains("from 1 to 4096"),
        "{error}"
    );
    let error = error_of(&with("bytes_per_token = 1e3"));
    assert!(error.contains("fleet.toml:2"), "{error}");
    assert!(error_of(&with("block_bytes = 64")).contains("block_bytes"));
}

#[test]
fn real_instances_have_endpoints_and_need_nothing_else() {
    let text = "[[model]]\nname = \"mystery\"\n[[pool]]\nname = \"a\"\nmodel = \"mystery\"\n\
                endpoints = [\"http://h:1/\", \"http://h:2\"]\ngpus = [[\"0\"], [\"GPU-7\"]]\nlabels = { zone = \"x\" }\n";
    let fleet = parse(text).expect("good");
    assert_eq!(fleet.instances[0].spec.endpoint.as_deref(), Some("http://h:1"));
    assert_eq!(fleet.instances[1].spec.gpus, ["GPU-7"]);
    assert_eq!(fleet.instances[1].spec.model.context_tokens, None);
    assert!(!fleet.instances[0].spec.emulated);
    let error = fleet.instances[0]
        .step_model()
        .expect_err("nothing is known")
        .to_string();
    assert!(error.contains("a-0") && error.contains("`architecture`"), "{error}");
}

#[test]
fn an_opaque_box_keeps_its_time_to_itself() {
    let fleet = parse(&pool("count = 1\nservice_ms = 50\nlimits = { max_num_seqs = 8 }")).expect("good");
    let instance = &fleet.instances[0];
    assert_eq!((instance.service_s, instance.spec.gpu.as_deref()), (Some(0.05), None));
    let model = instance.step_model().expect("opaque");
    assert_eq!((model.fixed_seconds(), model.limits().max_num_seqs), (Some(0.05), 8));
}

#[test]
fn the_context_is_what_the_cache_can_hold() {
    let fleet = parse(&pool("count = 1\ngpu = \"A30\"\nlimits = { num_gpu_blocks = 100 }")).expect("good");
    assert_eq!(fleet.instances[0].spec.model.context_tokens, Some(1601));
}

#[test]
fn the_scheduler_can_be_told() {
    let text = format!(
        "[scheduler]\npolicy = \"least-requests\"\nseed = 7\n[scheduler.settings.weights]\n\
         quality = 1.0\nlatency = 0\nenergy = 0\ncost = 0\n{}",
        pool("count = 1\ngpu = \"H100\"")
    );
    let fleet = parse(&text).expect("good");
    assert_eq!(
        (fleet.scheduler.policy.as_str(), fleet.scheduler.seed),
        ("least-requests", 7)
    );
    assert_eq!(fleet.scheduler.settings.weights.quality, 1.0);
    let unknown = error_of(&text.replace("least-requests", "magic"));
    assert!(
        unknown.starts_with("fleet.toml:2:10: [scheduler]:") && unknown.contains("magic"),
        "{unknown}"
    );
    let negative = error_of(&text.replace("energy = 0", "energy = -1"));
    assert_eq!(
        negative,
        "fleet.toml:7:10: [scheduler]: weight `energy` is -1; it must be zero or more"
    );
}

#[test]
fn a_scheduler_s_number_out_of_range_is_named_with_its_place() {
    let fleet = pool("count = 1\ngpu = \"H100\"");
    let cases = [
        (
            "queue_timeout_s = -5",
            ":2:19: [scheduler]: `queue_timeout_s` is -5; it must be from 0 to 86400",
        ),
        ("queue_timeout_s = nan", ":2:19: [scheduler]: `queue_timeout_s` is NaN"),
        ("queue_timeout_s = inf", ":2:19: [scheduler]: `queue_timeout_s` is inf"),
        (
            "seed = 7\ntelemetry_stale_s = 0.0",
            ":3:21: [scheduler]: `telemetry_stale_s` is 0; it must be from 0.001",
        ),
        (
            "attempts_max = 0",
            ":2:16: [scheduler]: `attempts_max` is 0; it must be from 1 to 100",
        ),
        ("attempts_max = 0x65", ":2:16: [scheduler]: `attempts_max` is 101"),
        ("attempts_max = -1", ":2:16: invalid value: integer `-1`"),
        ("queue_limit = -1", ":2:15: invalid value: integer `-1`"),
        // A weight of this name stands before it, and is in order.
        (
            "[scheduler.settings.weights]\nquality = 1\nlatency = 0\nenergy = 0\ncost = 0\n\
             [scheduler.settings.routebalance.weights]\nquality = -2\nlatency = 0\nenergy = 0\ncost = 0",
            ":8:11: [scheduler]: weight `quality` is -2",
        ),
        (
            "settings = { references = { usd = 0 } }",
            ":2:35: [scheduler]: reference `usd` is 0",
        ),
    ];
    for (keys, expected) in cases {
        let error = error_of(&format!("[scheduler]\n{keys}\n{fleet}"));
        assert!(
            error.starts_with(&format!("fleet.toml{expected}")),
            "expected `{expected}` in: {error}"
        );
    }
    let nobody_waits = parse(&format!("[scheduler]\nqueue_limit = 0\nqueue_timeout_s = 0\n{fleet}")).expect("good");
    assert_eq!(nobody_waits.scheduler.queue_limit, 0);
}

/// Every mistake: the text, and what its error must say.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn every_mistake_is_named_with_its_place_and_its_mend() {
    let good = pool("count = 1\ngpu = \"A30\"");
    let cases = [
        (format!("{good}colour = 1\n"), ":9:1: unknown field `colour`"),
        (good.replace("count = 1", "count ="), "fleet.toml:7:"),
        (good.replace("count = 1\n", ""), ":5:8: pool `a` has no instances"),
        (
            pool("count = 1\nendpoints = [\"http://h:1\"]"),
            "has both `count` and `endpoints`",
        ),
        (pool("count = 0\ngpu = \"A30\""), ":7:9: count is 0"),
        (pool("count = 20000\ngpu = \"A30\""), "between 1 and 10000"),
        (pool("count = 1"), "needs `gpu`"),
        (pool("endpoints = []"), "endpoints is empty"),
        (
            pool("endpoints = [\"ftp://h:1\"]"),
            ":7:14: the endpoint `ftp://h:1` is no URL like",
        ),
        (pool("endpoints = [\"http://\"]"), "is no URL like"),
        (
            pool("endpoints = [\"http://h:1\", \"http://h:1/\"]"),
            "is an instance already",
        ),
        (good.replace("\"A30\"", "\"B9000\""), "known are P100, V100, A30"),
        (
            good.replace("model = \"qwen2.5-3b\"", "model = \"gpt\""),
            "declared are qwen2.5-3b",
        ),
        (
            "[[pool]]\nname = \"a\"\nmodel = \"m\"\ncount = 1\n".to_owned(),
            "add `[[model]]` with `name = \"m\"`",
        ),
        (good.replace("quality = 0.3", "quality = 1.3"), ":3:11: quality is 1.3"),
        (good.replace("quality = 0.3", "quality = nan"), "quality is NaN"),
        (
            good.replace("quality = 0.3", "architecture = \"Foo-1B\""),
            "known are Qwen2.5-0.5B",
        ),
        (
            good.replace("quality = 0.3", "context_tokens = 0"),
            "context_tokens is 0",
        ),
        (
            good.replace("quality = 0.3", "context_tokens = 99999"),
            "handles 32768: lower it",
        ),
        (
            good.replace("quality = 0.3", "mean_output_tokens = 0"),
            "at least 1 token",
        ),
        (
            good.replace(
                "quality = 0.3",
                "price = { input_usd_per_mtok = -1, output_usd_per_mtok = 1 }",
            ),
            "price.input_usd_per_mtok is -1",
        ),
        (
            good.replace("quality = 0.3", "price = { input_usd_per_mtok = 1 }"),
            "missing field `output_usd_per_mtok`",
        ),
        (good.replace("qwen2.5-3b", "auto"), "cannot be called `auto`"),
        (good.replace("name = \"a\"", "name = \"a b\""), "is no name for a pool"),
        (format!("{MODEL}{good}"), "a second [[model]] is called"),
        (
            format!("{good}{}", good.replace(MODEL, "")),
            "a second [[pool]] is called `a`",
        ),
        (format!("{good}tensor_parallel = 0\n"), "tensor_parallel is 0"),
        (format!("{good}tensor_parallel = 3\n"), "cannot share evenly"),
        (
            format!("{good}gpus = [[\"0\"], [\"1\"]]\n"),
            "gpus has 2 lists and the pool 1 instances",
        ),
        (
            format!("{good}gpus = [[\"0\", \"1\"]]\n"),
            "names 2 GPUs and tensor_parallel is 1",
        ),
        (format!("{good}service_ms = 5\n"), "leave `gpu` out"),
        (
            pool("count = 1\nservice_ms = 0"),
            ":8:14: service_ms is 0: it must lie between 1 and 3600000, an hour",
        ),
        (
            pool("count = 1\nservice_ms = 1e10"),
            ":8:14: service_ms is 10000000000:",
        ),
        (pool("count = 1\nservice_ms = nan"), ":8:14: service_ms is NaN:"),
        (pool("count = 1\nservice_ms = -5"), ":8:14: service_ms is -5:"),
        (
            pool("endpoints = [\"http://h:1\"]\nservice_ms = 5"),
            "describes an emulated box",
        ),
        (
            format!("{good}limits = {{ max_num_seqs = 0 }}\n"),
            "limits.max_num_seqs is 0",
        ),
        (
            format!("{good}limits = {{ max_seqs = 1 }}\n"),
            "unknown field `max_seqs`",
        ),
        (
            good.replace("qwen2.5-3b", "qwen2.5-72b"),
            ":5:8: instance a-0: Qwen2.5-72B needs",
        ),
        (MODEL.to_owned(), ":4:1: the fleet is empty"),
        (String::new(), "the fleet is empty"),
    ];
    for (text, expected) in cases {
        let error = error_of(&text);
        assert!(error.starts_with("fleet.toml:"), "{error}");
        assert!(
            error.contains(expected),
            "expected `{expected}` in: {error}\n---\n{text}"
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = FleetFile::load(Path::new("/nonexistent/fleet.toml"))
        .expect_err("absent")
        .to_string();
    assert!(error.contains("/nonexistent/fleet.toml"), "{error}");
}

#[test]
fn every_fleet_that_ships_is_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/fleets");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the folder ships") {
        let path = entry.expect("readable").path();
        let fleet = FleetFile::load(&path).unwrap_or_else(|error| panic!("{error}"));
        // What is real is observed; nobody has to know its physics.
        for instance in fleet.instances.iter().filter(|instance| instance.spec.emulated) {
            if let Err(error) = instance.step_model() {
                panic!("{}: {error}", path.display());
            }
        }
        count += 1;
    }
    assert!(count >= 4, "{count}");
    let paper = FleetFile::load(&folder.join("routebalance-13.toml")).expect("good");
    assert_eq!(paper.instances.len(), 13);
    assert_eq!(
        paper
            .instances
            .iter()
            .map(|instance| instance.spec.tensor_parallel)
            .sum::<u32>(),
        28
    );
}

#[test]
fn tenants_and_capabilities() {
    let text = r#"
[tenants.acme]
labels = { region = "eu" }
usd_per_day = 25.0
joules_per_hour = 3.6e6

[[model]]
name = "m"

[[pool]]
name = "p"
model = "m"
endpoints = ["http://10.0.0.1:8000"]
labels = { region = "eu" }
capabilities = ["tools", "structured"]
"#;
    let fleet = FleetFile::parse(text, "fleet.toml").expect("valid");
    let acme = &fleet.scheduler.tenants["acme"];
    assert_eq!(acme.labels["region"], "eu");
    assert_eq!((acme.usd_per_day, acme.usd_per_hour), (Some(25.0), None));
    let labels = &fleet.instances[0].spec.labels;
    assert!(equipoise_policy::Capability::Tools.is_in(labels));
    assert!(!equipoise_policy::Capability::Images.is_in(labels));
    let wrong = |from: &str, to: &str| {
        let error = FleetFile::parse(&text.replace(from, to), "fleet.toml").expect_err("nonsense");
        error.to_string()
    };
    let error = wrong("25.0", "-1.0");
    assert!(error.contains("usd_per_day") && error.contains("-1"), "{error}");
    assert!(wrong("\"structured\"", "\"magic\"").contains("magic"));
}
