//! How prompts are cut into blocks for the index of what is in whose prefix cache.

use equipoise_policy::SettingsError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// As the engines cut them, so that a match here is a match there: vLLM hashes blocks of `--block-size` tokens (16 on GPUs),
/// each together with the hash of its parent and, in the first one, the request's `cache_salt`. A router has no tokenizer: a
/// block of text stands for one of tokens. What no engine can share is not taken for shared; how much of what they can is
/// found depends on these figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixSettings {
    /// Tokens of a block: the engines' `--block-size`.
    pub block_tokens: u32,
    /// Bytes of text that a token stands for: about 4 for English, 3 for code, 1.5 to 3 for other scripts in UTF-8.
    pub bytes_per_token: f64,
    /// Stands for the parent of the first block, vLLM's `NONE_HASH`. Hashes are of 64 bits and not made to withstand an
    /// attack: with a number that nobody knows, nobody can make up a prompt that passes for another.
    pub hash_seed: u64,
}

impl Default for PrefixSettings {
    fn default() -> Self {
        Self {
            block_tokens: 16,
            bytes_per_token: 4.0,
            hash_seed: 0,
        }
    }
}

impl PrefixSettings {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Bytes of text of one block, at least 1.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        (f64::from(self.block_tokens) * self.bytes_per_token).round().max(1.0) as usize
    }

    pub(crate) fn validate(self) -> Result<(), SettingsError> {
        SettingsError::in_range("block_tokens", f64::from(self.block_tokens), 1.0, 4096.0)?;
        SettingsError::in_range("bytes_per_token", self.bytes_per_token, 0.25, 64.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_a_size() {
        let settings = |block_tokens, bytes_per_token| PrefixSettings {
            block_tokens,
            bytes_per_token,
            hash_seed: 0,
        };
        assert_eq!(PrefixSettings::default().block_bytes(), 64);
        assert_eq!(settings(32, 2.5).block_bytes(), 80);
        for (block_tokens, bytes_per_token) in [(0, 4.0), (5000, 4.0), (16, 0.0), (16, f64::NAN), (16, 100.0)] {
            assert!(settings(block_tokens, bytes_per_token).validate().is_err());
        }
        assert_eq!(settings(1, 0.25).validate(), Ok(()));
        assert_eq!(settings(1, 0.25).block_bytes(), 1);
    }
}
