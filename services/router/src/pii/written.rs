//! All that is written in a JSON body: every string, every member's name, every number.

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Longer than any word: a string of base64 alone that is longer is a picture or a sound.
const LONGEST_WORD: usize = 16 << 10;

/// Shows every piece of text to `read` until it has enough; gives whether it took all of it. A body that is no JSON is shown
/// as far as it can be read, and was not read in full.
pub(super) fn each_text(body: &[u8], read: &mut dyn FnMut(&str) -> bool) -> bool {
    let mut json = serde_json::Deserializer::from_slice(body);
    Texts { read }.deserialize(&mut json).is_ok()
}

struct Texts<'r> {
    read: &'r mut dyn FnMut(&str) -> bool,
}

impl Texts<'_> {
    fn show<E: Error>(self, text: &str) -> Result<(), E> {
        if is_media(text) || (self.read)(text) {
            Ok(())
        } else {
            Err(E::custom("enough"))
        }
    }
}

fn is_media(text: &str) -> bool {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let inline = text.starts_with("data:") && text.get(..200).unwrap_or(text).contains(";base64,");
    let body = if inline {
        &text[text.find(',').map_or(0, |at| at + 1)..]
    } else {
        text
    };
    (inline || text.len() > LONGEST_WORD) && body.bytes().all(base64)
}

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        // No card and no telephone number has fewer digits.
        if number < 1_000_000 {
            Ok(())
        } else {
            self.show(&number.to_string())
        }
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.show(text)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Texts { read: self.read })?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Texts { read: self.read })?.is_some() {
            map.next_value_seed(Texts { read: self.read })?;
        }
        Ok(())
    }
}
