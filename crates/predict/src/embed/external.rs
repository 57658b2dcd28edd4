//! An encoder that an artifact does not hold: it is brought again whenever the artifact is used.

use std::fmt;
use std::sync::Arc;

use super::{Embedder, HashedEmbedder};
use crate::artifact::{ArtifactError, Reader, Writer};

/// Stands where an artifact of a hashed embedding has the number of its buckets, which is never zero.
const MARK: u32 = 0;

/// An encoder and what tells it from others.
#[derive(Clone)]
pub struct ExternalEncoder {
    embedder: Arc<dyn Embedder + Send + Sync>,
    fingerprint: u64,
}

impl ExternalEncoder {
    /// `fingerprint`: of its weights; artifacts keep it, and refuse to work with another.
    #[must_use]
    pub fn new(embedder: Arc<dyn Embedder + Send + Sync>, fingerprint: u64) -> Self {
        Self { embedder, fingerprint }
    }
}

impl fmt::Debug for ExternalEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalEncoder")
            .field("dimension", &self.embedder.dimension())
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ExternalEncoder {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.embedder.dimension() == other.embedder.dimension()
    }
}

/// What turns a predictor's prompts into vectors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Embedding {
    Hashed(HashedEmbedder),
    External(ExternalEncoder),
}

impl Embedding {
    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Hashed(hashed) => hashed.write(writer),
            Self::External(encoder) => {
                writer.u32(MARK);
                writer.size(encoder.embedder.dimension());
                writer.text(&format!("{:016x}", encoder.fingerprint));
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, encoder: Option<&ExternalEncoder>) -> Result<Self, ArtifactError> {
        let half_bits = reader.u32()?;
        if half_bits != MARK {
            return Ok(Self::Hashed(HashedEmbedder::read(reader, half_bits)?));
        }
        let dimension = reader.size()?;
        let fingerprint = reader.text()?;
        let Some(encoder) = encoder else {
            return Err(ArtifactError::NeedsEncoder { fingerprint });
        };
        if fingerprint != format!("{:016x}", encoder.fingerprint) || dimension != encoder.embedder.dimension() {
            return Err(ArtifactError::OtherEncoder {
                wanted: fingerprint,
                found: format!("{:016x}", encoder.fingerprint),
            });
        }
        Ok(Self::External(encoder.clone()))
    }
}

impl Embedder for Embedding {
    fn dimension(&self) -> usize {
        match self {
            Self::Hashed(hashed) => hashed.dimension(),
            Self::External(encoder) => encoder.embedder.dimension(),
        }
    }

    fn embed(&self, text: &str) -> Vec<f32> {
        match self {
            Self::Hashed(hashed) => hashed.embed(text),
            Self::External(encoder) => encoder.embedder.embed(text),
        }
    }
}
