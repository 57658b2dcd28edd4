//! Word pieces: the longest pieces of the vocabulary that make up a word, from its beginning on.

use std::collections::BTreeMap;

use crate::normalizer::words;

/// Longer words are unknown, as in the reference implementation.
const MOST_WORD_CHARS: usize = 100;

/// A vocabulary that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// A piece that every text needs is not there.
    #[error("the vocabulary has no `{0}`: give BERT's `vocab.txt`, a piece a line")]
    Missing(&'static str),
}

/// A vocabulary of word pieces, lower case.
#[derive(Clone, Debug)]
pub(crate) struct WordPiece {
    ids: BTreeMap<String, u32>,
    unknown: u32,
    begin: u32,
    end: u32,
}

impl WordPiece {
    /// From `vocab.txt`: a piece a line, its number the line's; pieces inside a word begin with `##`.
    ///
    /// # Errors
    /// A file without `[UNK]`, `[CLS]` or `[SEP]`.
    pub(crate) fn new(vocabulary: &str) -> Result<Self, VocabularyError> {
        let ids: BTreeMap<String, u32> = vocabulary.lines().map(str::to_owned).zip(0..).collect();
        let id = |piece: &'static str| ids.get(piece).copied().ok_or(VocabularyError::Missing(piece));
        Ok(Self {
            unknown: id("[UNK]")?,
            begin: id("[CLS]")?,
            end: id("[SEP]")?,
            ids,
        })
    }

    /// How many numbers there are.
    pub(crate) fn size(&self) -> usize {
        self.ids.values().max().map_or(0, |last| *last as usize + 1)
    }

    /// The pieces of a text, between the marks of its beginning and its end, at most `most` with these.
    pub(crate) fn encode(&self, text: &str, most: usize) -> Vec<u32> {
        let room = most.saturating_sub(1);
        let mut ids = vec![self.begin];
        for word in words(text) {
            if ids.len() >= room {
                break;
            }
            self.add_pieces(&word, &mut ids);
        }
        ids.truncate(room);
        ids.push(self.end);
        ids
    }

    fn add_pieces(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = if word.chars().count() > MOST_WORD_CHARS {
            None
        } else {
            Some(word)
        };
        let mut piece = String::new();
        while let Some(left) = rest.filter(|left| !left.is_empty()) {
            let ends = left.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let found = ends.into_iter().find_map(|end| {
                piece.clear();
                piece.push_str(if ids.len() > before { "##" } else { "" });
                piece.push_str(&left[..end]);
                Some((*self.ids.get(&piece)?, end))
            });
            rest = found.map(|(id, end)| {
                ids.push(id);
                &left[end..]
            });
        }
        // A word of which any part is unknown is unknown.
        if rest.is_none() {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_piece_comes_first() {
        let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n##a\n,\nunaffordable\n";
        let pieces = WordPiece::new(vocabulary).expect("is well");
        assert_eq!(pieces.size(), 10);
        assert_eq!(
            pieces.encode("Unaffable, unaffordable unx", 64),
            [2, 4, 5, 6, 8, 9, 1, 3]
        );
        assert_eq!(pieces.encode("unaffable unaffable", 5), [2, 4, 5, 6, 3]);
        assert_eq!(pieces.encode(&"u".repeat(101), 5), [2, 1, 3]);
        assert_eq!(pieces.encode("", 5), [2, 3]);
        assert_eq!(
            WordPiece::new("a\nb").expect_err("is bad"),
            VocabularyError::Missing("[UNK]")
        );
    }
}
