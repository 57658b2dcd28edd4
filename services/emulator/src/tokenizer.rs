//! A tokenizer without a vocabulary: four ASCII characters to a token, other bytes three or fewer, every token reversible.

/// What a request's prompt looks like to the engine.
pub(crate) type Tokens = Vec<u32>;

const TWO: u32 = 1 << 8;
const THREE: u32 = TWO + (1 << 16);
const ASCII: u32 = THREE + (1 << 24);
const END: u32 = ASCII + (1 << 28);

/// The first of the special tokens that frame messages; they stand for no text.
pub(crate) const FRAME: u32 = END;

/// Appends the tokens of `text`.
pub(crate) fn encode(text: &str, tokens: &mut Tokens) {
    let mut left = text.as_bytes();
    while !left.is_empty() {
        let (token, used) = match left {
            [a, b, c, d, ..] if left[..4].is_ascii() => {
                let packed = [a, b, c, d]
                    .into_iter()
                    .fold(0, |packed, &byte| (packed << 7) | u32::from(byte));
                (ASCII + packed, 4)
            }
            [a, b, c, ..] => (THREE + pack(&[*a, *b, *c]), 3),
            [a, b] => (TWO + pack(&[*a, *b]), 2),
            _ => (u32::from(left[0]), 1),
        };
        tokens.push(token);
        left = &left[used..];
    }
}

/// The text of tokens; special and unknown ones stand for nothing, and broken UTF-8 becomes U+FFFD.
pub(crate) fn decode(tokens: &[u32]) -> String {
    let mut bytes = Vec::with_capacity(4 * tokens.len());
    for &token in tokens {
        match token {
            0..TWO => bytes.push(token as u8),
            TWO..THREE => bytes.extend_from_slice(&(token - TWO).to_be_bytes()[2..]),
            THREE..ASCII => bytes.extend_from_slice(&(token - THREE).to_be_bytes()[1..]),
            ASCII..END => {
                let packed = token - ASCII;
                bytes.extend([21, 14, 7, 0].map(|shift| ((packed >> shift) & 0x7f) as u8));
            }
            END.. => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn pack(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |packed, &byte| (packed << 8) | u32::from(byte))
}

/// Three letters and the space before them: exactly one token, so that an answer that comes back in the next prompt
/// counts as many tokens as it did when it was generated.
const WORDS: [&str; 64] = [
    " the", " and", " for", " you", " not", " are", " all", " new", " was", " can", " has", " but", " our", " one",
    " may", " out", " use", " any", " see", " his", " who", " now", " get", " how", " its", " top", " had", " day",
    " two", " her", " add", " she", " set", " map", " way", " off", " did", " car", " own", " end", " him", " per",
    " big", " law", " art", " old", " why", " low", " man", " job", " too", " men", " box", " air", " yes", " hot",
    " say", " sea", " run", " key", " sum", " sun", " ten", " try",
];

/// The text of the answer's token at `index`, made up from `key`.
pub(crate) fn word(key: u64, index: u32) -> &'static str {
    // One round of splitmix64: far words for near indices.
    let mut mixed = key.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    WORDS[(mixed >> 58) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Tokens {
        let mut tokens = Tokens::new();
        encode(text, &mut tokens);
        tokens
    }

    #[test]
    fn every_text_comes_back() {
        for text in ["", "a", "hello there", "naïve café", "日本語 text", "👩‍🚀!", "ab\0c"] {
            assert_eq!(decode(&tokens(text)), text);
        }
        assert_eq!(decode(&[FRAME, u32::MAX]), "");
    }

    #[test]
    fn about_four_characters_make_a_token() {
        assert_eq!(tokens("hello there").len(), 3);
        assert_eq!(tokens(&"word ".repeat(100)).len(), 125);
    }

    #[test]
    fn an_answer_counts_the_same_when_it_comes_back() {
        let answer: String = (0..500).map(|index| word(7, index)).collect();
        assert_eq!(tokens(&answer).len(), 500);
        assert_eq!(answer, (0..500).map(|index| word(7, index)).collect::<String>());
        assert_ne!(answer, (0..500).map(|index| word(8, index)).collect::<String>());
    }
}
