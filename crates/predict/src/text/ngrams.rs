//! Hashed n-grams with signs ("hashing trick", Weinberger et al. 2009): words of length 1 and 2, and byte n-grams of
//! length 3 to 5 inside space-delimited tokens, each kind into its own half of the buckets.

use super::read_window;

/// Signed counts by bucket: only buckets that are not zero, in ascending order.
pub(crate) type Ngrams = Vec<(u32, f32)>;

const WORD_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const PAIR_SEED: u64 = 0xc2b2_ae3d_27d4_eb4f;
const BYTES_SEED: u64 = 0x1656_67b1_9e37_79f9;

/// Mixes 64 bits so that each output bit depends on each input bit (MurmurHash3's finaliser).
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

/// Counts into a dense table, one half for words, one for byte n-grams.
struct Counter {
    counts: Vec<i16>,
    /// A bit per bucket that was counted into: most never are, and looking at all of them is slow.
    touched: Vec<u64>,
    /// Buckets of one half less one; a power of two less one.
    mask: u32,
}

impl Counter {
    fn add(&mut self, hash: u64, half: u32) {
        let hash = mix(hash);
        let bucket = ((hash >> 32) as u32 & self.mask) + half * (self.mask + 1);
        let sign = if hash & 1 == 0 { 1 } else { -1 };
        self.touched[bucket as usize / 64] |= 1 << (bucket % 64);
        let count = &mut self.counts[bucket as usize];
        *count = count.saturating_add(sign);
    }

    /// Words: runs of letters, digits and underscores; bytes above ASCII count as letters.
    fn words(&mut self, text: &str) {
        let mut before: Option<u64> = None;
        let mut word: Option<u64> = None;
        for byte in text.bytes().chain([b' ']) {
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
                let hash = word.unwrap_or(WORD_SEED) ^ u64::from(byte.to_ascii_lowercase());
                word = Some(hash.wrapping_mul(0x0000_0100_0000_01b3));
            } else if let Some(hash) = word.take() {
                self.add(hash, 0);
                if let Some(before) = before {
                    self.add(before.rotate_left(23) ^ hash ^ PAIR_SEED, 0);
                }
                before = Some(hash);
            }
        }
    }

    /// Byte n-grams of length 3 to 5 in tokens padded with one space at each side.
    fn bytes(&mut self, text: &str) {
        // The last five bytes, newest lowest; zero where the token has not begun.
        for token in text.split_ascii_whitespace() {
            let mut recent = u64::from(b' ');
            let mut seen = 1;
            for byte in token.bytes().chain([b' ']) {
                recent = (recent << 8) | u64::from(byte.to_ascii_lowercase());
                seen += 1;
                for length in 3..=5_u32.min(seen) {
                    let kept = recent & ((1 << (8 * length)) - 1);
                    self.add(kept ^ BYTES_SEED.rotate_left(length), 1);
                }
            }
        }
    }

    fn into_ngrams(self) -> Ngrams {
        let distinct: u32 = self.touched.iter().map(|bits| bits.count_ones()).sum();
        let mut ngrams = Ngrams::with_capacity(distinct as usize);
        for (first, mut bits) in (0_u32..).step_by(64).zip(self.touched) {
            while bits != 0 {
                let bucket = first + bits.trailing_zeros();
                let count = self.counts[bucket as usize];
                if count != 0 {
                    ngrams.push((bucket, f32::from(count)));
                }
                bits &= bits - 1;
            }
        }
        ngrams
    }
}

/// The n-grams of `text` in `2 << half_bits` buckets.
pub(crate) fn count_ngrams(text: &str, half_bits: u32) -> Ngrams {
    let half = 1_u32 << half_bits;
    let mut counter = Counter {
        counts: vec![0; 2 * half as usize],
        touched: vec![0; (2 * half as usize).div_ceil(64)],
        mask: half - 1,
    };
    let (head, tail) = read_window(text);
    for part in [head, tail] {
        counter.words(part);
        counter.bytes(part);
    }
    counter.into_ngrams()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_gives_the_same_ngrams_and_another_does_not() {
        assert_eq!(count_ngrams("What is 2 + 2?", 10), count_ngrams("What is 2 + 2?", 10));
        assert_ne!(count_ngrams("What is 2 + 2?", 10), count_ngrams("What is 2 - 2?", 10));
        assert_eq!(
            count_ngrams("CASE does not matter", 10),
            count_ngrams("case DOES not matter", 10)
        );
    }

    #[test]
    fn words_and_bytes_keep_to_their_halves() {
        let ngrams = count_ngrams("ab", 8);
        // One word; of bytes " ab", "ab " and " ab ".
        let words: f32 = ngrams
            .iter()
            .filter(|(bucket, _)| *bucket < 256)
            .map(|(_, count)| count.abs())
            .sum();
        let bytes = ngrams.iter().filter(|(bucket, _)| *bucket >= 256).count();
        assert!((words - 1.0).abs() < f32::EPSILON);
        assert!((1..=3).contains(&bytes), "{bytes}");
        assert!(count_ngrams("", 8).is_empty());
    }
}
