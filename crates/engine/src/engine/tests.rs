use super::*;
use crate::{Deployment, EngineLimits, EngineShape, gpu, model};
use proptest::prelude::*;

fn step_model(limits: EngineLimits) -> StepModel {
    let shape = EngineShape {
        gpu: gpu("H100").expect("known"),
        model: model("Llama-3.1-8B").expect("known"),
        tensor_parallel: 1,
        limits,
        deployment: Deployment::default(),
    };
    StepModel::new(&shape).expect("fits")
}

fn request(id: u64, prompt_tokens: u32, output_tokens: u32) -> EngineRequest {
    EngineRequest {
        id: RequestId(id),
        prompt_tokens,
        output_tokens,
        cached_tokens: 0,
    }
}

fn run_to_end(engine: &mut Engine) -> (Vec<EngineEvent>, Vec<Step>) {
    let (mut events, mut steps) = (Vec::new(), Vec::new());
    while let Some(step) = engine.begin_step() {
        assert_eq!(engine.begin_step(), Some(step), "beginning twice changes nothing");
        engine.end_step(&mut events);
        steps.push(step);
    }
    (events, steps)
}

#[test]
fn a_long_prompt_is_cut_into_chunks() {
    let mut engine = Engine::new(step_model(EngineLimits::default()));
    let id = RequestId(1);
    engine.submit(request(1, 5000, 3)).expect("fits");
    let (events, steps) = run_to_end(&mut engine);
    assert_eq!(
        events,
        [
            EngineEvent::FirstToken { id },
            EngineEvent::Token { id },
            EngineEvent::Token { id },
            EngineEvent::Finished { id }
        ]
    );
    let prefill: Vec<u32> = steps.iter().map(|step| step.work.prefill_tokens).collect();
    assert_eq!(prefill, [2048, 2048, 904, 0, 0]);
    assert_eq!(
        steps.iter().map(|step| step.work.prefill_attention).sum::<f64>(),
        5000.0 * 5000.0 / 2.0
    );
    assert_eq!(steps[4].work.kv_tokens, 5002);
    assert!(engine.is_idle());
    assert_eq!(engine.stats().kv_used_blocks, 0);
}

#[test]
fn decodes_go_before_prefill_within_the_budget() {
    let mut engine = Engine::new(step_model(EngineLimits {
        max_num_batched_tokens: 100,
        ..EngineLimits::default()
    }));
    engine.submit(request(1, 50, 10)).expect("fits");
    engine.submit(request(2, 300, 10)).expect("fits");
    engine.begin_step();
    let parts: Vec<_> = engine
        .step_parts()
        .iter()
        .map(|part| (part.id.0, part.prefill_tokens, part.decode_tokens))
        .collect();
    assert_eq!(parts, [(1, 50, 0), (2, 50, 0)]);
    engine.end_step(&mut Vec::new());
    engine.begin_step();
    let parts: Vec<_> = engine
        .step_parts()
        .iter()
        .map(|part| (part.id.0, part.prefill_tokens, part.decode_tokens))
        .collect();
    assert_eq!(parts, [(1, 0, 1), (2, 99, 0)]);
}

#[test]
fn a_cached_prefix_is_not_computed_but_takes_blocks() {
    let mut engine = Engine::new(step_model(EngineLimits::default()));
    engine
        .submit(EngineRequest {
            cached_tokens: 960,
            ..request(1, 1000, 1)
        })
        .expect("fits");
    engine
        .submit(EngineRequest {
            cached_tokens: 5000,
            ..request(2, 1000, 1)
        })
        .expect("fits");
    assert_eq!(engine.stats().pending_prefill_tokens, 41);
    let step = engine.begin_step().expect("work");
    assert_eq!(step.work.prefill_tokens, 41, "at least the last token is computed");
    assert_eq!(step.work.prefill_kv_tokens, 960 + 999);
    assert_eq!(engine.stats().kv_used_blocks, 2 * 63);
}

#[test]
fn the_last_admitted_gives_way_and_is_computed_again() {
    // 8 blocks of 4 tokens: two prompts of 12 fit, their outputs do not.
    let limits = EngineLimits {
        block_tokens: 4,
        num_gpu_blocks: Some(8),
        ..EngineLimits::default()
    };
    let mut engine = Engine::new(step_model(limits));
    // The second comes back with 17 tokens; the first has overwritten two of its four blocks, eight tokens are found again.
    const RECOMPUTED: u32 = 9;
    engine.submit(request(1, 12, 12)).expect("fits");
    engine.submit(request(2, 12, 12)).expect("fits");
    let (events, steps) = run_to_end(&mut engine);
    let preempted: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, EngineEvent::Preempted { .. }))
        .collect();
    assert_eq!(preempted, [&EngineEvent::Preempted { id: RequestId(2) }]);
    let first_tokens = events
        .iter()
        .filter(|event| matches!(event, EngineEvent::FirstToken { .. }))
        .count();
    let computed: u32 = steps.iter().map(|step| step.work.prefill_tokens).sum();
    assert_eq!(computed, 24 + RECOMPUTED);
    assert_eq!(first_tokens, 2, "a recomputed request has no second first token");
    assert_eq!(engine.stats().preemptions_total, 1);
    assert_eq!(engine.stats().generation_tokens_total, 24);
    assert_eq!(engine.stats().prompt_tokens_total, 24);
}

#[test]
fn what_can_never_run_is_refused() {
    let limits = EngineLimits {
        num_gpu_blocks: Some(10),
        ..EngineLimits::default()
    };
    let mut engine = Engine::new(step_model(limits));
    assert!(matches!(
        engine.submit(request(1, 0, 1)),
        Err(SubmitError::Empty { .. })
    ));
    assert!(matches!(
        engine.submit(request(1, 1, 0)),
        Err(SubmitError::Empty { .. })
    ));
    assert!(matches!(
        engine.submit(request(1, 131_072, 1)),
        Err(SubmitError::TooLongForContext { .. })
    ));
    assert!(matches!(
        engine.submit(request(1, u32::MAX, u32::MAX)),
        Err(SubmitError::TooLongForContext { .. })
    ));
    assert!(matches!(
        engine.submit(request(1, 100, 62)),
        Err(SubmitError::TooLongForKv {
            tokens: 161,
            capacity: 160,
            ..
        })
    ));
    assert_eq!(
        engine.submit(request(1, 100, 61)),
        Ok(()),
        "the last token is never stored"
    );
    assert!(matches!(
        engine.submit(request(1, 5, 5)),
        Err(SubmitError::Duplicate { .. })
    ));
    let (events, _) = run_to_end(&mut engine);
    assert_eq!(events.len(), 62);
    assert_eq!(
        engine.submit(request(1, 5, 5)),
        Ok(()),
        "an id is free again after its end"
    );
}

#[test]
fn an_abort_within_a_step_silences_the_request() {
    let mut engine = Engine::new(step_model(EngineLimits::default()));
    engine.submit(request(1, 10, 5)).expect("fits");
    engine.submit(request(2, 10, 5)).expect("fits");
    engine.begin_step();
    assert!(engine.abort(RequestId(1)));
    assert!(!engine.abort(RequestId(1)));
    engine.submit(request(3, 10, 5)).expect("takes the free slot");
    let mut events = Vec::new();
    engine.end_step(&mut events);
    assert_eq!(events, [EngineEvent::FirstToken { id: RequestId(2) }]);
    assert_eq!(engine.step_parts().len(), 2, "the work was begun");
    let (events, _) = run_to_end(&mut engine);
    assert!(events.iter().all(|event| event.id() != RequestId(1)));
    assert_eq!(engine.stats().kv_used_blocks, 0);
}

#[test]
fn an_opaque_box_can_run_to_its_next_completion_and_be_cut() {
    let limits = EngineLimits {
        max_num_seqs: 2,
        ..EngineLimits::default()
    };
    let mut engine = Engine::new(StepModel::fixed(3600.0, limits));
    assert_eq!(engine.cut_step(1.0), None, "no step has begun");
    engine.submit(request(0, 10, 2)).expect("no limit");
    assert_eq!(engine.begin_long_step().expect("work").cost.seconds, 3600.0);
    // Another one comes in after 600 s.
    assert_eq!(engine.cut_step(600.0).expect("cut").cost.seconds, 600.0);
    let mut events = Vec::new();
    engine.end_step(&mut events);
    assert_eq!(events, [], "nothing is finished yet");
    engine.submit(request(1, 10, 2)).expect("no limit");
    let ends = |engine: &mut Engine| {
        let (mut events, seconds) = (Vec::new(), engine.begin_long_step().expect("work").cost.seconds);
        engine.end_step(&mut events);
        (seconds, events.last().expect("a completion").id().0)
    };
    assert_eq!(ends(&mut engine), (3000.0, 0));
    assert_eq!(ends(&mut engine), (600.0, 1));
    assert!(engine.is_idle());
    let mut physical = Engine::new(step_model(EngineLimits::default()));
    physical.submit(request(0, 10, 2)).expect("fits");
    let whole = physical.begin_long_step();
    assert_eq!(physical.cut_step(0.0), None, "a batch cannot be cut");
    assert_eq!(physical.begin_step(), whole);
}

#[test]
fn an_opaque_box_serves_in_parallel_slots() {
    let limits = EngineLimits {
        max_num_seqs: 2,
        ..EngineLimits::default()
    };
    let mut engine = Engine::new(StepModel::fixed(0.0105, limits));
    for id in 0..3 {
        engine.submit(request(id, 1 + 1000 * id as u32, 2)).expect("no limit");
    }
    let mut now = 0.0;
    let mut finished = Vec::new();
    let mut events = Vec::new();
    while let Some(step) = engine.begin_step() {
        assert!(step.cost.seconds <= 1e-3);
        now += step.cost.seconds;
        engine.end_step(&mut events);
        for event in events.drain(..) {
            if let EngineEvent::Finished { id } = event {
                finished.push((id.0, (now * 1e6).round() as u64));
            }
        }
    }
    assert_eq!(finished, [(0, 10_500), (1, 10_500), (2, 21_000)]);
    let stats = engine.stats();
    assert_eq!(
        (
            stats.generation_tokens_total,
            stats.pending_prefill_tokens,
            stats.pending_decode_tokens
        ),
        (6, 0, 0)
    );
}

/// One thing that a driver does.
#[derive(Clone, Debug)]
enum Act {
    Submit { prompt: u32, output: u32, cached: u32 },
    Abort { which: usize },
    Begin,
    End,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1_u32..60, 1_u32..40, 0_u32..70).prop_map(|(prompt, output, cached)| Act::Submit { prompt, output, cached }),
        1 => (0_usize..64).prop_map(|which| Act::Abort { which }),
        6 => Just(Act::Begin),
        6 => Just(Act::End),
    ];
    proptest::collection::vec(act, 1..200)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Open { tokens: u32 },
    Finished,
    Aborted,
}

/// Drives an engine by `acts`, then to its end, and checks every event against what may come.
fn drive(model: StepModel, acts: &[Act]) -> Result<(Vec<EngineEvent>, EngineStats), TestCaseError> {
    let mut engine = Engine::new(model);
    let mut fates: Vec<(Fate, u32)> = Vec::new();
    let mut log = Vec::new();
    let mut seen = 0;
    let drain = acts
        .iter()
        .cloned()
        .chain(std::iter::repeat_n([Act::Begin, Act::End], 200_000).flatten());
    for (number, act) in drain.enumerate() {
        if number > acts.len() && engine.is_idle() {
            break;
        }
        match act {
            Act::Submit { prompt, output, cached } => {
                let id = RequestId(fates.len() as u64);
                let request = EngineRequest {
                    id,
                    prompt_tokens: prompt,
                    output_tokens: output,
                    cached_tokens: cached,
                };
                prop_assert_eq!(engine.submit(request), Ok(()));
                fates.push((Fate::Open { tokens: 0 }, output));
            }
            Act::Abort { which } if !fates.is_empty() => {
                let which = which % fates.len();
                let open = matches!(fates[which].0, Fate::Open { .. });
                prop_assert_eq!(engine.abort(RequestId(which as u64)), open);
                if open {
                    fates[which].0 = Fate::Aborted;
                }
            }
            Act::Abort { .. } => {}
            Act::Begin => {
                let idle = engine.is_idle();
                prop_assert!(engine.begin_step().is_some() || idle, "work but no step");
            }
            Act::End => engine.end_step(&mut log),
        }
        for event in &log[seen..] {
            let (fate, output) = &mut fates[event.id().0 as usize];
            let Fate::Open { tokens } = fate else {
                return Err(TestCaseError::fail(format!("{event:?} after {fate:?}")));
            };
            match event {
                EngineEvent::FirstToken { .. } => {
                    prop_assert_eq!(*tokens, 0);
                    *tokens = 1;
                }
                EngineEvent::Token { .. } => {
                    prop_assert!(*tokens > 0);
                    *tokens += 1;
                }
                EngineEvent::Finished { .. } => {
                    prop_assert_eq!(*tokens, *output);
                    *fate = Fate::Finished;
                }
                EngineEvent::Preempted { .. } => {}
            }
        }
        seen = log.len();
        check_ledgers(&engine)?;
    }
    prop_assert!(engine.is_idle());
    let open = fates
        .iter()
        .filter(|(fate, _)| matches!(fate, Fate::Open { .. }))
        .count();
    prop_assert_eq!(open, 0);
    Ok((log, engine.stats()))
}

/// Counts everything anew and compares with the running totals.
fn check_ledgers(engine: &Engine) -> Result<(), TestCaseError> {
    let stats = engine.stats();
    prop_assert!(stats.kv_used_blocks <= stats.kv_blocks);
    prop_assert!(stats.running <= engine.model.limits().max_num_seqs);
    let live = || {
        engine
            .running
            .iter()
            .chain(&engine.waiting)
            .map(|&slot| &engine.slots[slot])
    };
    prop_assert_eq!(
        live().map(|sequence| sequence.blocks).sum::<u32>(),
        stats.kv_used_blocks
    );
    prop_assert_eq!(
        live().map(Sequence::pending_prefill).sum::<u64>(),
        stats.pending_prefill_tokens
    );
    prop_assert_eq!(
        live().map(Sequence::pending_decode).sum::<u64>(),
        stats.pending_decode_tokens
    );
    prop_assert_eq!(engine.ids.len(), engine.running.len() + engine.waiting.len());
    prop_assert_eq!(engine.slots.len(), engine.vacant.len() + engine.ids.len());
    if engine.step.is_some() {
        let budget = engine
            .parts
            .iter()
            .map(|part| part.prefill_tokens + part.decode_tokens)
            .sum::<u32>();
        prop_assert!(engine.model.fixed_seconds().is_some() || budget <= engine.model.limits().max_num_batched_tokens);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_request_ends_exactly_once(acts in acts(), blocks in 25_u32..60, seqs in 1_u32..8, budget in 1_u32..80) {
        // The largest request needs 98 tokens: 25 blocks of 4. Several together run out, so preemption happens.
        let limits = EngineLimits {
            max_num_seqs: seqs,
            max_num_batched_tokens: budget,
            block_tokens: 4,
            num_gpu_blocks: Some(blocks),
            ..EngineLimits::default()
        };
        let model = step_model(limits);
        let (events, stats) = drive(model.clone(), &acts)?;
        prop_assert_eq!(stats.kv_used_blocks, 0);
        prop_assert_eq!(stats.pending_prefill_tokens + stats.pending_decode_tokens, 0);
        prop_assert_eq!(drive(model, &acts)?.0, events, "the same acts give the same events");
    }

    #[test]
    fn steady_steps_taken_at_once_are_those_taken_one_by_one(
        requests in proptest::collection::vec((1_u32..60, 1_u32..40, 0_u32..12), 1..12),
        blocks in 25_u32..60,
        seqs in 1_u32..8,
        budget in 1_u32..80,
        portion in 1_u32..9,
    ) {
        let limits = EngineLimits {
            max_num_seqs: seqs,
            max_num_batched_tokens: budget,
            block_tokens: 4,
            num_gpu_blocks: Some(blocks),
            ..EngineLimits::default()
        };
        let mut one_by_one = Engine::new(step_model(limits));
        let mut at_once = one_by_one.clone();
        let (mut coming, mut events, mut skipped) = (requests.iter().enumerate(), Vec::new(), 0);
        for turn in 0_u32.. {
            if let Some((id, &(prompt, output, every))) = coming.clone().next()
                && (one_by_one.is_idle() || turn.is_multiple_of(every + 1))
            {
                let submitted = request(id as u64, prompt, output);
                prop_assert_eq!(one_by_one.submit(submitted), at_once.submit(submitted));
                coming.next();
            }
            if let Some(steady) = at_once.steady() {
                let steps = portion.min(steady.steps);
                let mut contexts = Vec::new();
                at_once.skip(steps, false, |id, context| contexts.push((id, context)));
                skipped += steps;
                for step in 0..steps {
                    let taken = one_by_one.begin_step().expect("a step").work;
                    let kv_tokens = steady.kv_tokens + u64::from(steady.seqs * step);
                    prop_assert_eq!((taken.decode_seqs, taken.kv_tokens, taken.prefill_tokens), (steady.seqs, kv_tokens, 0));
                    if step == 0 {
                        let parts = one_by_one.step_parts().iter().map(|part| (part.id, part.kv_tokens));
                        prop_assert_eq!(parts.collect::<Vec<_>>(), contexts.clone());
                    }
                    events.clear();
                    one_by_one.end_step(&mut events);
                    let only_tokens = events.iter().all(|event| matches!(event, EngineEvent::Token { .. }));
                    prop_assert!(only_tokens);
                }
            } else {
                prop_assert_eq!(one_by_one.begin_step(), at_once.begin_step());
                let mut others = Vec::new();
                events.clear();
                one_by_one.end_step(&mut events);
                at_once.end_step(&mut others);
                prop_assert_eq!(&events, &others);
            }
            prop_assert_eq!(one_by_one.stats(), at_once.stats());
            check_ledgers(&at_once)?;
            if coming.len() == 0 && one_by_one.is_idle() {
                break;
            }
        }
        prop_assert!(at_once.is_idle());
        // Where answers are long and memory is not short, that is most of them.
        let tokens: u32 = requests.iter().map(|(_, output, _)| output).sum();
        prop_assert!(requests.len() > 1 || tokens < 4 || skipped + 4 >= tokens, "{} of {}", skipped, tokens);
    }

    #[test]
    fn an_opaque_box_ends_every_request_once(acts in acts(), seqs in 1_u32..5) {
        let limits = EngineLimits { max_num_seqs: seqs, ..EngineLimits::default() };
        drive(StepModel::fixed(0.0037, limits), &acts)?;
    }
}

#[test]
fn an_engine_that_prefills_first_lets_decodes_wait() {
    let board = gpu("H100").expect("known");
    let shape = EngineShape {
        gpu: board,
        model: model("Llama-3.1-8B").expect("known"),
        tensor_parallel: 1,
        limits: EngineLimits::default(),
        deployment: Deployment {
            calibration: Some(crate::calibration("sglang", board, crate::Precision::Bf16).expect("calibrated")),
            ..Deployment::default()
        },
    };
    let model = StepModel::new(&shape).expect("fits");
    assert!(model.request_seconds(1000, 10) > model.request_seconds(1000, 0));
    let mut engine = Engine::new(model);
    engine.submit(request(1, 100, 5)).expect("fits");
    engine.begin_step();
    engine.end_step(&mut Vec::new());
    engine.submit(request(2, 3000, 5)).expect("fits");
    let mut works = Vec::new();
    while let Some(step) = engine.begin_step() {
        works.push((step.work.prefill_tokens, step.work.decode_seqs));
        engine.end_step(&mut Vec::new());
    }
    assert_eq!(works[..3], [(2048, 0), (952, 0), (0, 2)]);
    assert!(engine.is_idle());
}
