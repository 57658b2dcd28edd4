use super::*;
use crate::{SleepLevel, StepWork};

fn engine<'a>(model: &'a str, gpu: &'a str, tensor_parallel: u32, serving: &'a Serving) -> DeclaredEngine<'a> {
    DeclaredEngine {
        model,
        gpu,
        tensor_parallel,
        limits: EngineLimits::default(),
        measured: None,
        serving: Some(serving),
    }
}

fn serving(text: &str) -> Serving {
    Serving::from_text(text).expect("it can be read").unwrap_or_default()
}

fn built(model: &str, gpu: &str, tensor_parallel: u32, text: &str) -> StepModel {
    engine(model, gpu, tensor_parallel, &serving(text))
        .step_model()
        .expect("fits")
}

fn decode(seqs: u32, context: u64) -> StepWork {
    StepWork {
        decode_seqs: seqs,
        kv_tokens: u64::from(seqs) * context,
        ..StepWork::default()
    }
}

#[test]
fn what_is_declared_travels_as_text() {
    let declared = serving(
        r#"
        runtime = "vllm"
        weights = "awq"
        kv_cache = "fp8"
        pipeline_parallel = 2
        data_parallel = 3
        link = { gbytes_per_s = 20.0 }
        speculative = { draft_tokens = 4, acceptance = 0.7, draft = "Qwen2.5-0.5B" }
        prefill = { gpu = "H100", count = 2 }
        sleep = { level = "discard", after_s = 60.0 }
        "#,
    );
    assert_eq!(declared.weights, Some(Precision::Int4));
    assert_eq!(declared.sleep.map(|sleep| sleep.level), Some(SleepLevel::Discard));
    assert_eq!(serving(&declared.to_text()), declared);
    assert_eq!(declared.gpus(4), 4 * 2 * 3 + 2);
    assert_eq!(Serving::default().to_text(), "");
    assert_eq!(Serving::from_text(""), Ok(None));
    assert!(Serving::from_text("warp = 9").is_err());
}

#[test]
fn what_makes_no_sense_is_refused_with_its_key() {
    let cases = [
        ("runtime = \"tgi\"", "runtime"),
        ("weights = \"mxfp4\"", "weights"),
        ("kv_cache = \"int4\"", "kv_cache"),
        ("pipeline_parallel = 0", "pipeline_parallel"),
        ("pipeline_parallel = 33", "pipeline_parallel"),
        ("data_parallel = 0", "data_parallel"),
        ("expert_parallel = true", "expert_parallel"),
        ("link = { gbytes_per_s = 0.0 }", "link"),
        ("speculative = { draft_tokens = 0, acceptance = 0.5 }", "speculative"),
        ("speculative = { draft_tokens = 3, acceptance = 1.5 }", "speculative"),
        (
            "speculative = { draft_tokens = 3, acceptance = 0.5, draft = \"mine\" }",
            "speculative",
        ),
        ("prefill = { gpu = \"H100\", count = 0 }", "prefill"),
        ("prefill = { gpu = \"abacus\", count = 1 }", "prefill"),
        ("sleep = { level = \"off\", after_s = -1.0 }", "sleep"),
    ];
    for (text, key) in cases {
        let declared = serving(text);
        let error = engine("Llama-3.1-8B", "H100", 1, &declared)
            .step_model()
            .expect_err(text);
        assert_eq!(error.key(), Some(key), "{text}: {error}");
    }
}

#[test]
fn quantised_weights_leave_more_room_and_decode_faster() {
    let bf16 = built("Llama-3.1-70B", "H100", 4, "");
    for (weights, least, most) in [("fp8", 1.3, 2.0), ("int8", 1.3, 2.0), ("int4", 1.6, 3.9)] {
        let quantised = built("Llama-3.1-70B", "H100", 4, &format!("weights = {weights:?}"));
        let faster = bf16.decode_step_seconds(1, 512) / quantised.decode_step_seconds(1, 512);
        assert!((least..most).contains(&faster), "{weights}: {faster}");
        assert!(quantised.kv_blocks() > bf16.kv_blocks());
    }
    // int4 is unpacked to bf16: long prompts gain nothing.
    let int4 = built("Llama-3.1-70B", "H100", 4, "weights = \"int4\"");
    let prompts = int4.prefill_seconds(8192, 0, 0, 0) / bf16.prefill_seconds(8192, 0, 0, 0);
    assert!((0.9..=1.0).contains(&prompts), "{prompts}");
    // A100 has no fp8: the weights are smaller, the products as slow.
    let (plain, small) = (
        built("Llama-3.1-8B", "A100-80G", 1, ""),
        built("Llama-3.1-8B", "A100-80G", 1, "weights = \"fp8\""),
    );
    assert!(small.prefill_seconds(8192, 0, 0, 0) > 0.9 * plain.prefill_seconds(8192, 0, 0, 0));
}

#[test]
fn an_8_bit_cache_holds_twice_as_much_and_reads_in_half_the_time() {
    let (plain, small) = (
        built("Llama-3.1-8B", "H100", 1, ""),
        built("Llama-3.1-8B", "H100", 1, "kv_cache = \"fp8\""),
    );
    let ratio = f64::from(small.kv_blocks()) / f64::from(plain.kv_blocks());
    assert!((1.99..=2.01).contains(&ratio), "{ratio}");
    let reading = |model: &StepModel| model.decode_step_seconds(8, 800_000) - model.decode_step_seconds(8, 0);
    assert!((reading(&plain) / reading(&small) - 2.0).abs() < 1e-6);
}

#[test]
fn a_pipeline_takes_a_pass_for_one_and_shares_a_full_batch() {
    let (whole, piped) = (
        built("Llama-3.1-70B", "H100", 4, ""),
        built("Llama-3.1-70B", "H100", 4, "pipeline_parallel = 2"),
    );
    // One sequence: the same pass, and two hops.
    let alone = piped.decode_step_seconds(1, 512) / whole.decode_step_seconds(1, 512);
    assert!((1.0..1.05).contains(&alone), "{alone}");
    // Many: both stages are busy, each with half of the batch, so a token comes sooner than from one stage.
    let full = piped.decode_step_seconds(512, 512 * 1000) / whole.decode_step_seconds(512, 512 * 1000);
    assert!((0.5..0.9).contains(&full), "{full}");
    // Half of the weights leave room for far more than twice the cache.
    assert!(piped.kv_blocks() > 2 * whole.kv_blocks());
    assert_eq!(piped.idle_watts().0, 2.0 * whole.idle_watts().0);
}

#[test]
fn replicas_are_as_many_engines_behind_one_door() {
    let (one, four) = (
        built("Llama-3.1-8B", "H100", 1, ""),
        built("Llama-3.1-8B", "H100", 1, "data_parallel = 4"),
    );
    assert_eq!(four.kv_blocks(), 4 * one.kv_blocks());
    assert_eq!(four.limits().max_num_seqs, 4 * one.limits().max_num_seqs);
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} and {b}");
    near(
        four.decode_step_seconds(64, 64_000),
        one.decode_step_seconds(16, 16_000),
    );
    near(
        four.cost(&decode(64, 1000)).joules.0,
        4.0 * one.cost(&decode(16, 1000)).joules.0,
    );
    // One request keeps one replica busy; the others idle along.
    let alone = four.cost(&decode(1, 1000));
    near(alone.seconds, one.cost(&decode(1, 1000)).seconds);
    near(
        alone.watts.0,
        one.cost(&decode(1, 1000)).watts.0 + 3.0 * one.idle_watts().0,
    );
    // What is ahead is shared out, the own prompt is not.
    near(
        four.prompt_seconds(4000, 1000, 0, 0),
        one.prefill_seconds(2000, 0, 0, 0),
    );
}

#[test]
fn speculation_pays_alone_and_costs_in_a_large_batch() {
    let text = |acceptance: f64| {
        format!("speculative = {{ draft_tokens = 4, acceptance = {acceptance:?}, draft = \"Llama-3.1-8B\" }}")
    };
    let plain = built("Llama-3.1-70B", "H100", 4, "");
    let good = built("Llama-3.1-70B", "H100", 4, &text(0.8));
    let bad = built("Llama-3.1-70B", "H100", 4, &text(0.0));
    // (1 - 0.8^5) / 0.2 = 3.36 tokens a round, less what drafting costs.
    let faster = plain.decode_step_seconds(1, 512) / good.decode_step_seconds(1, 512);
    assert!((1.2..3.36).contains(&faster), "{faster}");
    assert!(bad.decode_step_seconds(1, 512) > plain.decode_step_seconds(1, 512));
    let crowded = |model: &StepModel| model.decode_step_seconds(256, 256 * 512);
    assert!(crowded(&plain) / crowded(&good) < faster);
    // The drafting model takes memory, too.
    assert!(good.kv_blocks() < plain.kv_blocks());
    let look_up = built(
        "Llama-3.1-70B",
        "H100",
        4,
        "speculative = { draft_tokens = 4, acceptance = 0.8 }",
    );
    assert!(look_up.decode_step_seconds(1, 512) < good.decode_step_seconds(1, 512));
}

#[test]
fn a_round_yields_the_published_expectation() {
    let round = |draft_tokens, acceptance| {
        let speculation = Speculation {
            draft_tokens,
            acceptance,
            draft: None,
        };
        speculation.tokens_per_round()
    };
    assert_eq!(round(4, 0.0), 1.0);
    assert_eq!(round(4, 1.0), 5.0);
    assert!((round(5, 0.8) - (1.0 - 0.8_f64.powi(6)) / 0.2).abs() < 1e-12);
}

#[test]
fn prompts_elsewhere_take_their_time_and_the_transfer() {
    let whole = built("Llama-3.1-8B", "A100-80G", 1, "");
    let split = built(
        "Llama-3.1-8B",
        "A100-80G",
        1,
        "prefill = { gpu = \"H100\", count = 2, gbytes_per_s = 10.0, latency_us = 100.0 }",
    );
    let side = split.prefill_side().expect("declared");
    // 131,072 bytes a token: 4,096 tokens in 53.8 ms at 10 GB/s.
    assert!((side.transfer_seconds(4096) - (100e-6 + 4096.0 * 131_072.0 / 10e9)).abs() < 1e-9);
    let expected = side.engine.prefill_seconds(4096, 0, 0, 0) + side.transfer_seconds(4096);
    assert!((split.prefill_seconds(4096, 0, 100, 100_000) - expected).abs() < 1e-12);
    assert_eq!(split.cost(&decode(8, 500)), whole.cost(&decode(8, 500)));
    assert_eq!(split.idle_watts().0, whole.idle_watts().0 + side.idle_watts().0);
}

#[test]
fn a_measured_tier_is_served_as_it_was_measured() {
    let declared = serving("weights = \"fp8\"");
    let both = DeclaredEngine {
        measured: Some("mlenergy-v2"),
        ..engine("Llama-3.1-8B", "H100", 1, &declared)
    };
    assert_eq!(both.step_model().expect_err("a contradiction").key(), Some("weights"));
    let declared = serving("data_parallel = 2");
    let two = DeclaredEngine {
        measured: Some("mlenergy-v2"),
        ..engine("Llama-3.1-8B", "H100", 1, &declared)
    };
    let two = two.step_model().expect("measured");
    let one = StepModel::measured(
        &EngineShape {
            gpu: gpu("H100").expect("known"),
            model: model("Llama-3.1-8B").expect("known"),
            tensor_parallel: 1,
            limits: EngineLimits::default(),
            deployment: Deployment::default(),
        },
        &measured_tier(
            "mlenergy-v2",
            model("Llama-3.1-8B").expect("known"),
            gpu("H100").expect("known"),
            1,
        )
        .expect("ships"),
    );
    let one = one.expect("fits");
    assert_eq!(two.decode_step_seconds(64, 32_000), one.decode_step_seconds(32, 16_000));
}
