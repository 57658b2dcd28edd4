//! A benchmark client in virtual time: so many requests are always out, and the next is sent when one comes back.

use equipoise_engine::{Engine, EngineEvent, EngineRequest, StepModel};
use equipoise_types::{RandomStream, RequestId};

/// What the client sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Requests out at any time; all at once in the beginning.
    pub(super) concurrency: u32,
    /// Requests in all.
    pub(super) requests: u32,
    /// Longest prompt, tokens.
    pub(super) prompt_tokens: u32,
    /// Longest answer, tokens.
    pub(super) output_tokens: u32,
    /// Tokens in the first chunk that the client sees.
    pub(super) first_chunk_tokens: u32,
    /// Lengths are uniform from this share of the longest on; 1: all the same.
    pub(super) least_share: f64,
}

/// Means over all requests, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Means {
    pub(super) ttft_s: f64,
    pub(super) tpot_s: f64,
}

struct Sent {
    at_s: f64,
    first_s: f64,
    tokens: u32,
    prompt_tokens: u32,
    output_tokens: u32,
}

/// Serves the load and takes the means. A request outside of the engine's steps counts with its TTFT.
///
/// # Errors
/// When a request can never fit.
pub(super) fn serve(model: &StepModel, load: Load) -> Result<Means, equipoise_engine::SubmitError> {
    let mut engine = Engine::new(model.clone());
    let mut random = RandomStream::new(12_345);
    let mut length = |longest: u32| {
        let share = load.least_share + (1.0 - load.least_share) * random.uniform();
        ((f64::from(longest) * share) as u32).max(2)
    };
    let mut sent: Vec<Sent> = Vec::new();
    let (mut now_s, mut sums, mut finished) = (0.0, Means::default(), 0_u32);
    let mut events = Vec::new();
    let mut to_send = load.concurrency.min(load.requests);
    while finished < load.requests {
        for _ in 0..to_send {
            let request = EngineRequest {
                id: RequestId(sent.len() as u64),
                prompt_tokens: length(load.prompt_tokens),
                output_tokens: length(load.output_tokens),
                cached_tokens: 0,
            };
            engine.submit(request)?;
            sent.push(Sent {
                at_s: now_s,
                first_s: now_s,
                tokens: 0,
                prompt_tokens: request.prompt_tokens,
                output_tokens: request.output_tokens,
            });
        }
        let Some(step) = engine.begin_step() else { break };
        now_s += step.cost.seconds;
        engine.end_step(&mut events);
        let before = finished;
        for event in events.drain(..) {
            let request = &mut sent[event.id().0 as usize];
            match event {
                EngineEvent::FirstToken { .. } | EngineEvent::Token { .. } => {
                    request.tokens += 1;
                    if request.tokens <= load.first_chunk_tokens.max(1) {
                        request.first_s = now_s;
                    }
                }
                EngineEvent::Finished { .. } => {
                    finished += 1;
                    sums.ttft_s +=
                        request.first_s - request.at_s + model.request_seconds(request.prompt_tokens, load.concurrency);
                    sums.tpot_s += (now_s - request.first_s) / f64::from(request.output_tokens - 1);
                }
                EngineEvent::Preempted { .. } => {}
            }
        }
        let left = load.requests - u32::try_from(sent.len()).unwrap_or(load.requests);
        to_send = (finished - before).min(left);
    }
    let count = f64::from(finished.max(1));
    Ok(Means {
        ttft_s: sums.ttft_s / count,
        tpot_s: sums.tpot_s / count,
    })
}
