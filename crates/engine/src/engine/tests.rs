use super::*;
use crate::{EngineLimits, EngineShape, gpu, model};

#[test]
fn a_request_runs_to_its_end() {
    let shape = EngineShape {
        gpu: gpu("H100").expect("known"),
        model: model("Llama-3.1-8B").expect("known"),
        tensor_parallel: 1,
        limits: EngineLimits::default(),
    };
    let mut engine = Engine::new(StepModel::new(&shape).expect("fits"));
    let id = RequestId(1);
    engine
        .submit(EngineRequest {
            id,
            prompt_tokens: 5000,
            output_tokens: 3,
            cached_tokens: 0,
        })
        .expect("fits");
    let mut events = Vec::new();
    let mut steps = 0;
    while engine.begin_step().is_some() {
        engine.end_step(&mut events);
        steps += 1;
    }
    assert_eq!(steps, 3 + 2);
    assert_eq!(
        events,
        [
            EngineEvent::FirstToken { id },
            EngineEvent::Token { id },
            EngineEvent::Token { id },
            EngineEvent::Finished { id }
        ]
    );
    assert!(engine.is_idle());
    assert_eq!(engine.stats().kv_used_blocks, 0);
}
