//! What is kept of a prompt while its body is read: the chain of its blocks, for prefix caches. Its text is not kept.

use equipoise_openai::PromptPart;
use equipoise_policy::Prefix;
use equipoise_scheduler::PrefixSettings;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Blocks kept of one prompt: 16,384 tokens in vLLM's blocks of 16. Longer prompts match by their beginning.
const MOST_BLOCKS: usize = 1024;
/// Bytes of a token that came as a number.
const TOKEN_BYTES: usize = 4;

/// Reads a prompt piece by piece.
#[derive(Debug)]
pub(crate) struct PromptReader {
    settings: PrefixSettings,
    block_bytes: usize,
    pending: Vec<u8>,
    chain: u64,
    blocks: Vec<u64>,
}

impl PromptReader {
    pub(crate) fn new(settings: PrefixSettings) -> Self {
        Self {
            settings,
            block_bytes: settings.block_bytes(),
            pending: Vec::new(),
            chain: settings.hash_seed,
            blocks: Vec::new(),
        }
    }

    pub(crate) fn read(&mut self, part: PromptPart<'_>) {
        match part {
            // A message's end is part of the prompt: "ab" + "c" is another prompt than "a" + "bc".
            PromptPart::Start => self.take(&[0]),
            PromptPart::Text(text) => self.take(text.as_bytes()),
            PromptPart::Role(_) => {}
            PromptPart::Token(token) => {
                // A prompt of numbers has exactly so many tokens to a block.
                self.block_bytes = TOKEN_BYTES * self.settings.block_tokens as usize;
                self.take(&token.to_le_bytes());
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.blocks.len() < MOST_BLOCKS {
            let room = self.block_bytes.saturating_sub(self.pending.len()).max(1);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() >= self.block_bytes {
                self.chain = xxh3_64_with_seed(&self.pending, self.chain);
                self.blocks.push(self.chain);
                self.pending.clear();
            }
        }
    }

    /// The chain. `salt`: the request's `cache_salt`, which may stand behind its prompt in the body; engines share nothing
    /// between requests whose salts differ.
    pub(crate) fn into_prefix(self, salt: Option<&str>) -> Prefix {
        let mut blocks = self.blocks;
        if let Some(salt) = salt {
            let salt = xxh3_64_with_seed(salt.as_bytes(), self.settings.hash_seed);
            // Each hash stands for all blocks before it: salted one by one they are the salted chain.
            for block in &mut blocks {
                *block = xxh3_64_with_seed(&block.to_le_bytes(), salt);
            }
        }
        Prefix {
            block_tokens: self.settings.block_tokens,
            blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(settings: PrefixSettings, parts: &[&str], salt: Option<&str>) -> Prefix {
        let mut reader = PromptReader::new(settings);
        for part in parts {
            reader.read(PromptPart::Start);
            reader.read(PromptPart::Text(part));
        }
        reader.into_prefix(salt)
    }

    fn blocks(parts: &[&str]) -> Vec<u64> {
        chain(PrefixSettings::default(), parts, None).blocks
    }

    fn shared(one: &[u64], two: &[u64]) -> usize {
        one.iter().zip(two).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn prompts_share_blocks_as_far_as_they_agree() {
        let system = "You are a helpful assistant. ".repeat(10);
        let (one, two) = (
            blocks(&[&system, "What is the capital of France?"]),
            blocks(&[&system, "And of Spain, what is it?"]),
        );
        assert_eq!(shared(&one, &two), (system.len() + 2) / 64);
        let (x, y) = ("x".repeat(30), "y".repeat(60));
        assert_ne!(blocks(&[&x, &y]), blocks(&[&format!("{x}y"), &y[1..]]));
        let other = blocks(&[&format!("x{system}")]);
        assert!(
            one.iter().all(|block| !other.contains(block)),
            "a chain depends on all before it"
        );
    }

    #[test]
    fn another_salt_shares_nothing_and_the_same_salt_everything() {
        let system = "You are a helpful assistant. ".repeat(10);
        let salted = |salt, question: &str| chain(PrefixSettings::default(), &[&system, question], salt).blocks;
        let asked = "What is the capital of France?";
        let (none, a, b) = (salted(None, asked), salted(Some("a"), asked), salted(Some("b"), asked));
        for (one, two) in [(&none, &a), (&none, &b), (&a, &b)] {
            assert!(one.iter().all(|block| !two.contains(block)));
        }
        let again = salted(Some("a"), "And of Spain, what is it?");
        assert_eq!(
            shared(&a, &again),
            shared(&none, &salted(None, "And of Spain, what is it?"))
        );
        let seeded = PrefixSettings {
            hash_seed: 7,
            ..PrefixSettings::default()
        };
        let other = chain(seeded, &[&system, asked], None).blocks;
        assert!(
            none.iter().all(|block| !other.contains(block)),
            "another seed, another index"
        );
    }

    #[test]
    fn blocks_are_as_long_as_they_are_said_to_be() {
        // Eight blocks of 16 tokens at 4 bytes, the mark of the message's beginning among them.
        let text = "x".repeat(8 * 64 - 1);
        for (block_tokens, bytes_per_token, expected) in
            [(16, 4.0, 8), (32, 4.0, 4), (128, 4.0, 1), (256, 4.0, 0), (16, 2.0, 16)]
        {
            let settings = PrefixSettings {
                block_tokens,
                bytes_per_token,
                hash_seed: 0,
            };
            let prefix = chain(settings, &[&text], None);
            assert_eq!((prefix.block_tokens, prefix.blocks.len()), (block_tokens, expected));
            // Tokens are counted as they are, whatever text would be.
            let mut reader = PromptReader::new(settings);
            (0..128).for_each(|token| reader.read(PromptPart::Token(token)));
            assert_eq!(reader.into_prefix(None).blocks.len(), 128 / block_tokens as usize);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut reader = PromptReader::new(PrefixSettings::default());
        for _ in 0..200 {
            reader.read(PromptPart::Text(&"äöü€".repeat(200)));
        }
        assert_eq!(reader.into_prefix(None).blocks.len(), MOST_BLOCKS);
    }
}
