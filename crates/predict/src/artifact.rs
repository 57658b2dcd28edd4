//! The file that a trained predictor is kept in.
//!
//! Layout, little-endian throughout: 8 bytes magic `EQPREDCT`, `u32` version, `u64` length of the body, `u64` FNV-1a
//! checksum of the body, then the body. Numbers only, and text that is checked to be UTF-8; nothing in it is executed. Every
//! length is checked against what is left before memory is taken, so a file that lies about itself is refused, not followed.

/// First bytes of every artifact.
const MAGIC: &[u8; 8] = b"EQPREDCT";
/// Version that is written and read.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 28;
/// No artifact may be larger; the embedded one is a few megabytes.
pub const MAX_ARTIFACT_BYTES: usize = 64 << 20;

/// Why an artifact was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// Another kind of file.
    #[error(
        "this is no predictor artifact: it does not begin with `EQPREDCT`; make one with `equipoise predictor train`"
    )]
    Foreign,
    /// Written by another version of this program.
    #[error("predictor artifact of version {found}, but this program reads version {VERSION}; train it anew")]
    Version {
        /// The version that stands in the file.
        found: u32,
    },
    /// Cut off, or with something after its end.
    #[error(
        "predictor artifact of {found} bytes, but it says that it has {expected}; it was cut off or added to: copy it again"
    )]
    Length {
        /// Bytes by its own word.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Larger than any artifact may be.
    #[error("predictor artifact of {found} bytes; none may be larger than {MAX_ARTIFACT_BYTES}")]
    TooLarge {
        /// Bytes there are.
        found: u64,
    },
    /// Damaged.
    #[error("predictor artifact is damaged: its checksum does not match; copy it again or train it anew")]
    Checksum,
    /// Its prompts are encoded by weights that it does not hold.
    #[error(
        "this predictor needs the encoder that it was trained with (weights {fingerprint}): give it with `--encoder`"
    )]
    NeedsEncoder {
        /// Which weights.
        fingerprint: String,
    },
    /// Another encoder than that it was trained with.
    #[error("this predictor was trained with the encoder of weights {wanted}, not {found}: give that one")]
    OtherEncoder {
        /// Which weights it was trained with.
        wanted: String,
        /// Which were given.
        found: String,
    },
    /// The checksum is right but the content makes no sense.
    #[error("predictor artifact is inconsistent at byte {at} of its body: {what} cannot be; train it anew")]
    Invalid {
        /// Offset in the body.
        at: usize,
        /// What is wrong.
        what: String,
    },
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Puts header and body together.
pub(crate) fn seal(body: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER_BYTES + body.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(body.len() as u64).to_le_bytes());
    file.extend_from_slice(&checksum(body).to_le_bytes());
    file.extend_from_slice(body);
    file
}

/// Checks the header and gives the body.
pub(crate) fn unseal(file: &[u8]) -> Result<&[u8], ArtifactError> {
    let found = file.len() as u64;
    if file.len() > MAX_ARTIFACT_BYTES {
        return Err(ArtifactError::TooLarge { found });
    }
    let Some(rest) = file.strip_prefix(MAGIC) else {
        return Err(ArtifactError::Foreign);
    };
    let (Some((version, rest)), expected) = (rest.split_first_chunk::<4>(), HEADER_BYTES as u64) else {
        return Err(ArtifactError::Length {
            expected: HEADER_BYTES as u64,
            found,
        });
    };
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(ArtifactError::Version { found: version });
    }
    let (Some((length, rest)), true) = (rest.split_first_chunk::<8>(), file.len() >= HEADER_BYTES) else {
        return Err(ArtifactError::Length { expected, found });
    };
    let Some((sum, body)) = rest.split_first_chunk::<8>() else {
        return Err(ArtifactError::Length { expected, found });
    };
    let length = u64::from_le_bytes(*length);
    if length != body.len() as u64 {
        return Err(ArtifactError::Length {
            expected: length.saturating_add(expected),
            found,
        });
    }
    if checksum(body) != u64::from_le_bytes(*sum) {
        return Err(ArtifactError::Checksum);
    }
    Ok(body)
}

/// Appends numbers to a body.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    body: Vec<u8>,
}

impl Writer {
    pub(crate) fn into_body(self) -> Vec<u8> {
        self.body
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    /// A count; counts of what fits in an artifact fit in 32 bits.
    pub(crate) fn size(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.body.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f64s(&mut self, values: &[f64]) {
        for &value in values {
            self.f64(value);
        }
    }

    pub(crate) fn f32s(&mut self, values: &[f32]) {
        for value in values {
            self.body.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(crate) fn i8s(&mut self, values: &[i8]) {
        self.body.extend(values.iter().map(|value| value.cast_unsigned()));
    }

    pub(crate) fn u8s(&mut self, values: &[u8]) {
        self.body.extend_from_slice(values);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.size(text.len());
        self.u8s(text.as_bytes());
    }
}

/// Takes numbers off a body, in the order in which they were written.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    pub(crate) fn invalid(&self, what: &str) -> ArtifactError {
        ArtifactError::Invalid {
            at: self.at,
            what: what.to_owned(),
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ArtifactError> {
        let taken = self.at.checked_add(bytes).and_then(|end| self.body.get(self.at..end));
        let Some(taken) = taken else {
            return Err(self.invalid("an end before everything was there"));
        };
        self.at += bytes;
        Ok(taken)
    }

    fn chunks<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]], ArtifactError> {
        let Some(bytes) = count.checked_mul(N) else {
            return Err(self.invalid("a length"));
        };
        Ok(self.take(bytes)?.as_chunks().0)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ArtifactError> {
        let chunks = self.chunks::<4>(1)?;
        Ok(u32::from_le_bytes(chunks[0]))
    }

    pub(crate) fn size(&mut self) -> Result<usize, ArtifactError> {
        let value = self.u32()?;
        usize::try_from(value).map_err(|_| self.invalid("a length"))
    }

    /// A finite number.
    pub(crate) fn f64(&mut self) -> Result<f64, ArtifactError> {
        Ok(self.f64s(1)?[0])
    }

    /// Finite numbers.
    pub(crate) fn f64s(&mut self, count: usize) -> Result<Vec<f64>, ArtifactError> {
        let values: Vec<f64> = self
            .chunks::<8>(count)?
            .iter()
            .map(|&bytes| f64::from_le_bytes(bytes))
            .collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(self.invalid("a number that is not finite"))
        }
    }

    /// Finite numbers.
    pub(crate) fn f32s(&mut self, count: usize) -> Result<Vec<f32>, ArtifactError> {
        let values: Vec<f32> = self
            .chunks::<4>(count)?
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(self.invalid("a number that is not finite"))
        }
    }

    pub(crate) fn i8s(&mut self, count: usize) -> Result<Vec<i8>, ArtifactError> {
        Ok(self.take(count)?.iter().map(|byte| byte.cast_signed()).collect())
    }

    pub(crate) fn u8s(&mut self, count: usize) -> Result<Vec<u8>, ArtifactError> {
        Ok(self.take(count)?.to_vec())
    }

    pub(crate) fn text(&mut self) -> Result<String, ArtifactError> {
        let length = self.size()?;
        let bytes = self.take(length)?;
        let text = str::from_utf8(bytes).map_err(|_| self.invalid("text that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Refuses what is left over.
    pub(crate) fn finish(&self) -> Result<(), ArtifactError> {
        if self.at == self.body.len() {
            Ok(())
        } else {
            Err(self.invalid("something after the end"))
        }
    }
}
