//! Inputs of the younger APIs: the items of a response, and texts to compare in whatever form they come.

use super::{Content, Part, Prompt, read_message, seed};
use crate::skipped::Skipped;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// `input` of a response: a string, or a list of items.
pub(crate) struct Items<'a, 's>(pub(crate) &'a mut Prompt<'s>);
/// One item: a message, a tool call, a tool's result, or anything younger.
struct Item<'a, 's>(&'a mut Prompt<'s>);
/// `instructions`: one message of the system's; vLLM takes null and strings, others lists.
pub(crate) struct Instructions<'a, 's>(pub(crate) &'a mut Prompt<'s>);
/// Texts in any form: a string, an object with text in it, or lists of them. Whole numbers are token ids.
pub(crate) struct Texts<'a, 's>(pub(crate) &'a mut Prompt<'s>);
/// What is inside an object of [`Texts`]: the same, but no new prompt begins with it.
struct Inside<'a, 's>(&'a mut Prompt<'s>);

seed!(Items, ());
seed!(Item, ());
seed!(Texts, ());
seed!(Inside, ());

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input: a string, or a list of items")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.start();
        (self.0.on_part)(super::PromptPart::Role("user"));
        self.0.text(text);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Item(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input item such as {\"role\": \"user\", \"content\": \"Hello\"}")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        // What a tool was called with and what it said are read by the model as well.
        read_message(self.0, map, &["arguments", "output", "summary"])
    }
}

impl<'de> DeserializeSeed<'de> for Instructions<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.start();
        (self.0.on_part)(super::PromptPart::Role("system"));
        Content(self.0).deserialize(deserializer)
    }
}

impl<'de> Visitor<'de> for Texts<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of texts")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, id: u64) -> Result<(), E> {
        if let Ok(id) = u32::try_from(id) {
            self.0.token(id);
        }
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.start();
        self.0.text(text);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Texts(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.start();
        Inside(self.0).visit_map(map)
    }
}

impl<'de> Visitor<'de> for Inside<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or parts of it")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text(text);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Part(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "text" | "content" => map.next_value_seed(Inside(self.0))?,
                _ => {
                    map.next_value::<Skipped>()?;
                }
            }
        }
        Ok(())
    }
}

/// `text` of a response: its format, as far as it constrains the answer.
#[derive(Deserialize)]
pub(crate) struct TextOptions {
    #[serde(default)]
    pub(crate) format: Option<crate::request::Format>,
}
