//! BERT's forward pass (Devlin et al. 2019), mean pooling and a vector of length one (Reimers and Gurevych 2019).

use std::fmt;

use equipoise_predict::Embedder;
use serde::Deserialize;

use crate::linear::{LayerNorm, Linear, gelu};
use crate::safetensors::{Tensors, TensorsError};
use crate::wordpiece::{VocabularyError, WordPiece};

/// Pieces that are read of a text, as the model was trained with (`max_seq_length` of all-MiniLM-L6-v2).
const MOST_PIECES: usize = 256;

/// Why an encoder cannot be made of some files.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// Its `config.json`.
    #[error("config.json: {0}")]
    Config(String),
    /// Its weights.
    #[error("model.safetensors: {0}")]
    Weights(#[from] TensorsError),
    /// Its vocabulary.
    #[error("vocab.txt: {0}")]
    Vocabulary(#[from] VocabularyError),
}

/// What is needed of `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    hidden_act: String,
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f32,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    type_vocab_size: usize,
    vocab_size: usize,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attended_norm: LayerNorm,
    wider: Linear,
    narrower: Linear,
    norm: LayerNorm,
}

/// A sentence encoder. Immutable.
pub struct SentenceEncoder {
    pieces: WordPiece,
    hidden: usize,
    heads: usize,
    most_pieces: usize,
    words: Vec<f32>,
    /// Of each position, with that of the first kind of sentence, which is the only one here.
    positions: Vec<f32>,
    norm: LayerNorm,
    layers: Vec<Layer>,
    fingerprint: u64,
}

impl fmt::Debug for SentenceEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentenceEncoder")
            .field("hidden", &self.hidden)
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}

impl SentenceEncoder {
    /// From the contents of `config.json`, `model.safetensors` (single precision) and `vocab.txt`.
    ///
    /// # Errors
    /// Files of another model, damaged or cut off.
    pub fn new(config: &[u8], weights: &[u8], vocabulary: &str) -> Result<Self, EncoderError> {
        let config: Config = serde_json::from_slice(config).map_err(|error| EncoderError::Config(error.to_string()))?;
        if config.model_type != "bert" || config.hidden_act != "gelu" {
            let problem = format!(
                "`{}` with `{}`: only bert with gelu is known",
                config.model_type, config.hidden_act
            );
            return Err(EncoderError::Config(problem));
        }
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if hidden == 0 || heads == 0 || hidden % heads != 0 || config.max_position_embeddings < 2 {
            let problem = format!("{hidden} numbers cannot be shared among {heads} heads");
            return Err(EncoderError::Config(problem));
        }
        if config.intermediate_size == 0 {
            let problem = "`intermediate_size` is 0: no layer has room to widen into".to_owned();
            return Err(EncoderError::Config(problem));
        }
        let pieces = WordPiece::new(vocabulary)?;
        if pieces.size() > config.vocab_size {
            let problem = format!("{} pieces, and vocab.txt has {}", config.vocab_size, pieces.size());
            return Err(EncoderError::Config(problem));
        }
        let tensors = Tensors::read(weights)?;
        let mut positions = tensors.floats(
            "embeddings.position_embeddings.weight",
            &[config.max_position_embeddings, hidden],
        )?;
        let kinds = tensors.floats(
            "embeddings.token_type_embeddings.weight",
            &[config.type_vocab_size, hidden],
        )?;
        for position in positions.chunks_exact_mut(hidden) {
            add(position, &kinds);
        }
        let norm = |name: &str| LayerNorm::read(&tensors, name, hidden, config.layer_norm_eps);
        let layer = |index: usize| -> Result<Layer, TensorsError> {
            let at = |part: &str| format!("encoder.layer.{index}.{part}");
            let square = |part: &str| Linear::read(&tensors, &at(part), hidden, hidden);
            Ok(Layer {
                query: square("attention.self.query")?,
                key: square("attention.self.key")?,
                value: square("attention.self.value")?,
                attended: square("attention.output.dense")?,
                attended_norm: norm(&at("attention.output.LayerNorm"))?,
                wider: Linear::read(&tensors, &at("intermediate.dense"), hidden, config.intermediate_size)?,
                narrower: Linear::read(&tensors, &at("output.dense"), config.intermediate_size, hidden)?,
                norm: norm(&at("output.LayerNorm"))?,
            })
        };
        Ok(Self {
            pieces,
            hidden,
            heads,
            most_pieces: MOST_PIECES.min(config.max_position_embeddings),
            words: tensors.floats("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?,
            positions,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            fingerprint: fnv(weights),
        })
    }

    /// Tells these weights from others.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// `softmax(Q Kᵀ / √d) V` of every head.
    fn attend(&self, layer: &Layer, states: &[f32]) -> Vec<f32> {
        let (hidden, width) = (self.hidden, self.hidden / self.heads);
        let (queries, keys, values) = (
            layer.query.apply(states),
            layer.key.apply(states),
            layer.value.apply(states),
        );
        #[expect(clippy::cast_precision_loss, reason = "a head's width")]
        let scale = 1.0 / (width as f32).sqrt();
        let mut attended = vec![0.0; states.len()];
        let mut weights = vec![0.0_f32; states.len() / hidden];
        for head in (0..hidden).step_by(width) {
            let part = head..head + width;
            for (query, to) in queries.chunks_exact(hidden).zip(attended.chunks_exact_mut(hidden)) {
                let query = &query[part.clone()];
                for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(hidden)) {
                    *weight = scale * dot(query, &key[part.clone()]);
                }
                let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut sum = 0.0;
                for weight in &mut weights {
                    *weight = (*weight - largest).exp();
                    sum += *weight;
                }
                let to = &mut to[part.clone()];
                for (weight, value) in weights.iter().zip(values.chunks_exact(hidden)) {
                    for (to, value) in to.iter_mut().zip(&value[part.clone()]) {
                        *to += weight / sum * value;
                    }
                }
            }
        }
        layer.attended.apply(&attended)
    }

    fn pass(&self, layer: &Layer, states: &mut [f32]) {
        add(states, &self.attend(layer, states));
        layer.attended_norm.apply(states);
        let mut wide = layer.wider.apply(states);
        for value in &mut wide {
            *value = gelu(*value);
        }
        add(states, &layer.narrower.apply(&wide));
        layer.norm.apply(states);
    }
}

impl Embedder for SentenceEncoder {
    fn dimension(&self) -> usize {
        self.hidden
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        let ids = self.pieces.encode(text, self.most_pieces);
        let hidden = self.hidden;
        let mut states: Vec<f32> = ids
            .iter()
            .flat_map(|&id| &self.words[id as usize * hidden..(id as usize + 1) * hidden])
            .copied()
            .collect();
        add(&mut states, &self.positions);
        self.norm.apply(&mut states);
        for layer in &self.layers {
            self.pass(layer, &mut states);
        }
        let mut mean = vec![0.0; hidden];
        for state in states.chunks_exact(hidden) {
            add(&mut mean, state);
        }
        // The mean but for its length, which becomes one.
        let length = dot(&mean, &mean).sqrt().max(1e-12);
        for value in &mut mean {
            *value /= length;
        }
        mean
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (wide_left, rest_left) = left.as_chunks::<8>();
    let (wide_right, rest_right) = right.as_chunks::<8>();
    for (left, right) in wide_left.iter().zip(wide_right) {
        for (sum, (left, right)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += left * right;
        }
    }
    let rest: f32 = rest_left.iter().zip(rest_right).map(|(left, right)| left * right).sum();
    rest + sums.iter().sum::<f32>()
}

/// FNV-1a over words of eight bytes.
fn fnv(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words
        .chain(rest.iter().map(|byte| u64::from(*byte)))
        .fold(0xcbf2_9ce4_8422_2325, |hash, word| {
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
        })
}
