//! An API key as it is kept: its SHA-256, with or without a salt. Whoever reads the configuration cannot use it.

use serde::Deserialize;

const DIGEST_BYTES: usize = 32;
const MOST_SALT_BYTES: usize = 64;

/// `sha256:DIGEST`, or `sha256:SALT:DIGEST` where the digest is of the salt's bytes followed by the key; both in hexadecimal.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyHash {
    salt: Vec<u8>,
    digest: [u8; DIGEST_BYTES],
}

/// A text that is no [`KeyHash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key is kept as sha256:DIGEST or sha256:SALT:DIGEST, in hexadecimal, never as it is; `equipoise key new` makes one"
)]
pub struct KeyHashError;

impl KeyHash {
    /// What is hashed before the key; empty where nothing is.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// SHA-256 of salt and key.
    #[must_use]
    pub fn digest(&self) -> &[u8; DIGEST_BYTES] {
        &self.digest
    }
}

impl std::fmt::Debug for KeyHash {
    /// Enough to tell two apart, too little to look one up.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyHash({:02x}{:02x}…)", self.digest[0], self.digest[1])
    }
}

impl TryFrom<String> for KeyHash {
    type Error = KeyHashError;

    fn try_from(text: String) -> Result<Self, KeyHashError> {
        text.parse()
    }
}

impl std::str::FromStr for KeyHash {
    type Err = KeyHashError;

    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let rest = text.strip_prefix("sha256:").unwrap_or(text);
        let (salt, digest) = rest.split_once(':').unwrap_or(("", rest));
        let salt = bytes(salt).filter(|salt| salt.len() <= MOST_SALT_BYTES);
        let digest = bytes(digest).and_then(|digest| digest.try_into().ok());
        match (salt, digest) {
            (Some(salt), Some(digest)) => Ok(Self { salt, digest }),
            _ => Err(KeyHashError),
        }
    }
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hexadecimal.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn three_forms_are_read_and_keys_are_not() {
        let plain: KeyHash = DIGEST.parse().expect("bare");
        assert_eq!(format!("sha256:{DIGEST}").parse::<KeyHash>(), Ok(plain.clone()));
        let salted: KeyHash = format!("sha256:00ff:{DIGEST}").parse().expect("salted");
        assert_eq!((salted.salt(), salted.digest()), (&[0, 255][..], plain.digest()));
        for wrong in [
            "",
            "sk-123",
            "sha256:",
            "sha256:abc",
            &DIGEST[2..],
            &format!("sha256:0:{DIGEST}"),
            &"é".repeat(64),
        ] {
            assert_eq!(wrong.parse::<KeyHash>(), Err(KeyHashError), "{wrong}");
        }
        assert_eq!(format!("{plain:?}"), "KeyHash(ba78…)");
    }
}
