//! Sentences as vectors, by a small BERT: tokenizer, weights and forward pass, without a download, a GPU or unsafe code.
//!
//! The operator brings `all-MiniLM-L6-v2` (or another BERT with mean pooling in the same layout) as three files; nothing of
//! it is part of this program. Costs some tens of milliseconds a prompt and processor: for training and offline studies,
//! not for a router's hot path. Does not belong here: files (bytes come as arguments), and what is learned from the vectors.

mod encoder;
mod linear;
mod normalizer;
mod safetensors;
mod wordpiece;

pub use encoder::{EncoderError, SentenceEncoder};
pub use safetensors::TensorsError;
pub use wordpiece::VocabularyError;
