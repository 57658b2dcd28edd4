//! One step of an emulated engine at a full batch: forming it, its cost, and ending it.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]

use criterion::{Criterion, criterion_group, criterion_main};
use equipoise_engine::{
    Deployment, Engine, EngineEvent, EngineLimits, EngineRequest, EngineShape, StepModel, gpu, model,
};
use equipoise_types::RequestId;

fn engine(max_num_seqs: u32) -> Engine {
    let shape = EngineShape {
        gpu: gpu("A100-80G").expect("in the catalogue"),
        model: model("Qwen2.5-14B").expect("in the catalogue"),
        tensor_parallel: 1,
        limits: EngineLimits {
            max_num_seqs,
            ..EngineLimits::default()
        },
        deployment: Deployment::default(),
    };
    Engine::new(StepModel::new(&shape).expect("it fits"))
}

fn submit(engine: &mut Engine, id: u64) {
    let request = EngineRequest {
        id: RequestId(id),
        prompt_tokens: 200 + (id % 7) as u32 * 100,
        output_tokens: 100 + (id % 5) as u32 * 50,
        cached_tokens: 0,
    };
    engine.submit(request).expect("it fits");
}

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine-step");
    for batch in [16, 64, 128] {
        let mut engine = engine(batch);
        let mut events: Vec<EngineEvent> = Vec::new();
        let mut next_id = u64::from(batch);
        for id in 0..next_id {
            submit(&mut engine, id);
        }
        group.bench_function(format!("{batch} sequences"), |bencher| {
            bencher.iter(|| {
                let step = engine.begin_step();
                events.clear();
                engine.end_step(&mut events);
                // What finishes is replaced: the batch stays full, with a prompt in it now and then.
                for event in &events {
                    if matches!(event, EngineEvent::Finished { .. }) {
                        submit(&mut engine, next_id);
                        next_id += 1;
                    }
                }
                step
            });
        });
    }
    group.finish();
}

criterion_group!(benches, step);
criterion_main!(benches);
