//! Which prompt blocks the engine still has in its cache: vLLM's automatic prefix caching, by hashes of whole blocks.

use std::collections::{BTreeMap, HashMap};

/// Hashes of the whole blocks of a prompt; each covers all tokens before it too, and the request's `cache_salt`.
pub(crate) fn block_hashes(tokens: &[u32], block_tokens: u32, salt: Option<&str>) -> Vec<u64> {
    let salt: Vec<u32> = salt.unwrap_or_default().bytes().map(u32::from).collect();
    let mut hash = hash_tokens(0xcbf2_9ce4_8422_2325, &salt);
    let blocks = tokens.chunks_exact(block_tokens.max(1) as usize);
    blocks
        .map(|block| {
            hash = hash_tokens(hash, block);
            hash
        })
        .collect()
}

/// A hash of `tokens` that continues from `hash`: FNV-1a over whole ids, with a shift to mix the high bits down.
pub(crate) fn hash_tokens(mut hash: u64, tokens: &[u32]) -> u64 {
    for &token in tokens {
        hash = (hash ^ u64::from(token)).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^= hash >> 29;
    }
    hash
}

/// The cached blocks, least recently used first out.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    capacity: usize,
    clock: u64,
    used_at: HashMap<u64, u64>,
    oldest: BTreeMap<u64, u64>,
}

impl PrefixCache {
    /// A cache of at most `capacity` blocks.
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            capacity: capacity as usize,
            clock: 0,
            used_at: HashMap::new(),
            oldest: BTreeMap::new(),
        }
    }

    /// How many of the blocks, from the first on, are cached.
    pub(crate) fn hits(&self, blocks: &[u64]) -> u32 {
        let hits = blocks
            .iter()
            .take_while(|block| self.used_at.contains_key(block))
            .count();
        u32::try_from(hits).unwrap_or(u32::MAX)
    }

    /// Marks the blocks as computed just now; the first of a prompt count as the most recent, so that tails go first.
    pub(crate) fn insert(&mut self, blocks: &[u64]) {
        for &block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.used_at.insert(block, self.clock) {
                self.oldest.remove(&before);
            }
            self.oldest.insert(self.clock, block);
        }
        while self.used_at.len() > self.capacity
            && let Some((_, block)) = self.oldest.pop_first()
        {
            self.used_at.remove(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_prefix_hits_up_to_where_it_ends() {
        let first: Vec<u32> = (0..70).collect();
        let mut second = first.clone();
        second[40] = 999;
        let mut cache = PrefixCache::new(100);
        cache.insert(&block_hashes(&first, 16, None));
        assert_eq!(block_hashes(&first, 16, None).len(), 4);
        assert_eq!(cache.hits(&block_hashes(&first, 16, None)), 4);
        assert_eq!(cache.hits(&block_hashes(&second, 16, None)), 2);
        assert_eq!(cache.hits(&block_hashes(&first, 16, Some("tenant"))), 0, "salted");
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = PrefixCache::new(4);
        let prompt = |base: u64| [base, base + 1];
        cache.insert(&prompt(10));
        cache.insert(&prompt(20));
        cache.insert(&prompt(10));
        cache.insert(&prompt(30));
        assert_eq!([10, 20, 30].map(|base| cache.hits(&prompt(base))), [2, 0, 2]);
        assert_eq!(cache.used_at.len(), cache.oldest.len());
    }
}
