//! A sentence encoder from a folder, and what it said of prompts, so that each is encoded once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use equipoise_encoder::SentenceEncoder;
use equipoise_predict::{Embedder, ExternalEncoder};

use crate::terminal::complain;

/// Reads `config.json`, `model.safetensors` and `vocab.txt`.
fn read(folder: &Path) -> anyhow::Result<SentenceEncoder> {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: --encoder takes a folder with config.json, model.safetensors and vocab.txt of all-MiniLM-L6-v2",
                path.display()
            )
        })
    };
    let vocabulary = String::from_utf8(file("vocab.txt")?).context("vocab.txt is no text")?;
    let encoder = SentenceEncoder::new(&file("config.json")?, &file("model.safetensors")?, &vocabulary);
    encoder.with_context(|| format!("the encoder in {} is refused", folder.display()))
}

/// The encoder of a folder, for any text.
pub(super) fn load(folder: &Path) -> anyhow::Result<ExternalEncoder> {
    let encoder = read(folder)?;
    let fingerprint = encoder.fingerprint();
    Ok(ExternalEncoder::new(Arc::new(encoder), fingerprint))
}

struct Remembered {
    encoder: SentenceEncoder,
    vectors: BTreeMap<String, Vec<f32>>,
}

impl Embedder for Remembered {
    fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let known = self.vectors.get(text);
        known.cloned().unwrap_or_else(|| self.encoder.embed(text))
    }
}

/// The encoder of a folder with the vectors of these texts, and the median and the 99th percentile of the time that one took
/// on one thread.
pub(super) fn remember(folder: &Path, texts: &[&str]) -> anyhow::Result<(ExternalEncoder, [Duration; 2])> {
    let encoder = read(folder)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    complain(&format!("encoding {} prompts on {threads} threads", texts.len()));
    let encode = |first: usize| {
        let mut encoded = Vec::new();
        for text in texts.iter().skip(first).step_by(threads) {
            let start = Instant::now();
            let vector = encoder.embed(text);
            encoded.push(((*text).to_owned(), vector, start.elapsed()));
        }
        encoded
    };
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || encode(first))).collect();
        workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    let (mut vectors, mut times) = (BTreeMap::new(), Vec::new());
    for part in parts {
        let part = part.map_err(|_| anyhow::anyhow!("a thread that encoded prompts has ended early"))?;
        for (text, vector, time) in part {
            vectors.insert(text, vector);
            times.push(time);
        }
    }
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let micros = [50, 99].map(|percent| at(percent).copied().unwrap_or_default());
    let fingerprint = encoder.fingerprint();
    let remembered = Remembered { encoder, vectors };
    Ok((ExternalEncoder::new(Arc::new(remembered), fingerprint), micros))
}
