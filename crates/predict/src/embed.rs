//! Prompts as vectors.

mod external;
mod hashed;
mod projection;

pub(crate) use external::Embedding;
pub use external::ExternalEncoder;
pub use hashed::{EmbeddingConfig, HashedEmbedder};

/// Turns a prompt into a vector of length one. Pure: the same text gives the same bits.
///
/// The default, [`HashedEmbedder`], needs no download. A sentence encoder can stand in its place: [`ExternalEncoder`].
pub trait Embedder {
    /// How many numbers [`embed`](Self::embed) returns.
    fn dimension(&self) -> usize;

    /// The vector of `text`: finite numbers, Euclidean length one.
    fn embed(&self, text: &str) -> Vec<f32>;
}
