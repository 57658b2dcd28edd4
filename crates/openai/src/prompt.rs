//! Sizing a prompt while it is being parsed: messages, content parts, prompt strings and token ids.

mod inputs;

pub(crate) use inputs::{Instructions, Items, TextOptions, Texts};

use crate::skipped::Skipped;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// A piece of the prompt, in the order of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptPart<'a> {
    /// A new message, or a new prompt of a list, begins.
    Start,
    /// Who speaks in it (`user`, `system`, ...); before or after its text, as it stands in the body.
    Role(&'a str),
    /// Text of it.
    Text(&'a str),
    /// A token id of a prompt that came tokenized.
    Token(u32),
}

/// What was counted, and who wants to see the pieces.
pub(crate) struct Prompt<'s> {
    pub(crate) on_part: &'s mut dyn FnMut(PromptPart<'_>),
    /// Characters of text, tool definitions and tool calls included.
    pub(crate) chars: u64,
    pub(crate) token_ids: u64,
    /// Messages, or prompts of a list.
    pub(crate) items: u32,
    pub(crate) has_images: bool,
    pub(crate) has_audio: bool,
}

impl Prompt<'_> {
    fn start(&mut self) {
        self.items = self.items.saturating_add(1);
        (self.on_part)(PromptPart::Start);
    }

    fn text(&mut self, text: &str) {
        self.chars += text.chars().count() as u64;
        (self.on_part)(PromptPart::Text(text));
    }

    fn token(&mut self, id: u32) {
        self.token_ids += 1;
        (self.on_part)(PromptPart::Token(id));
    }
}

/// `messages`: a list of objects.
pub(crate) struct Messages<'a, 's>(pub(crate) &'a mut Prompt<'s>);
/// `role`: a string, or null.
struct Role<'a, 's>(&'a mut Prompt<'s>);
/// One message.
struct Message<'a, 's>(&'a mut Prompt<'s>);
/// `content`: null, a string or a list of parts.
struct Content<'a, 's>(&'a mut Prompt<'s>);
/// One part: a string or an object with a type.
struct Part<'a, 's>(&'a mut Prompt<'s>);
/// `prompt`: a string, a list of strings, of token ids, or of lists of token ids.
pub(crate) struct Prompts<'a, 's>(pub(crate) &'a mut Prompt<'s>);
/// One element of such a list; `bare_ids` says whether an id was seen, which makes the list one prompt.
struct PromptItem<'a, 's> {
    prompt: &'a mut Prompt<'s>,
    in_ids: bool,
}
/// Any value, counted as the characters that a template would write for it (`tools`, `tool_calls`). Gives whether it
/// holds anything.
pub(crate) struct Written<'a, 's>(pub(crate) &'a mut Prompt<'s>);

/// `deserialize_any` with the type's own visitor.
macro_rules! seed {
    ($name:ident, $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $name<'_, '_> {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    };
}
use seed;
seed!(Messages, ());
seed!(Message, ());
seed!(Role, ());
seed!(Content, ());
seed!(Part, ());
seed!(Prompts, ());
seed!(PromptItem, bool);
seed!(Written, bool);

impl<'de> Visitor<'de> for Messages<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of messages")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Message(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> Visitor<'de> for Message<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message object such as {\"role\": \"user\", \"content\": \"Hello\"}")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        read_message(self.0, map, &["tool_calls"])
    }
}

/// A message's members; what stands in those that are `written` is read by the model beside its content.
fn read_message<'de, A: MapAccess<'de>>(prompt: &mut Prompt<'_>, mut map: A, written: &[&str]) -> Result<(), A::Error> {
    prompt.start();
    while let Some(key) = map.next_key::<Cow<'_, str>>()? {
        match &*key {
            "content" => map.next_value_seed(Content(prompt))?,
            "role" => map.next_value_seed(Role(prompt))?,
            key if written.contains(&key) => {
                map.next_value_seed(Written(prompt))?;
            }
            _ => {
                map.next_value::<Skipped>()?;
            }
        }
    }
    Ok(())
}

impl<'de> Visitor<'de> for Role<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a role such as \"user\"")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, role: &str) -> Result<(), E> {
        (self.0.on_part)(PromptPart::Role(role));
        Ok(())
    }
}

impl<'de> Visitor<'de> for Content<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("content that is a string, a list of parts, or null")
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
}

impl<'de> Visitor<'de> for Part<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a content part such as {\"type\": \"text\", \"text\": \"Hello\"}")
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text(text);
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "text" => map.next_value_seed(Content(self.0))?,
                "image_url" | "image" | "input_image" => {
                    self.0.has_images = true;
                    map.next_value::<Skipped>()?;
                }
                "input_audio" | "audio_url" => {
                    self.0.has_audio = true;
                    map.next_value::<Skipped>()?;
                }
                _ => {
                    map.next_value::<Skipped>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Prompts<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt: a string, a list of strings, or a list of token ids")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.start();
        self.0.text(text);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut in_ids = false;
        while let Some(was_id) = list.next_element_seed(PromptItem {
            prompt: &mut *self.0,
            in_ids,
        })? {
            in_ids = was_id;
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for PromptItem<'_, '_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or a list of token ids")
    }
    fn visit_u64<E: Error>(self, id: u64) -> Result<bool, E> {
        let id = u32::try_from(id).map_err(|_| E::custom(format_args!("token id {id} does not fit 32 bits")))?;
        if !self.in_ids {
            self.prompt.start();
        }
        self.prompt.token(id);
        Ok(true)
    }
    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        self.prompt.start();
        self.prompt.text(text);
        Ok(false)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        self.prompt.start();
        while let Some(id) = list.next_element::<u32>()? {
            self.prompt.token(id);
        }
        Ok(false)
    }
}

impl Written<'_, '_> {
    /// Quotes, colon and comma of a member, roughly.
    const PUNCTUATION: u64 = 4;
}

impl<'de> Visitor<'de> for Written<'_, '_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        self.0.chars += 4;
        Ok(true)
    }
    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        self.0.chars += 2;
        Ok(true)
    }
    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        self.0.chars += 2;
        Ok(true)
    }
    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        self.0.chars += 3;
        Ok(true)
    }
    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        self.0.chars += text.chars().count() as u64;
        Ok(!text.is_empty())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut some = false;
        while list.next_element_seed(Written(self.0))?.is_some() {
            self.0.chars += Self::PUNCTUATION / 2;
            some = true;
        }
        Ok(some)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut some = false;
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            self.0.chars += key.chars().count() as u64 + Self::PUNCTUATION;
            map.next_value_seed(Written(self.0))?;
            some = true;
        }
        Ok(some)
    }
}

/// `stream_options`, as far as it matters here. Only an object will do: a list would be read by no engine.
#[derive(Default)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

impl<'de> Deserialize<'de> for StreamOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = StreamOptions;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object such as {\"include_usage\": true}, or null")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StreamOptions, A::Error> {
                let (mut options, mut seen) = (StreamOptions::default(), false);
                while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                    if key != "include_usage" {
                        map.next_value::<Skipped>()?;
                    } else if std::mem::replace(&mut seen, true) {
                        return Err(A::Error::custom("`include_usage` comes twice; send it once"));
                    } else {
                        options.include_usage = map.next_value()?;
                    }
                }
                Ok(options)
            }
        }
        deserializer.deserialize_any(Object)
    }
}
