use super::*;
use crate::gpu::GpuSpec;
use crate::{Deployment, Precision, calibration, gpu, gpus, model, models};
use proptest::prelude::*;

fn built(gpu_name: &str, model_name: &str, tensor_parallel: u32) -> StepModel {
    let shape = EngineShape {
        gpu: gpu(gpu_name).expect("known"),
        model: model(model_name).expect("known"),
        tensor_parallel,
        limits: EngineLimits {
            max_num_seqs: 1024,
            max_num_batched_tokens: 8192,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    };
    StepModel::new(&shape).expect("fits")
}

/// Steps of a batch in steady state: `seqs` sequences at half their output, and the prefill that replaces those that end.
fn chat(seqs: u32, prompt: f64, output: f64) -> StepWork {
    let arriving = f64::from(seqs) / output;
    StepWork {
        prefill_tokens: (arriving * prompt).round() as u32,
        prefill_seqs: arriving.round() as u32,
        prefill_attention: arriving * prompt * prompt / 2.0,
        prefill_kv_tokens: 0,
        decode_seqs: seqs,
        kv_tokens: (f64::from(seqs) * (prompt + output / 2.0)) as u64,
    }
}

#[track_caller]
fn assert_near(value: f64, measured: f64, tolerance: f64) {
    assert!(
        (value / measured - 1.0).abs() <= tolerance,
        "{value} is not within {tolerance} of {measured}"
    );
}

/// ML.ENERGY v3, lm-arena-chat: (GPU, model, GPUs, batch, median inter-token latency ms, J per output token, output length).
const MEASURED: [(&str, &str, u32, u32, f64, f64, f64); 8] = [
    ("H100", "Llama-3.1-8B", 1, 8, 7.316, 0.4548, 389.0),
    ("H100", "Llama-3.1-8B", 1, 64, 11.500, 0.1186, 396.0),
    ("H100", "Llama-3.1-8B", 1, 128, 16.482, 0.0951, 405.0),
    ("H100", "Llama-3.1-70B", 4, 8, 16.6, 3.756, 400.0),
    ("H100", "Llama-3.1-70B", 4, 128, 27.9, 0.561, 400.0),
    ("B200", "Llama-3.1-70B", 2, 64, 21.7, 0.693, 400.0),
    ("B200", "Qwen3-32B", 1, 128, 24.7, 0.208, 400.0),
    ("B200", "Qwen3-14B", 1, 32, 9.4, 0.243, 400.0),
];

#[test]
fn step_time_and_energy_are_near_what_was_measured() {
    for (gpu_name, model_name, gpus, batch, itl_ms, joules_per_token, output) in MEASURED {
        let model = built(gpu_name, model_name, gpus);
        let decode = StepWork {
            prefill_tokens: 0,
            prefill_seqs: 0,
            prefill_attention: 0.0,
            ..chat(batch, 150.0, output)
        };
        assert_near(model.cost(&decode).seconds * 1e3, itl_ms, 0.20);
        let joules = model.cost(&chat(batch, 150.0, output)).joules.0 / f64::from(batch);
        assert_near(joules, joules_per_token, 0.20);
    }
}

#[test]
fn the_case_every_reader_knows() {
    // Llama-3.1-8B on one H100 at batch 64: 11.5 ms and 0.119 J per token (ML.ENERGY v3).
    let model = built("H100", "Llama-3.1-8B", 1);
    assert_near(model.decode_step_seconds(64, 64 * 348), 11.5e-3, 0.15);
    assert_near(model.cost(&chat(64, 150.0, 396.0)).joules.0 / 64.0, 0.119, 0.20);
}

#[test]
fn a_large_model_on_four_a100_decodes_at_a_plausible_rate() {
    // Llama-2-70B at tensor parallel 4 on A100-80G decodes a token in 44.9 ms in splitwise-sim's table (another engine, of
    // 2023); its weights alone take 17.3 ms of pure bandwidth.
    let seconds = built("A100-80G", "Qwen2.5-72B", 4).decode_step_seconds(1, 512);
    assert!((0.0173..0.0449).contains(&seconds), "{seconds}");
}

#[test]
fn prefill_is_compute_bound() {
    // 2 * parameters * tokens at the peak is a floor; a real H100 reaches half to three quarters of it.
    let model = built("H100", "Llama-3.1-8B", 1);
    let floor = 2.0 * 7.5e9 * 4096.0 / 989e12;
    let seconds = model.prefill_seconds(4096, 0, 0, 0);
    assert!(seconds > floor && seconds < 2.5 * floor, "{seconds} against {floor}");
    assert!(
        model
            .cost(&StepWork {
                prefill_tokens: 4096,
                prefill_seqs: 1,
                ..StepWork::default()
            })
            .watts
            .0
            > 650.0
    );
}

#[test]
fn chunked_prefill_adds_up() {
    let model = built("A100-80G", "Qwen2.5-7B", 1);
    let (seqs, kv, prefix) = (20, 20_000, 100);
    let chunk = 8192 - seqs;
    let mut sum = 0.0;
    let mut done = 0;
    while done < 20_000 {
        let now = chunk.min(20_000 - done);
        let before = f64::from(prefix + done);
        sum += model
            .cost(&StepWork {
                prefill_tokens: now,
                prefill_seqs: 1,
                prefill_attention: f64::from(now) * (before + f64::from(now) / 2.0),
                prefill_kv_tokens: u64::from(prefix + done),
                decode_seqs: seqs,
                kv_tokens: kv,
            })
            .seconds;
        done += now;
    }
    assert_near(model.prefill_seconds(20_000, prefix, seqs, kv), sum, 1e-9);
}

#[test]
fn every_combination_that_fits_is_sane() {
    for gpu in gpus() {
        for model in models() {
            for tensor_parallel in [1, 2, 4, 8] {
                let shape = EngineShape {
                    gpu,
                    model,
                    tensor_parallel,
                    limits: EngineLimits::default(),
                    deployment: Deployment::default(),
                };
                let Ok(built) = StepModel::new(&shape) else {
                    continue;
                };
                let terms = built.energy_terms();
                assert!(
                    terms.fixed_joules > 0.0 && terms.joules_per_decode_token > 0.0,
                    "{} {terms:?}",
                    model.name
                );
                assert!(
                    terms.joules_per_prefill_token > 0.0 && terms.joules_per_kv_token > 0.0,
                    "{} {terms:?}",
                    model.name
                );
                let cost = built.cost(&StepWork {
                    decode_seqs: 1,
                    kv_tokens: 1,
                    ..StepWork::default()
                });
                assert!(
                    cost.watts.0 >= built.idle_watts().0,
                    "{} on {}: a step draws less than idling",
                    model.name,
                    gpu.name
                );
            }
        }
    }
}

#[test]
fn the_linearised_energy_is_near_the_model_around_its_point() {
    let model = built("H100", "Llama-3.1-8B", 1);
    let terms = model.energy_terms();
    for (seqs, context) in [(32, 400_u64), (64, 512), (96, 700)] {
        let kv_tokens = u64::from(seqs) * context;
        let work = StepWork {
            prefill_tokens: 32,
            prefill_seqs: 1,
            decode_seqs: seqs,
            kv_tokens,
            ..StepWork::default()
        };
        let linear = terms.fixed_joules
            + 32.0 * terms.joules_per_prefill_token
            + f64::from(seqs) * terms.joules_per_decode_token
            + kv_tokens as f64 * terms.joules_per_kv_token;
        assert_near(linear, model.cost(&work).joules.0, 0.10);
    }
}

#[test]
fn an_opaque_box_takes_its_time_whatever_the_length() {
    let fixed = StepModel::fixed(0.25, EngineLimits::default());
    assert_eq!(
        fixed.prefill_seconds(10, 0, 5, 100) + 300.0 * fixed.decode_step_seconds(5, 100),
        0.25
    );
    assert_eq!(
        StepModel::fixed(f64::NAN, EngineLimits::default()).fixed_seconds(),
        Some(1e-6)
    );
}

#[test]
fn decoding_costs_the_same_to_the_bit() {
    let mut compared = 0;
    for (gpu, model) in gpus()
        .iter()
        .flat_map(|gpu| models().iter().map(move |model| (gpu, model)))
    {
        for tensor_parallel in [1, 2, 4] {
            let shape = EngineShape {
                gpu,
                model,
                tensor_parallel,
                limits: EngineLimits::default(),
                deployment: Deployment::default(),
            };
            let tier = crate::measured_tier("mlenergy-v2", model, gpu, tensor_parallel);
            let measured = tier.ok().and_then(|tier| StepModel::measured(&shape, &tier).ok());
            for model in StepModel::new(&shape).into_iter().chain(measured) {
                for (seqs, kv_tokens) in [
                    (1, 0),
                    (1, 777),
                    (7, 12_345),
                    (64, 50_001),
                    (600, 900_123),
                    (256, 9_000_000),
                ] {
                    let work = StepWork {
                        decode_seqs: seqs,
                        kv_tokens,
                        ..StepWork::default()
                    };
                    assert_eq!(
                        model.decoding(seqs).cost(kv_tokens),
                        model.cost(&work),
                        "{seqs} {kv_tokens}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 500, "{compared}");
    let opaque = StepModel::fixed(0.1, EngineLimits::default());
    assert_eq!(opaque.decoding(3).cost(5), opaque.cost(&StepWork::default()));
}

fn works() -> impl Strategy<Value = StepWork> {
    (
        0_u32..3000,
        0_u32..8,
        0.0..1e7_f64,
        0_u64..100_000,
        0_u32..600,
        0_u64..500_000,
    )
        .prop_map(
            |(prefill_tokens, prefill_seqs, prefill_attention, prefill_kv_tokens, decode_seqs, kv_tokens)| StepWork {
                prefill_tokens,
                prefill_seqs,
                prefill_attention,
                prefill_kv_tokens,
                decode_seqs,
                kv_tokens,
            },
        )
}

fn specs() -> impl Strategy<Value = (&'static GpuSpec, &'static crate::ModelSpec, u32)> {
    (
        0..gpus().len(),
        0..models().len(),
        prop_oneof![Just(1_u32), Just(2), Just(4)],
    )
        .prop_map(|(g, m, split)| (&gpus()[g], &models()[m], split))
}

/// The physics alone: whether the weights fit does not matter to time.
fn physics(gpu: &'static GpuSpec, model: &'static crate::ModelSpec, tensor_parallel: u32) -> Physical {
    Physical::new(&EngineShape {
        gpu,
        model,
        tensor_parallel,
        limits: EngineLimits::default(),
        deployment: Deployment::default(),
    })
}

/// The work of both in one step.
fn together(a: &StepWork, b: &StepWork) -> StepWork {
    StepWork {
        prefill_tokens: a.prefill_tokens + b.prefill_tokens,
        prefill_seqs: a.prefill_seqs + b.prefill_seqs,
        prefill_attention: a.prefill_attention + b.prefill_attention,
        prefill_kv_tokens: a.prefill_kv_tokens + b.prefill_kv_tokens,
        decode_seqs: a.decode_seqs + b.decode_seqs,
        kv_tokens: a.kv_tokens + b.kv_tokens,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn more_work_is_never_faster((gpu, model, split) in specs(), a in works(), b in works()) {
        let physical = physics(gpu, model, split);
        let both = together(&a, &b);
        prop_assert!(physical.seconds(&both) >= physical.seconds(&a) - 1e-12);
        prop_assert!(physical.seconds(&both) >= physical.seconds(&b) - 1e-12);
    }

    #[test]
    fn no_step_of_a_calibrated_engine_beats_the_roofline(
        (runtime, board, weights) in prop_oneof![
            Just(("vllm", "H100", Precision::Bf16)),
            Just(("vllm", "H200", Precision::Fp8)),
            Just(("vllm", "B200", Precision::Fp4)),
            Just(("trtllm", "B200", Precision::Fp8)),
            Just(("sglang", "H200", Precision::Fp8)),
        ],
        m in 0..models().len(),
        split in prop_oneof![Just(1_u32), Just(2), Just(4)],
        work in works(),
    ) {
        let gpu = gpu(board).expect("known");
        let deployment = Deployment {
            weights,
            kv_cache: Precision::Fp8,
            calibration: Some(calibration(runtime, gpu, weights).expect("calibrated")),
            ..Deployment::default()
        };
        let physical = Physical::new(&EngineShape {
            gpu,
            model: &models()[m],
            tensor_parallel: split,
            limits: EngineLimits::default(),
            deployment,
        });
        let cost = physical.cost(&work);
        if cost.seconds > 0.0 {
            let (memory, compute) = physical.utilisation(&work, cost.seconds);
            prop_assert!(memory <= 1.0, "reads {memory} of the peak bandwidth");
            prop_assert!(compute <= 1.0, "computes {compute} of the peak");
        }
    }

    #[test]
    fn no_step_beats_the_roofline((gpu, model, split) in specs(), work in works()) {
        let physical = physics(gpu, model, split);
        let cost = physical.cost(&work);
        if cost.seconds > 0.0 {
            let (memory, compute) = physical.utilisation(&work, cost.seconds);
            prop_assert!(memory <= 1.0, "reads {memory} of the peak bandwidth");
            prop_assert!(compute <= 1.0, "computes {compute} of the peak");
            prop_assert!(cost.watts.0 <= physical.gpus * gpu.tdp_watts + 1e-9);
            prop_assert!((cost.joules.0 - cost.watts.0 * cost.seconds).abs() < 1e-9);
        }
    }

    /// Whatever the format, the split, the pipeline: neither faster than the arithmetic of its parameters nor than reading what is
    /// read whole, both counted from the model's published sizes alone.
    #[test]
    fn no_step_of_any_deployment_beats_the_roofline(
        (gpu, model, split) in specs(),
        (weights, stages, apart) in (
            prop_oneof![
                Just(Precision::Bf16), Just(Precision::Fp8), Just(Precision::Int8), Just(Precision::Int4),
                Just(Precision::Fp4), Just(Precision::Mxfp4),
            ],
            1_u32..4,
            any::<bool>(),
        ),
        (a, b) in (works(), works()),
    ) {
        let physical = Physical::new(&EngineShape {
            gpu,
            model,
            tensor_parallel: split,
            limits: EngineLimits::default(),
            deployment: Deployment { weights, pipeline_parallel: stages, expert_parallel: apart, ..Deployment::default() },
        });
        let cost = physical.cost(&a);
        if cost.seconds > 0.0 {
            let (memory, compute) = physical.utilisation(&a, cost.seconds);
            prop_assert!(memory <= 1.0 && compute <= 1.0, "{memory} {compute}");
            prop_assert!(cost.watts.0 <= physical.gpus * gpu.tdp_watts + 1e-9);
            let embeddings = f64::from(model.vocab) * f64::from(model.hidden) * if model.tied_embeddings { 1.0 } else { 2.0 };
            let through = model.active_parameters() as f64 - embeddings;
            let tokens = f64::from(a.prefill_tokens + a.decode_seqs);
            let rate = f64::from(split * stages) * gpu.peak_flops * weights.speedup(gpu);
            // Norms and the like are parameters, and no product: a hundredth.
            prop_assert!(cost.seconds >= 0.99 * 2.0 * through * tokens / rate, "{} {}", model.name, cost.seconds);
            let whole = (model.parameters - model.expert_parameters()) as f64 - embeddings;
            let bytes = whole * weights.outside_experts().bytes();
            let passes = f64::from(stages.min(a.prefill_seqs + a.decode_seqs).max(1));
            let read_s = bytes * passes / (f64::from(split * stages) * f64::from(stages) * gpu.bandwidth);
            prop_assert!(cost.seconds >= 0.99 * read_s, "{} reads in {}", model.name, cost.seconds);
        }
        let both = together(&a, &b);
        if stages == 1 {
            prop_assert!(physical.seconds(&both) >= physical.seconds(&a) * (1.0 - 1e-9));
        }
    }

    #[test]
    fn doubled_bandwidth_is_never_slower((gpu, model, split) in specs(), work in works()) {
        let faster: &'static GpuSpec = Box::leak(Box::new(GpuSpec { bandwidth: 2.0 * gpu.bandwidth, ..gpu.clone() }));
        prop_assert!(physics(faster, model, split).seconds(&work) <= physics(gpu, model, split).seconds(&work) + 1e-12);
    }
}
