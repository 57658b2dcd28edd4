//! The safetensors format: eight bytes of length, a JSON header, then numbers.
//!
//! Read by the published description (huggingface/safetensors, README "Format"). Only `F32` tensors are given out; others may
//! stand in the file.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

/// Longest header that is read, as in the reference implementation.
const MOST_HEADER_BYTES: usize = 100_000_000;

/// What is wrong with a file of tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorsError {
    /// Too short for what its header says.
    #[error("cut off: {wanted} bytes are announced, {found} are there; copy the file again")]
    CutOff {
        /// Bytes that must be there.
        wanted: u64,
        /// Bytes that are.
        found: u64,
    },
    /// Not this format.
    #[error("no safetensors file: {0}; a PyTorch `.bin` must be converted first")]
    Foreign(String),
    /// A tensor's place in the file does not fit its shape.
    #[error("tensor `{name}` has shape {shape:?} and {bytes} bytes, which do not fit")]
    Inconsistent {
        /// Which.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its bytes.
        bytes: usize,
    },
    /// A tensor that is needed is not there.
    #[error("tensor `{0}` is missing: these are weights of another model")]
    Missing(String),
    /// Not single precision.
    #[error("tensor `{name}` is of type {dtype}; F32 is needed, convert it")]
    Type {
        /// Which.
        name: String,
        /// What it is.
        dtype: String,
    },
    /// Of another size than the rest of the model.
    #[error("tensor `{name}` has shape {found:?}; {wanted:?} is needed")]
    Shape {
        /// Which.
        name: String,
        /// As it is.
        found: Vec<usize>,
        /// As it should be.
        wanted: Vec<usize>,
    },
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

struct Place {
    dtype: String,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A file, its header read and checked.
pub(crate) struct Tensors<'a> {
    data: &'a [u8],
    places: BTreeMap<String, Place>,
}

impl<'a> Tensors<'a> {
    /// Reads the header. No tensor is looked at.
    ///
    /// # Errors
    /// A file of another format, cut off, or with tensors outside of it.
    pub(crate) fn read(file: &'a [u8]) -> Result<Self, TensorsError> {
        let found = file.len() as u64;
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(TensorsError::CutOff { wanted: 8, found });
        };
        let length = u64::from_le_bytes(*length);
        let header_bytes = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MOST_HEADER_BYTES)
            .ok_or_else(|| TensorsError::Foreign(format!("its header would have {length} bytes")))?;
        let Some((header, data)) = rest.split_at_checked(header_bytes) else {
            let wanted = 8 + length;
            return Err(TensorsError::CutOff { wanted, found });
        };
        let foreign =
            |error: serde_json::Error| TensorsError::Foreign(format!("its header is not what it should be ({error})"));
        let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).map_err(foreign)?;
        entries.remove("__metadata__");
        let mut places = BTreeMap::new();
        for (name, entry) in entries {
            let Entry {
                dtype,
                shape,
                data_offsets: (start, end),
            } = serde_json::from_value(entry).map_err(foreign)?;
            if end > data.len() {
                let wanted = 8 + length + end as u64;
                return Err(TensorsError::CutOff { wanted, found });
            }
            let numbers = shape
                .iter()
                .try_fold(1_usize, |product, side| product.checked_mul(*side));
            let fits = start <= end
                && (dtype != "F32" || numbers.and_then(|numbers| numbers.checked_mul(4)) == Some(end - start));
            if !fits {
                let bytes = end.saturating_sub(start);
                return Err(TensorsError::Inconsistent { name, shape, bytes });
            }
            places.insert(
                name,
                Place {
                    dtype,
                    shape,
                    bytes: start..end,
                },
            );
        }
        Ok(Self { data, places })
    }

    /// The numbers of a tensor, row-major.
    ///
    /// # Errors
    /// One that is not there, of another type or of another shape than `wanted`.
    pub(crate) fn floats(&self, name: &str, wanted: &[usize]) -> Result<Vec<f32>, TensorsError> {
        let place = self
            .places
            .get(name)
            .ok_or_else(|| TensorsError::Missing(name.to_owned()))?;
        if place.dtype != "F32" {
            return Err(TensorsError::Type {
                name: name.to_owned(),
                dtype: place.dtype.clone(),
            });
        }
        if place.shape != wanted {
            return Err(TensorsError::Shape {
                name: name.to_owned(),
                found: place.shape.clone(),
                wanted: wanted.to_vec(),
            });
        }
        let numbers = self.data[place.bytes.clone()].as_chunks::<4>().0;
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, numbers: &[f32]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        file
    }

    const HEADER: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}}"#;

    #[test]
    fn tensors_come_back() {
        let file = file(HEADER, &[1.5, -2.0, 0.0, 0.0]);
        let tensors = Tensors::read(&file).expect("is well");
        assert_eq!(tensors.floats("a", &[2, 1]), Ok(vec![1.5, -2.0]));
        assert!(matches!(tensors.floats("a", &[2]), Err(TensorsError::Shape { .. })));
        assert!(matches!(tensors.floats("b", &[1]), Err(TensorsError::Type { .. })));
        assert!(matches!(tensors.floats("c", &[1]), Err(TensorsError::Missing(_))));
    }

    fn error(file: &[u8]) -> String {
        Tensors::read(file).err().expect("is bad").to_string()
    }

    #[test]
    fn bad_files_are_refused_with_the_reason() {
        let whole = file(HEADER, &[0.0; 4]);
        for cut in 0..whole.len() {
            assert!(error(&whole[..cut]).contains("cut off"), "{cut}");
        }
        assert!(error(b"PK\x03\x04this is a zip file of PyTorch").contains("no safetensors"));
        assert!(error(&file("[1]", &[])).contains("no safetensors"));
        let lying = HEADER.replace("[2,1]", "[2,2]");
        assert!(error(&file(&lying, &[0.0; 4])).contains("do not fit"));
        let huge = HEADER.replace("[2,1]", "[18446744073709551615,2]");
        assert!(error(&file(&huge, &[0.0; 4])).contains("do not fit"));
        let backwards = HEADER.replace("[0,8]", "[8,0]");
        assert!(error(&file(&backwards, &[0.0; 4])).contains("do not fit"));
    }
}
