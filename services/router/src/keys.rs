//! API keys: making them, and telling whose one is. Only hashes are kept; no key is ever logged.

use std::collections::BTreeMap;
use std::sync::Arc;

use equipoise_scheduler::KeyHash;
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::access::Tenant;

/// What keys of ours begin with: scanners for leaked secrets know `sk-`.
const PREFIX: &str = "sk-eq-";
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// A key that is longer is nobody's, and is not hashed.
const LONGEST_KEY: usize = 512;

/// The system has no randomness to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no random bytes; a key cannot be made")]
pub struct NoRandomness;

/// A key that was just made.
pub struct NewKey {
    /// For the client. Shown once; nothing of it is kept.
    pub key: String,
    /// For `keys` of a tenant.
    pub hash: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewKey({})", self.hash)
    }
}

/// Makes a key of 256 random bits, and its hash, with a salt if wanted. A salt is of no use for a key that was made here,
/// which nobody can guess; it hides that two tenants were given the same one.
///
/// # Errors
/// The system has no randomness.
pub fn new_key(salted: bool) -> Result<NewKey, NoRandomness> {
    let random = |bytes: &mut [u8]| SystemRandom::new().fill(bytes).map_err(|_| NoRandomness);
    let mut secret = [0_u8; KEY_BYTES];
    random(&mut secret)?;
    let key = format!("{PREFIX}{}", hexadecimal(&secret));
    let mut salt = [0_u8; SALT_BYTES];
    let hash = if salted {
        random(&mut salt)?;
        format!("sha256:{}:{}", hexadecimal(&salt), hexadecimal(&digest(&salt, &key)))
    } else {
        format!("sha256:{}", hexadecimal(&digest(&[], &key)))
    };
    Ok(NewKey { key, hash })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(salt: &[u8], key: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(key.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// Takes the same time wherever they differ.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0_u8, |seen, (a, b)| seen | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// All keys, by the first two bytes of their hashes: that much of the hash of a guess may be learned from the time it takes.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    plain: BTreeMap<[u8; 2], Vec<(KeyHash, Arc<Tenant>)>>,
    /// Each costs a hash of its own.
    salted: Vec<(KeyHash, Arc<Tenant>)>,
}

impl KeyRing {
    pub(crate) fn add(&mut self, hash: KeyHash, tenant: Arc<Tenant>) {
        if hash.salt().is_empty() {
            self.plain.entry(start(hash.digest())).or_default().push((hash, tenant));
        } else {
            self.salted.push((hash, tenant));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.salted.is_empty()
    }

    /// Whose key it is.
    pub(crate) fn owner(&self, key: &str) -> Option<&Arc<Tenant>> {
        if key.len() > LONGEST_KEY {
            return None;
        }
        let asked = digest(&[], key);
        let plain = self.plain.get(&start(&asked)).into_iter().flatten();
        let mut owner = None;
        for (hash, tenant) in plain {
            if equal(hash.digest(), &asked) {
                owner = owner.or(Some(tenant));
            }
        }
        for (hash, tenant) in &self.salted {
            if equal(hash.digest(), &digest(hash.salt(), key)) {
                owner = owner.or(Some(tenant));
            }
        }
        owner
    }
}

fn start(digest: &[u8; 32]) -> [u8; 2] {
    [digest[0], digest[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-4, the example "abc".
        assert_eq!(
            hexadecimal(&digest(&[], "abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest(b"a", "bc"), digest(&[], "abc"));
    }

    #[test]
    fn a_key_finds_its_owner_and_no_other() {
        let mut ring = KeyRing::default();
        let mut keys = Vec::new();
        for (index, salted) in [false, true, false].into_iter().enumerate() {
            let new = new_key(salted).expect("randomness");
            assert!(new.key.starts_with("sk-eq-") && new.key.len() == 70 && !format!("{new:?}").contains(&new.key));
            let tenant = Arc::new(Tenant::named(&format!("t{index}")));
            ring.add(new.hash.parse().expect("a hash"), tenant);
            keys.push(new.key);
        }
        for (index, key) in keys.iter().enumerate() {
            let owner = ring.owner(key).expect("known");
            assert_eq!(owner.name(), format!("t{index}"));
            assert!(ring.owner(&key[..key.len() - 1]).is_none());
            assert!(ring.owner(&format!("{key}0")).is_none());
        }
        assert!(ring.owner("").is_none() && ring.owner(&"x".repeat(10_000)).is_none());
    }
}
