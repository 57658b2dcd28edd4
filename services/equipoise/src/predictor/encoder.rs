//! A sentence encoder from a folder, and what it said of prompts, so that each is encoded once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use equipoise_encoder::SentenceEncoder;
use equipoise_predict::{Embedder, ExternalEncoder};
use equipoise_simulator::{cores, parallel_map};

use super::evaluate::percentile;
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

/// The encoder of a folder with the vectors of these texts, and the median and the 99th percentile of the microseconds
/// that one took on one thread.
pub(super) fn remember(folder: &Path, texts: &[&str]) -> anyhow::Result<(ExternalEncoder, [f64; 2])> {
    let encoder = read(folder)?;
    let threads = cores();
    complain(&format!("encoding {} prompts on {threads} threads", texts.len()));
    let encode = |text: &str| {
        let start = Instant::now();
        let vector = encoder.embed(text);
        (text.to_owned(), vector, start.elapsed().as_secs_f64() * 1e6)
    };
    let (mut vectors, mut micros) = (BTreeMap::new(), Vec::new());
    for (text, vector, took) in parallel_map(texts.to_vec(), threads, encode) {
        vectors.insert(text, vector);
        micros.push(took);
    }
    let micros = [0.5, 0.99].map(|share| percentile(&mut micros, share));
    let fingerprint = encoder.fingerprint();
    let remembered = Remembered { encoder, vectors };
    Ok((ExternalEncoder::new(Arc::new(remembered), fingerprint), micros))
}
