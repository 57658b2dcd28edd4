//! The keys that say how a model is served.

use equipoise_engine::{Precision, SleepLevel, StepModel};

use super::error_of;
use crate::{FleetConfig, FleetFile};

fn pool(keys: &str) -> String {
    format!(
        "[[model]]\nname = \"m\"\narchitecture = \"Llama-3.1-8B\"\n\n[[pool]]\nname = \"p\"\nmodel = \"m\"\ngpu = \"H100\"\n{keys}\n"
    )
}

fn parsed(keys: &str) -> FleetConfig {
    FleetFile::parse(&pool(keys), "fleet.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn step_model(keys: &str) -> StepModel {
    parsed(keys).instances[0].step_model().expect("fits")
}

#[test]
fn every_key_is_taken_and_changes_the_engine() {
    let plain = step_model("count = 1");
    let step = |model: &StepModel| model.decode_step_seconds(32, 32 * 2000);
    for keys in [
        "runtime = \"vllm\"",
        "weights = \"fp8\"",
        "weights = \"awq\"",
        "kv_cache = \"fp8\"",
        "pipeline_parallel = 2",
        "data_parallel = 2",
        "speculative = { draft_tokens = 3, acceptance = 0.7 }",
    ] {
        let changed = step_model(&format!("count = 1\n{keys}"));
        assert!(step(&changed) != step(&plain), "{keys}");
    }
    let slow = step_model("count = 1\ntensor_parallel = 2\nlink = { gbytes_per_s = 10.0 }");
    let usual = step_model("count = 1\ntensor_parallel = 2");
    assert!(slow.prefill_seconds(2000, 0, 0, 0) > usual.prefill_seconds(2000, 0, 0, 0));
    let fleet = parsed("count = 1\nweights = \"awq\"\nsleep = { level = \"discard\", after_s = 60.0 }");
    let serving = fleet.instances[0].spec.serving.clone().expect("declared");
    assert_eq!(serving.weights, Some(Precision::Int4));
    assert_eq!(serving.sleep.map(|sleep| sleep.level), Some(SleepLevel::Discard));
    assert_eq!(parsed("count = 1").instances[0].spec.serving, None);
}

#[test]
fn gpus_are_those_of_all_stages_and_replicas() {
    let keys = "count = 1\npipeline_parallel = 2\ngpus = [[\"0\", \"1\"]]";
    let fleet = parsed(keys);
    assert_eq!(fleet.instances[0].spec.gpu_count(), 2);
    let error = error_of(&pool("count = 1\npipeline_parallel = 2\ngpus = [[\"0\"]]"));
    assert!(
        error.contains("names 1 GPUs and what it is declared to have is 2"),
        "{error}"
    );
    // The slots of an instance are those of all its replicas.
    let fleet = parsed("count = 1\ndata_parallel = 4\nlimits = { max_num_seqs = 64 }");
    assert_eq!(fleet.instances[0].spec.slots(), Some(256));
}

#[test]
fn an_error_points_at_the_key() {
    for (keys, expected) in [
        (
            "count = 1\npipeline_parallel = 40",
            ":10:21: instance p-0: pipeline_parallel is 40: it must lie between 1 and 32",
        ),
        (
            "count = 1\nruntime = \"tgi\"",
            ":10:11: instance p-0: no engine `tgi` was calibrated; there are vllm",
        ),
        ("count = 1\nweights = \"fp7\"", "unknown variant `fp7`"),
        (
            "count = 1\nspeculative = { draft_tokens = 3 }",
            "missing field `acceptance`",
        ),
        (
            "count = 1\nmeasured = \"mlenergy-v2\"\nweights = \"fp8\"",
            ":11:11: instance p-0: weights: the steps of this pool",
        ),
        (
            "endpoints = [\"http://h:1\"]\nexpert_parallel = true",
            ":10:19: instance p-0: expert_parallel: this model has no experts",
        ),
    ] {
        let error = error_of(&pool(keys));
        assert!(error.contains(expected), "expected `{expected}` in: {error}");
    }
    let opaque = pool("count = 1\nservice_ms = 5\nweights = \"fp8\"").replace("gpu = \"H100\"\n", "");
    assert!(error_of(&opaque).contains("leave out how its model is served"));
}
