//! What is kept of a prompt while its body is read: the chain of its blocks, for prefix caches. Its text is not kept.

use equipoise_openai::PromptPart;
use equipoise_policy::Prefix;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// vLLM's block on GPUs.
const BLOCK_TOKENS: u32 = 16;
/// A block of text stands for a block of tokens: about four characters each in English.
const BLOCK_BYTES: usize = 64;
/// Blocks kept of one prompt: 16,384 tokens. Longer prompts match by their beginning.
const MOST_BLOCKS: usize = 1024;

/// Reads a prompt piece by piece.
#[derive(Debug, Default)]
pub(crate) struct PromptReader {
    pending: Vec<u8>,
    chain: u64,
    blocks: Vec<u64>,
}

impl PromptReader {
    pub(crate) fn read(&mut self, part: PromptPart<'_>) {
        match part {
            // A message's end is part of the prompt: "ab" + "c" is another prompt than "a" + "bc".
            PromptPart::Start => self.take(&[0]),
            PromptPart::Text(text) => self.take(text.as_bytes()),
            PromptPart::Role(_) => {}
            PromptPart::Token(token) => self.take(&token.to_le_bytes()),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.blocks.len() < MOST_BLOCKS {
            let room = BLOCK_BYTES - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == BLOCK_BYTES {
                self.chain = xxh3_64_with_seed(&self.pending, self.chain);
                self.blocks.push(self.chain);
                self.pending.clear();
            }
        }
    }

    pub(crate) fn into_prefix(self) -> Prefix {
        Prefix {
            block_tokens: BLOCK_TOKENS,
            blocks: self.blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(parts: &[&str]) -> Vec<u64> {
        let mut reader = PromptReader::default();
        for part in parts {
            reader.read(PromptPart::Start);
            reader.read(PromptPart::Text(part));
        }
        reader.into_prefix().blocks
    }

    #[test]
    fn prompts_share_blocks_as_far_as_they_agree() {
        let system = "You are a helpful assistant. ".repeat(10);
        let (one, two) = (
            blocks(&[&system, "What is the capital of France?"]),
            blocks(&[&system, "And of Spain, what is it?"]),
        );
        let shared = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
        assert_eq!(shared, (system.len() + 2) / BLOCK_BYTES);
        let (x, y) = ("x".repeat(30), "y".repeat(60));
        assert_ne!(blocks(&[&x, &y]), blocks(&[&format!("{x}y"), &y[1..]]));
        let other = blocks(&[&format!("x{system}")]);
        assert!(
            one.iter().all(|block| !other.contains(block)),
            "a chain depends on all before it"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut reader = PromptReader::default();
        for _ in 0..200 {
            reader.read(PromptPart::Text(&"äöü€".repeat(200)));
        }
        assert_eq!(reader.into_prefix().blocks.len(), MOST_BLOCKS);
    }
}
