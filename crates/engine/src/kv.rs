//! The ledger of KV blocks: how many are taken. Which block is whose does not matter to time or energy.

/// Counts blocks; never more than there are.
#[derive(Clone, Debug)]
pub(crate) struct KvLedger {
    total: u32,
    used: u32,
    block_tokens: u32,
}

impl KvLedger {
    pub(crate) fn new(total: u32, block_tokens: u32) -> Self {
        Self {
            total,
            used: 0,
            block_tokens,
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
        }
        fits
    }

    pub(crate) fn give_back(&mut self, blocks: u32) {
        debug_assert!(blocks <= self.used, "{blocks} of {} blocks given back", self.used);
        self.used -= blocks;
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }
}
