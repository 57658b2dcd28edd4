//! A hash for ids: they are numbered by us, so nobody can choose ones that collide.

use std::hash::{BuildHasherDefault, Hasher};

/// 2^64 over the golden ratio, made odd (Knuth, The Art of Computer Programming 3, section 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Builds hashers for maps whose keys are ids. The same keys hash alike in every process.
pub type IdHash = BuildHasherDefault<IdHasher>;

/// Multiplicative hashing of one number.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(GOLDEN);
    }
}
