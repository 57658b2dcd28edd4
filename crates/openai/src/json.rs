//! Where the members of a JSON object lie in its bytes, without building a value.

use std::borrow::Cow;
use std::ops::Range;

/// Serializes one of this crate's own types.
#[expect(
    clippy::expect_used,
    reason = "structs of strings and numbers always serialize to memory"
)]
pub(crate) fn to_vec(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("invariant: plain data serializes")
}

/// One member of an object: byte ranges of its key (with the quotes) and of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

impl Member {
    /// Whether the key spells `name`, escapes resolved.
    pub(crate) fn is_named(&self, bytes: &[u8], name: &str) -> bool {
        let key = bytes.get(self.key.clone()).unwrap_or_default();
        if !key.contains(&b'\\') {
            return key.get(1..key.len().saturating_sub(1)) == Some(name.as_bytes());
        }
        serde_json::from_slice::<Cow<'_, str>>(key).is_ok_and(|key| key == name)
    }
}

/// The members of the object that is `bytes[object]`, in order, or the offset at which it stops being an object.
///
/// Finds the extents of values; does not check what is inside them.
pub(crate) fn members(bytes: &[u8], object: Range<usize>) -> Result<Vec<Member>, usize> {
    let mut scan = Scan {
        bytes: bytes.get(..object.end).unwrap_or(bytes),
        at: object.start,
    };
    let mut found = Vec::new();
    scan.expect(b'{')?;
    if scan.next_is(b'}') {
        return Ok(found);
    }
    loop {
        let key = scan.string()?;
        scan.expect(b':')?;
        let value = scan.value()?;
        found.push(Member { key, value });
        if scan.next_is(b'}') {
            return Ok(found);
        }
        scan.expect(b',')?;
    }
}

/// The elements of the array that is `bytes[array]`, in order, or the offset at which it stops being an array.
pub(crate) fn elements(bytes: &[u8], array: Range<usize>) -> Result<Vec<Range<usize>>, usize> {
    let mut scan = Scan {
        bytes: bytes.get(..array.end).unwrap_or(bytes),
        at: array.start,
    };
    let mut found = Vec::new();
    scan.expect(b'[')?;
    if scan.next_is(b']') {
        return Ok(found);
    }
    loop {
        found.push(scan.value()?);
        if scan.next_is(b']') {
            return Ok(found);
        }
        scan.expect(b',')?;
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips whitespace and, if it comes next, `byte`.
    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), usize> {
        if self.next_is(byte) { Ok(()) } else { Err(self.at) }
    }

    fn string(&mut self) -> Result<Range<usize>, usize> {
        self.skip_whitespace();
        let start = self.at;
        self.expect(b'"')?;
        while let Some(rest) = self.bytes.get(self.at..)
            && let Some(stop) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))
        {
            if rest[stop] == b'"' {
                self.at += stop + 1;
                return Ok(start..self.at);
            }
            // The escaped byte cannot end the string.
            self.at += stop + 2;
        }
        Err(self.bytes.len())
    }

    fn value(&mut self) -> Result<Range<usize>, usize> {
        self.skip_whitespace();
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\n' | b'\r') if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                Some(byte) if is_scalar(byte) => {
                    while self.peek().is_some_and(is_scalar) {
                        self.at += 1;
                    }
                }
                _ => return Err(self.at),
            }
            if depth == 0 {
                return Ok(start..self.at);
            }
        }
    }
}

/// A byte of a number, `true`, `false` or `null`.
fn is_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(json: &str) -> Vec<(&str, &str)> {
        let found = members(json.as_bytes(), 0..json.len()).expect("an object");
        found
            .into_iter()
            .map(|member| (&json[member.key], &json[member.value]))
            .collect()
    }

    #[test]
    fn finds_members_whatever_is_inside() {
        assert_eq!(
            texts(r#" { "a" : "x\"}," , "b":[{"c":"]"},2], "d": -1.5e+3,"e":null,"f":{}} "#),
            [
                ("\"a\"", r#""x\"},""#),
                ("\"b\"", r#"[{"c":"]"},2]"#),
                ("\"d\"", "-1.5e+3"),
                ("\"e\"", "null"),
                ("\"f\"", "{}")
            ]
        );
        assert_eq!(texts("{}"), []);
    }

    #[test]
    fn says_where_it_breaks() {
        assert_eq!(members(b"[1]", 0..3), Err(0));
        assert_eq!(members(br#"{"a":}"#, 0..6), Err(5));
        assert_eq!(members(br#"{"a"#, 0..3), Err(3));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "[\\{\\}\\[\\]\",:\\\\a1 ]{0,60}".prop_map(String::into_bytes),
        ]) {
            if let Ok(found) = elements(&bytes, 0..bytes.len()) {
                for element in found {
                    prop_assert!(element.end <= bytes.len());
                }
            }
            if let Ok(found) = members(&bytes, 0..bytes.len()) {
                for member in found {
                    prop_assert!(member.key.end <= member.value.start && member.value.end <= bytes.len());
                }
            }
        }
    }
}
