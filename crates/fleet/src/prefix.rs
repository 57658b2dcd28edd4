//! Which prompt prefixes an instance has computed lately, as far as this router's own traffic tells.
//!
//! A prompt is a chain of block hashes, each over its block and all before it, so that a match is always a prefix. An
//! instance's index is two generations of a bounded size: what is used moves to the young one, and when that is full the
//! old one is forgotten. Engines evict by themselves and do not say so: a match is a likelihood, not a promise.

use indexmap::IndexSet;

/// Blocks remembered per instance where its KV capacity is not known.
pub(crate) const DEFAULT_BLOCKS: usize = 32_768;

/// One instance's index.
#[derive(Clone, Debug)]
pub(crate) struct PrefixIndex {
    young: IndexSet<u64>,
    old: IndexSet<u64>,
    generation_blocks: usize,
}

impl PrefixIndex {
    /// Remembers about `blocks` blocks.
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            young: IndexSet::new(),
            old: IndexSet::new(),
            generation_blocks: (blocks / 2).max(1),
        }
    }

    /// Takes a prompt's blocks in as computed, or used again.
    pub(crate) fn note(&mut self, blocks: &[u64]) {
        // From the end, so that a prefix is younger than what follows it.
        for &block in blocks.iter().rev() {
            if self.young.len() >= self.generation_blocks {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(block);
        }
    }

    /// How many of a prompt's leading blocks are remembered.
    pub(crate) fn matched(&self, blocks: &[u64]) -> usize {
        let known = |block: &u64| self.young.contains(block) || self.old.contains(block);
        blocks.iter().take_while(|block| known(block)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_is_found_and_forgotten() {
        let mut index = PrefixIndex::new(8);
        index.note(&[1, 2, 3]);
        assert_eq!(index.matched(&[1, 2, 3, 4]), 3);
        assert_eq!(index.matched(&[2, 3]), 2);
        assert_eq!(index.matched(&[9, 1, 2]), 0);
        index.note(&[10, 11, 12, 13, 14, 15, 16, 17]);
        assert_eq!(index.matched(&[1, 2, 3]), 0);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(prompts in proptest::collection::vec(proptest::collection::vec(0_u64..500, 0..40), 0..40), blocks in 1_usize..64) {
            let mut index = PrefixIndex::new(blocks);
            for prompt in &prompts {
                index.note(prompt);
                prop_assert!(index.young.len() + index.old.len() <= blocks.max(2));
            }
        }
    }
}
