//! One chunk of a streamed answer, read cheaply.

use crate::usage::{Usage, WireUsage};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// The token limit was reached.
    Length,
    /// The answer is a tool call.
    ToolCalls,
    /// Anything else (`content_filter`, `abort`, `error`, …).
    Other,
}

impl<'de> Deserialize<'de> for FinishReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = FinishReason;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a finish reason")
            }
            fn visit_str<E>(self, name: &str) -> Result<FinishReason, E> {
                Ok(match name {
                    "stop" => FinishReason::Stop,
                    "length" => FinishReason::Length,
                    "tool_calls" | "function_call" => FinishReason::ToolCalls,
                    _ => FinishReason::Other,
                })
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// What one stream chunk says, without its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkSummary {
    /// Choices in the chunk.
    pub choices: u32,
    /// Choices that carry something the model produced (text, reasoning, a refusal or a tool call). vLLM sends one chunk per
    /// token at light load but joins tokens when the client reads slowly, and holds one back in the middle of a
    /// multi-byte character: this is a lower bound on tokens, [`Usage`] is the truth.
    pub content_choices: u32,
    /// Why a choice ended, if one did in this chunk (the last one if several did).
    pub finish_reason: Option<FinishReason>,
    /// Token counts, if the chunk has them.
    pub usage: Option<Usage>,
    /// The chunk is an `{"error": …}` object: the engine failed in the middle of the stream.
    pub is_error: bool,
}

impl ChunkSummary {
    /// Reads one `data:` payload; `None` if it is not a JSON object (as `[DONE]` is not).
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let wire: WireChunk = serde_json::from_slice(data).ok()?;
        let choices = wire.choices.unwrap_or_default();
        Some(Self {
            choices: choices.count,
            content_choices: choices.with_content,
            finish_reason: choices.finish_reason,
            usage: wire.usage.map(Usage::from),
            is_error: wire.error.is_some(),
        })
    }

    /// The chunk that exists only because of `stream_options.include_usage`: no choices, just token counts. Hide it from
    /// a client that did not ask for it (see [`crate::with_stream_usage`]).
    #[must_use]
    pub fn is_usage_only(&self) -> bool {
        self.choices == 0 && self.usage.is_some()
    }
}

#[derive(Deserialize)]
struct WireChunk {
    #[serde(default)]
    choices: Option<Choices>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Default)]
struct Choices {
    count: u32,
    with_content: u32,
    finish_reason: Option<FinishReason>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    text: Presence,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<FinishReason>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Presence,
    #[serde(default)]
    reasoning: Presence,
    #[serde(default)]
    reasoning_content: Presence,
    #[serde(default)]
    refusal: Presence,
    #[serde(default)]
    tool_calls: Presence,
    #[serde(default)]
    function_call: Presence,
}

impl Delta {
    fn has_content(&self) -> bool {
        let parts = [&self.content, &self.reasoning, &self.reasoning_content];
        let rarer = [&self.refusal, &self.tool_calls, &self.function_call];
        parts.into_iter().chain(rarer).any(|part| part.0)
    }
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Choices;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Choices, A::Error> {
                let mut seen = Choices::default();
                while let Some(choice) = list.next_element::<WireChoice>()? {
                    seen.count += 1;
                    let content = choice.text.0 || choice.delta.is_some_and(|delta| delta.has_content());
                    seen.with_content += u32::from(content);
                    seen.finish_reason = choice.finish_reason.or(seen.finish_reason);
                }
                Ok(seen)
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// Whether a value holds anything: not null, not an empty string, list or object.
#[derive(Default)]
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Presence;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Presence, E> {
                Ok(Presence(false))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Presence, E> {
                Ok(Presence(true))
            }
            fn visit_str<E>(self, text: &str) -> Result<Presence, E> {
                Ok(Presence(!text.is_empty()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Presence, A::Error> {
                let mut some = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    some = true;
                }
                Ok(Presence(some))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Presence, A::Error> {
                let mut some = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    some = true;
                }
                Ok(Presence(some))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &str) -> ChunkSummary {
        ChunkSummary::parse(data.as_bytes()).expect("a JSON object")
    }

    #[test]
    fn the_chunks_of_a_vllm_chat_stream() {
        let role = parse(
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null}"#,
        );
        assert_eq!((role.choices, role.content_choices, role.finish_reason), (1, 0, None));
        let token = parse(
            r#"{"choices":[{"index":0,"delta":{"content":" file"},"logprobs":null,"finish_reason":"length","stop_reason":null}]}"#,
        );
        assert_eq!(
            (token.content_choices, token.finish_reason),
            (1, Some(FinishReason::Length))
        );
        let usage = parse(r#"{"choices":[],"usage":{"prompt_tokens":13,"total_tokens":17,"completion_tokens":4}}"#);
        assert!(usage.is_usage_only());
        assert_eq!(usage.usage.map(|usage| usage.completion_tokens), Some(4));
    }

    #[test]
    fn continuous_usage_is_not_the_usage_only_chunk() {
        let chunk =
            parse(r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
        assert!(!chunk.is_usage_only() && chunk.usage.is_some());
    }

    #[test]
    fn several_choices_text_tools_and_errors() {
        let two = parse(r#"{"choices":[{"text":"a"},{"text":"","finish_reason":"stop"}]}"#);
        assert_eq!(
            (two.choices, two.content_choices, two.finish_reason),
            (2, 1, Some(FinishReason::Stop))
        );
        let tool =
            parse(r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]},"finish_reason":"tool_calls"}],"usage":null}"#);
        assert_eq!(
            (tool.content_choices, tool.finish_reason),
            (1, Some(FinishReason::ToolCalls))
        );
        assert!(parse(r#"{"error":{"message":"x"}}"#).is_error);
        assert_eq!(ChunkSummary::parse(b"[DONE]"), None);
        assert_eq!(ChunkSummary::parse(b"{\"choices\":["), None);
    }
}
