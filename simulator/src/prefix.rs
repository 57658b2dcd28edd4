//! Which prompt prefixes an instance's KV cache still holds.

use std::collections::BTreeMap;

/// Blocks of prompts, the least recently used evicted first. A block is known by an id that stands for its text and for
/// all before it.
///
/// Simpler than an engine's in two ways, both in its favour: a block counts as soon as its request is submitted, and the
/// whole KV memory may hold old blocks, whatever the running batch needs.
#[derive(Clone, Debug)]
pub(crate) struct PrefixCache {
    capacity: usize,
    clock: u64,
    used_at: BTreeMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
}

impl PrefixCache {
    /// An empty cache for so many blocks.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            clock: 0,
            used_at: BTreeMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.used_at.clear();
        self.by_use.clear();
    }

    /// How many leading blocks of the prompt are there; afterwards all of them are.
    pub(crate) fn admit(&mut self, blocks: &[u64]) -> usize {
        let hits = blocks
            .iter()
            .take_while(|block| self.used_at.contains_key(block))
            .count();
        // From the end, so that a prefix is younger than what follows it and is evicted after it.
        for &block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.used_at.insert(block, self.clock) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.clock, block);
        }
        while self.used_at.len() > self.capacity
            && let Some((_, block)) = self.by_use.pop_first()
        {
            self.used_at.remove(&block);
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_prefix_counts() {
        let mut cache = PrefixCache::new(10);
        assert_eq!(cache.admit(&[1, 2, 3]), 0);
        assert_eq!(cache.admit(&[1, 2, 4]), 2);
        assert_eq!(cache.admit(&[9, 2, 3]), 0);
        assert_eq!(cache.admit(&[]), 0);
    }

    #[test]
    fn the_end_of_the_oldest_prompt_is_evicted_first() {
        let mut cache = PrefixCache::new(4);
        cache.admit(&[1, 2, 3]);
        cache.admit(&[7, 8]);
        assert_eq!(cache.used_at.len(), 4);
        assert_eq!(cache.by_use.len(), 4);
        assert_eq!(cache.admit(&[1, 2, 3]), 2);
        let mut none = PrefixCache::new(0);
        none.admit(&[1]);
        assert_eq!(none.admit(&[1]), 0);
    }
}
