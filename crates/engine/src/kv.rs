//! The ledger of KV blocks: how many are taken. Which block is whose does not matter to time or energy.

/// Counts blocks; never more than there are.
#[derive(Clone, Debug)]
pub(crate) struct KvLedger {
    total: u32,
    used: u32,
    block_tokens: u32,
    /// Blocks taken since the start.
    taken_total: u64,
}

/// Where freed blocks stand in the queue of free ones, which is used up from its head: how many survive can be told later.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Freed {
    blocks: u32,
    /// The count of taken blocks from which on these are overwritten, the tail of the sequence first.
    overwritten_from: u64,
}

impl KvLedger {
    pub(crate) fn new(total: u32, block_tokens: u32) -> Self {
        Self {
            total,
            used: 0,
            block_tokens,
            taken_total: 0,
        }
    }

    /// Blocks that `tokens` take.
    pub(crate) fn blocks(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_tokens)
    }

    /// Takes `blocks` more, or nothing if they are not free.
    #[must_use]
    pub(crate) fn take(&mut self, blocks: u32) -> bool {
        let fits = blocks <= self.total - self.used;
        if fits {
            self.used += blocks;
            self.taken_total += u64::from(blocks);
        }
        fits
    }

    pub(crate) fn give_back(&mut self, blocks: u32) -> Freed {
        debug_assert!(blocks <= self.used, "{blocks} of {} blocks given back", self.used);
        let overwritten_from = self.taken_total + u64::from(self.total - self.used);
        self.used -= blocks;
        Freed {
            blocks,
            overwritten_from,
        }
    }

    /// Tokens of a freed sequence, from its start, that whole blocks still hold.
    pub(crate) fn surviving_tokens(&self, freed: Freed, computed: u32) -> u32 {
        let overwritten = self.taken_total.saturating_sub(freed.overwritten_from);
        let left = u64::from(freed.blocks).saturating_sub(overwritten);
        let whole = computed / self.block_tokens;
        u32::try_from(left).unwrap_or(u32::MAX).min(whole) * self.block_tokens
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_blocks_are_overwritten_in_order_from_the_tail() {
        let mut ledger = KvLedger::new(10, 4);
        assert!(ledger.take(4) && ledger.take(3));
        // Three blocks are free ahead of these four, of which the last is half full.
        let freed = ledger.give_back(4);
        assert_eq!(ledger.surviving_tokens(freed, 14), 12);
        assert!(ledger.take(3));
        assert_eq!(ledger.surviving_tokens(freed, 14), 12);
        assert!(ledger.take(2));
        assert_eq!(ledger.surviving_tokens(freed, 14), 8);
        assert!(ledger.take(2) && !ledger.take(1));
        assert_eq!(ledger.surviving_tokens(freed, 14), 0);
    }
}
