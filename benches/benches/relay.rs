//! What the router does with a stream: split it into frames and read each chunk.

#![expect(clippy::expect_used, reason = "a bench that cannot start has nothing to measure")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use equipoise_openai::{ChunkSummary, SseParser};

/// Tokens of the answer: those of the peers' streaming test, twenty times over.
const TOKENS: u64 = 400;

/// A stream as vLLM sends it.
fn stream() -> Vec<u8> {
    let head = r#"{"id":"chatcmpl-8f3c","object":"chat.completion.chunk","created":1790000000,"model":"qwen2.5-7b""#;
    let mut text = String::new();
    for token in 0..TOKENS {
        let delta = format!(
            r#"data: {head},"choices":[{{"index":0,"delta":{{"content":" word{token}"}},"logprobs":null,"finish_reason":null}}]}}"#
        );
        text.push_str(&delta);
        text.push_str("\n\n");
    }
    text.push_str("data: [DONE]\n\n");
    text.into_bytes()
}

fn read(stream: &[u8], chunk_bytes: usize) -> u32 {
    let mut parser = SseParser::default();
    let mut tokens = 0;
    for chunk in stream.chunks(chunk_bytes) {
        let parsed = parser.push(chunk, |event| {
            let summary = event
                .data
                .as_deref()
                .filter(|_| !event.is_done())
                .and_then(ChunkSummary::parse);
            tokens += summary.map_or(0, |summary| summary.content_choices);
        });
        parsed.expect("short frames");
    }
    tokens
}

fn relay(criterion: &mut Criterion) {
    let stream = stream();
    let frame_bytes = stream.len() / (TOKENS as usize + 1);
    let mut group = criterion.benchmark_group("sse-relay");
    group.throughput(Throughput::Elements(TOKENS));
    // A frame at a time; frames cut in two; many frames at once.
    for (name, chunk_bytes) in [
        ("frame", frame_bytes),
        ("half a frame", frame_bytes / 2),
        ("16 KiB", 16 << 10),
    ] {
        assert_eq!(u64::from(read(&stream, chunk_bytes)), TOKENS);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| read(&stream, chunk_bytes));
        });
    }
    group.finish();
}

criterion_group!(benches, relay);
criterion_main!(benches);
