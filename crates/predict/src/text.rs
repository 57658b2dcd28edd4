//! From a prompt's text to numbers that a model can learn from: hashed n-grams and surface features.

mod ngrams;
mod surface;

pub(crate) use ngrams::{Ngrams, count_ngrams};
pub(crate) use surface::{SURFACE_FEATURES, surface_features};

/// Bytes of a prompt that are read: all of a shorter one, else the beginning and the end.
const READ_BYTES: usize = 2000;
/// Of which from the end, where the question usually stands.
const READ_FROM_END: usize = 600;

/// The parts of `text` that are read, at most [`READ_BYTES`] together, cut between characters.
pub(crate) fn read_window(text: &str) -> (&str, &str) {
    if text.len() <= READ_BYTES {
        return (text, "");
    }
    let mut head = READ_BYTES - READ_FROM_END;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - READ_FROM_END;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    (&text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_read_at_both_ends() {
        let text = format!("{}{}", "ä".repeat(2000), "ü".repeat(2000));
        let (head, tail) = read_window(&text);
        assert!(head.len() + tail.len() <= READ_BYTES);
        assert!(head.starts_with('ä') && tail.ends_with('ü') && !tail.contains('ä'));
        assert_eq!(read_window("short"), ("short", ""));
    }
}
